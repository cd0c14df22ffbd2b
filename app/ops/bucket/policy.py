"""Bucket policies: what a policy lets everybody do, and how to add or remove our statement among others.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/example-bucket-policies.html
"""

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

Statement = dict[str, Any]
Policy = dict[str, Any]

SID = "S3ImageServerPublicRead"
"""The id by which we recognize our own statement. Statements with another one are left alone."""

_EVERYBODY = "*"


def allows_everybody(policy: Policy | None, action: str, resource: str) -> bool:
    """Return True if anonymous callers may do `action`, such as `s3:GetObject`, on the ARN `resource`."""
    matching = (s for s in _for_everybody(policy) if _matches(s, "Action", action))
    effects = {s.get("Effect") for s in matching if _matches(s, "Resource", resource)}
    return "Allow" in effects and "Deny" not in effects


def public_resources(policy: Policy | None, action: str) -> list[str]:
    """Return the ARNs on which a statement allows everybody `action`."""
    return [
        resource
        for statement in _for_everybody(policy)
        if statement.get("Effect") == "Allow" and _matches(statement, "Action", action)
        for resource in _as_list(statement.get("Resource", []))
    ]


def is_public(policy: Policy | None, objects_arn: str) -> bool:
    """Return True if a statement that is equivalent to ours lets everybody read all objects."""
    return any(_is_public_read(statement, objects_arn) for statement in _statements(policy))


def with_public_read(policy: Policy | None, objects_arn: str) -> Policy:
    """Return the policy with our statement. The statements of others stay unchanged."""
    ours = {
        "Sid": SID,
        "Effect": "Allow",
        "Principal": _EVERYBODY,
        "Action": "s3:GetObject",
        "Resource": objects_arn,
    }
    others = [statement for statement in _statements(policy) if statement.get("Sid") != SID]
    return {"Version": "2012-10-17", **(policy or {}), "Statement": [*others, ours]}


def without_public_read(policy: Policy | None, objects_arn: str) -> Policy | None:
    """Return the policy without our statement and equivalent ones; None if no statement remains."""
    rest = [
        statement
        for statement in _statements(policy)
        if statement.get("Sid") != SID and not _is_public_read(statement, objects_arn)
    ]
    return {**(policy or {}), "Statement": rest} if rest else None


def _is_public_read(statement: Statement, objects_arn: str) -> bool:
    """Return True if the statement allows exactly what ours allows, whatever its id.

    AWS's documentation calls its own `PublicReadGetObject`.
    """
    return (
        statement.get("Effect") == "Allow"
        and _principals(statement) == [_EVERYBODY]
        and [action.lower() for action in _as_list(statement.get("Action", []))] == ["s3:getobject"]
        and _as_list(statement.get("Resource", [])) == [objects_arn]
        and not statement.get("Condition")
    )


def _statements(policy: Policy | None) -> list[Statement]:
    return _as_list((policy or {}).get("Statement", []))


def _for_everybody(policy: Policy | None) -> Iterator[Statement]:
    """Yield the statements that apply to all callers. Those with a condition do not."""
    for statement in _statements(policy):
        if not statement.get("Condition") and _EVERYBODY in _principals(statement):
            yield statement


def _principals(statement: Statement) -> list[str]:
    """Return the principals of every kind: AWS accounts, services and others."""
    principal = statement.get("Principal", [])
    values = principal.values() if isinstance(principal, dict) else [principal]
    return [name for names in values for name in _as_list(names)]


def _matches(statement: Statement, element: str, value: str) -> bool:
    """Return True if one of the element's patterns, with `*` and `?`, matches.

    Actions ignore case, ARNs don't.
    """
    patterns = _as_list(statement.get(element, []))
    if element == "Action":
        value, patterns = value.lower(), [pattern.lower() for pattern in patterns]
    return any(fnmatchcase(value, pattern) for pattern in patterns)


def _as_list(value: Any) -> list[Any]:
    """Return a list: a policy may hold a single value without one."""
    return value if isinstance(value, list) else [value]
