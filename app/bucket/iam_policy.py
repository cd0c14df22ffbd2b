"""The least that the server's own credentials must be allowed, from what the settings really use."""

from typing import Any

from app.bucket.target import Mode
from app.config import Config
from app.generators.bedrock_policy import bedrock_statement

Statement = dict[str, Any]


def least_policy(config: Config, partition: str, mode: Mode | None = None) -> dict[str, Any]:
    """An IAM policy document for the server's user or role.

    `mode` is that of the bucket; without it `S3_ACL` alone tells whether objects get an ACL.
    """
    arn = f"arn:{partition}:s3:::{config.s3_bucket}"
    statements = [_objects(config, arn, mode), _listing(arn)]
    if config.generator == "bedrock":
        drawing = bedrock_statement(config.bedrock_region, config.generator_model, checked=True)
        statements.append({"Sid": "Drawing", **drawing})
    return {"Version": "2012-10-17", "Statement": statements}


def _objects(config: Config, arn: str, mode: Mode | None) -> Statement:
    with_acl = config.s3_acl != "none" and mode != "private"
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
