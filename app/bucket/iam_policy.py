"""The least that the server's own credentials must be allowed, from what the settings really use."""

from typing import Any

from app.aws_endpoints import DEFAULT_PARTITION, partition_of
from app.bucket.policy import Statement
from app.bucket.target import Mode
from app.config import Config
from app.generators.bedrock_policy import bedrock_statement

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
            checked=True,
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
