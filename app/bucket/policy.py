"""The bucket policy: the statement that lets everybody read, put in or taken out among those of others."""

from typing import Any

Statement = dict[str, Any]
Policy = dict[str, Any]

SID = "S3ImageServerPublicRead"
"""By this name our statement is found again; whatever bears another is left alone."""

_EVERYBODY: tuple[Any, ...] = ("*", {"AWS": "*"}, {"AWS": ["*"]})


def statements_of(policy: Policy | None) -> list[Statement]:
    """The statements; a policy with a single one may hold it without a list."""
    found = (policy or {}).get("Statement", [])
    return [found] if isinstance(found, dict) else list(found)


def opens(statement: Statement, objects_arn: str) -> bool:
    """Whether the statement does what ours does, no more and no less, whatever its name.

    The setup guide's `PublicReadGetObject` is such a one.
    """
    return (
        statement.get("Effect") == "Allow"
        and statement.get("Principal") in _EVERYBODY
        and [action.lower() for action in _listed(statement.get("Action"))] == ["s3:getobject"]
        and _listed(statement.get("Resource")) == [objects_arn]
        and not statement.get("Condition")
    )


def is_open(policy: Policy | None, objects_arn: str) -> bool:
    """Whether the policy lets everybody read all objects."""
    return any(opens(statement, objects_arn) for statement in statements_of(policy))


def opened(policy: Policy | None, objects_arn: str) -> Policy:
    """The policy with our statement, those of others as they are."""
    ours = {
        "Sid": SID,
        "Effect": "Allow",
        "Principal": "*",
        "Action": "s3:GetObject",
        "Resource": objects_arn,
    }
    others = [statement for statement in statements_of(policy) if statement.get("Sid") != SID]
    return {"Version": "2012-10-17", **(policy or {}), "Statement": [*others, ours]}


def closed(policy: Policy | None, objects_arn: str) -> Policy | None:
    """The policy without our statement and its like; None where nothing would be left."""
    rest = [
        statement
        for statement in statements_of(policy)
        if statement.get("Sid") != SID and not opens(statement, objects_arn)
    ]
    return {**(policy or {}), "Statement": rest} if rest else None


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [value]
