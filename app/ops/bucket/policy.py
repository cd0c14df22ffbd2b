"""Functions that find out what a bucket policy lets everyone do, and that add or remove our statement.

Our statement lets everyone read the objects.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/example-bucket-policies.html
"""

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

Statement = dict[str, Any]
Policy = dict[str, Any]

SID = "S3ImageServerPublicRead"
"""The ID of our statement, by which we recognize it."""

_EVERYONE = "*"


def allows_everyone(policy: Policy | None, action: str, resource: str) -> bool:
    """Return True if anonymous callers may do `action`, such as `s3:GetObject`, on the ARN `resource`."""
    matching = (s for s in _for_everyone(policy) if _matches(s, "Action", action))
    effects = {s.get("Effect") for s in matching if _matches(s, "Resource", resource)}
    return "Allow" in effects and "Deny" not in effects


def public_resources(policy: Policy | None, action: str) -> list[str]:
    """Return the ARNs on which some statement lets everyone do `action`."""
    return [
        resource
        for statement in _for_everyone(policy)
        if statement.get("Effect") == "Allow" and _matches(statement, "Action", action)
        for resource in _as_list(statement.get("Resource", []))
    ]


def is_public(policy: Policy | None, objects_arn: str) -> bool:
    """Return whether the policy lets everyone read all objects, by our statement or an equivalent one."""
    return any(_is_public_read(statement, objects_arn) for statement in _statements(policy))


def with_public_read(policy: Policy | None, objects_arn: str) -> Policy:
    """Return the policy with our statement added. All other statements stay unchanged."""
    ours = {
        "Sid": SID,
        "Effect": "Allow",
        "Principal": _EVERYONE,
        "Action": "s3:GetObject",
        "Resource": objects_arn,
    }
    others = [statement for statement in _statements(policy) if statement.get("Sid") != SID]
    return {"Version": "2012-10-17", **(policy or {}), "Statement": [*others, ours]}


def without_public_read(policy: Policy | None, objects_arn: str) -> Policy | None:
    """Return the policy without our statement and equivalent ones, or None if no statement remains."""
    rest = [
        statement
        for statement in _statements(policy)
        if statement.get("Sid") != SID and not _is_public_read(statement, objects_arn)
    ]
    return {**(policy or {}), "Statement": rest} if rest else None


def _is_public_read(statement: Statement, objects_arn: str) -> bool:
    """Return whether the statement allows exactly what our statement allows, regardless of its ID.

    In the AWS documentation, for example, the ID of such a statement is `PublicReadGetObject`.
    """
    return (
        statement.get("Effect") == "Allow"
        and _principals(statement) == [_EVERYONE]
        and [action.lower() for action in _as_list(statement.get("Action", []))] == ["s3:getobject"]
        and _as_list(statement.get("Resource", [])) == [objects_arn]
        and not statement.get("Condition")
    )


def _statements(policy: Policy | None) -> list[Statement]:
    return _as_list((policy or {}).get("Statement", []))


def _for_everyone(policy: Policy | None) -> Iterator[Statement]:
    """Yield the statements that apply to all callers. Statements with a condition are left out."""
    for statement in _statements(policy):
        if not statement.get("Condition") and _EVERYONE in _principals(statement):
            yield statement


def _principals(statement: Statement) -> list[str]:
    """Return the names of the statement's principals of all types, such as AWS accounts and services."""
    principal = statement.get("Principal", [])
    values = principal.values() if isinstance(principal, dict) else [principal]
    return [name for names in values for name in _as_list(names)]


def _matches(statement: Statement, element: str, value: str) -> bool:
    """Return whether the value matches one of the patterns in an element of the statement.

    The element is `Action` or `Resource`. The patterns may contain `*` and `?`. Actions are case-insensitive,
    and ARNs are case-sensitive.
    """
    patterns = _as_list(statement.get(element, []))
    if element == "Action":
        value, patterns = value.lower(), [pattern.lower() for pattern in patterns]
    return any(fnmatchcase(value, pattern) for pattern in patterns)


def _as_list(value: Any) -> list[Any]:
    """Return the value as a list. A policy may contain a single value in place of a list."""
    return value if isinstance(value, list) else [value]
