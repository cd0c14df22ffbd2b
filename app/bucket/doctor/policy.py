"""Reading a bucket policy: what does it let everybody do?

https://docs.aws.amazon.com/AmazonS3/latest/userguide/example-bucket-policies.html
"""

import json
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any


class Policy:
    """The statements of one policy; those with conditions count as allowing nobody in general."""

    def __init__(self, text: str) -> None:
        self._statements = _listed(json.loads(text).get("Statement", []))

    def allows_everybody(self, action: str, resource: str) -> bool:
        """Whether anonymous callers may do `action`, such as `s3:GetObject`, on the ARN `resource`."""
        matching = [
            s for s in self._for_everybody() if _has(s, "Action", action) and _has(s, "Resource", resource)
        ]
        effects = {statement.get("Effect") for statement in matching}
        return "Allow" in effects and "Deny" not in effects

    def opened_resources(self, action: str) -> list[str]:
        """The ARNs on which a statement allows everybody `action`."""
        return [
            resource
            for statement in self._for_everybody()
            if statement.get("Effect") == "Allow" and _has(statement, "Action", action)
            for resource in _listed(statement.get("Resource", []))
        ]

    def _for_everybody(self) -> Iterator[dict[str, Any]]:
        for statement in self._statements:
            if not statement.get("Condition") and _is_everybody(statement.get("Principal")):
                yield statement


def _is_everybody(principal: Any) -> bool:
    named = principal.get("AWS", []) if isinstance(principal, dict) else principal
    return "*" in _listed(named or [])


def _has(statement: dict[str, Any], field: str, value: str) -> bool:
    """Actions don't depend on case, ARNs do; `*` and `?` stand for anything in both."""
    wanted = value.lower() if field == "Action" else value
    patterns = _listed(statement.get(field, []))
    return any(fnmatchcase(wanted, p.lower() if field == "Action" else p) for p in patterns)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
