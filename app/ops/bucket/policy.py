"""The least that the server's own credentials must be allowed, from what the settings really use.

What a bucket is to become.

The bucket policy: what it lets everybody do, and our statement, put in or taken out among those of others.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/example-bucket-policies.html
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal

from app.aws.endpoints import DEFAULT_PARTITION, partition_of
from app.config.settings import Config
from app.generators.bedrock import bedrock_statement

Mode = Literal["public", "private"]


@dataclass(frozen=True)
class Target:
    """The bucket as `flask bucket setup` was asked to make it.

    `mode` says whether everybody may read its objects. `cors` are origins such as `https://example.org`;
    `expire` maps prefixes to the days after which objects below them go. `partition` is that of ARNs.
    """

    bucket: str
    region: str
    mode: Mode
    partition: str = "aws"
    cors: tuple[str, ...] = ()
    expire: Mapping[str, int] = field(default_factory=dict)

    @property
    def objects_arn(self) -> str:
        """The ARN of all objects in the bucket."""
        return f"arn:{self.partition}:s3:::{self.bucket}/*"


Statement = dict[str, Any]
Policy = dict[str, Any]

SID = "S3ImageServerPublicRead"
"""By this name our statement is found again; whatever bears another is left alone."""

_EVERYBODY = "*"


def allows_everybody(policy: Policy | None, action: str, resource: str) -> bool:
    """Whether anonymous callers may do `action`, such as `s3:GetObject`, on the ARN `resource`."""
    matching = (s for s in _for_everybody(policy) if _covers(s, "Action", action))
    effects = {s.get("Effect") for s in matching if _covers(s, "Resource", resource)}
    return "Allow" in effects and "Deny" not in effects


def opened_resources(policy: Policy | None, action: str) -> list[str]:
    """The ARNs on which a statement allows everybody `action`."""
    return [
        resource
        for statement in _for_everybody(policy)
        if statement.get("Effect") == "Allow" and _covers(statement, "Action", action)
        for resource in _listed(statement.get("Resource", []))
    ]


def is_open(policy: Policy | None, objects_arn: str) -> bool:
    """Whether a statement like ours lets everybody read all objects."""
    return any(_opens(statement, objects_arn) for statement in _statements(policy))


def opened(policy: Policy | None, objects_arn: str) -> Policy:
    """The policy with our statement, those of others as they are."""
    ours = {
        "Sid": SID,
        "Effect": "Allow",
        "Principal": _EVERYBODY,
        "Action": "s3:GetObject",
        "Resource": objects_arn,
    }
    others = [statement for statement in _statements(policy) if statement.get("Sid") != SID]
    return {"Version": "2012-10-17", **(policy or {}), "Statement": [*others, ours]}


def closed(policy: Policy | None, objects_arn: str) -> Policy | None:
    """The policy without our statement and its like; None where nothing would be left."""
    rest = [
        statement
        for statement in _statements(policy)
        if statement.get("Sid") != SID and not _opens(statement, objects_arn)
    ]
    return {**(policy or {}), "Statement": rest} if rest else None


def _opens(statement: Statement, objects_arn: str) -> bool:
    """Whether the statement does what ours does, no more and no less, whatever its name.

    The setup guide's `PublicReadGetObject` is such a one.
    """
    return (
        statement.get("Effect") == "Allow"
        and _principals(statement) == [_EVERYBODY]
        and [action.lower() for action in _listed(statement.get("Action", []))] == ["s3:getobject"]
        and _listed(statement.get("Resource", [])) == [objects_arn]
        and not statement.get("Condition")
    )


def _statements(policy: Policy | None) -> list[Statement]:
    """A policy with a single statement may hold it without a list."""
    return _listed((policy or {}).get("Statement", []))


def _for_everybody(policy: Policy | None) -> Iterator[Statement]:
    """Statements with conditions count as being for nobody in general."""
    for statement in _statements(policy):
        if not statement.get("Condition") and _EVERYBODY in _principals(statement):
            yield statement


def _principals(statement: Statement) -> list[str]:
    """Whom the statement names, whether as AWS accounts, as services or otherwise."""
    principal = statement.get("Principal", [])
    named = principal.values() if isinstance(principal, dict) else [principal]
    return [name for names in named for name in _listed(names)]


def _covers(statement: Statement, field: str, value: str) -> bool:
    """Actions don't depend on case, ARNs do; `*` and `?` stand for anything in both."""
    wanted = value.lower() if field == "Action" else value
    patterns = _listed(statement.get(field, []))
    return any(fnmatchcase(wanted, p.lower() if field == "Action" else p) for p in patterns)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


_AWS_OWN_ALIAS = "alias/aws/s3"
"""S3's key of KMS in each account: its key policy lets in whoever may use S3 there."""


def least_policy(config: Config, partition: str, mode: Mode | None = None) -> dict[str, Any]:
    """An IAM policy document for the server's user or role.

    `mode` is that of the bucket; without it the settings alone say whether objects get an ACL.
    """
    arn = f"arn:{partition}:s3:::{config.s3_bucket}"
    statements = [_objects(config, arn, mode), _listing(arn)]
    if config.s3_sse_kms_key_id and not config.s3_sse_kms_key_id.endswith(_AWS_OWN_ALIAS):
        statements.append(_encryption(config, partition))
    if config.generator == "bedrock":
        drawing = bedrock_statement(
            partition_of(config.bedrock_region) or DEFAULT_PARTITION,
            config.bedrock_region,
            config.generator_model,
            with_lifecycle=True,
        )
        statements.append({"Sid": "Drawing", **drawing})
    return {"Version": "2012-10-17", "Statement": statements}


def _objects(config: Config, arn: str, mode: Mode | None) -> Statement:
    with_acl = config.object_acl != "none" and mode != "private"
    return {
        "Sid": "Objects",
        "Effect": "Allow",
        "Action": [
            "s3:GetObject",
            "s3:PutObject",
            "s3:DeleteObject",
            *(["s3:PutObjectAcl"] if with_acl else []),
        ],
        "Resource": f"{arn}/*",
    }


def _listing(arn: str) -> Statement:
    """Without it S3 answers 403 for objects that are not there."""
    return {"Sid": "Listing", "Effect": "Allow", "Action": ["s3:ListBucket"], "Resource": arn}


def _encryption(config: Config, partition: str) -> Statement:
    """For putting and getting with a key of KMS, named by its ARN, where `*` stands for what is not known, or
    by its alias in a condition.

    https://docs.aws.amazon.com/kms/latest/developerguide/cmks-in-iam-policies.html
    """
    place, _, key = config.s3_sse_kms_key_id.rpartition(":")
    place = place or f"arn:{partition}:kms:{config.aws_region or '*'}:*"
    is_alias = key.startswith("alias/")
    by_alias = {"Condition": {"ForAnyValue:StringEquals": {"kms:ResourceAliases": key}}}
    return {
        "Sid": "Encryption",
        "Effect": "Allow",
        "Action": ["kms:GenerateDataKey", "kms:Decrypt"],
        "Resource": f"{place}:key/{'*' if is_alias else key.removeprefix('key/')}",
        **(by_alias if is_alias else {}),
    }
