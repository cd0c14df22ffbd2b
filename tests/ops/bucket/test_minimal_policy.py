"""The minimal policy of the server's user, for different settings."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.config.settings import Config
from app.ops.bucket.clients import AwsClients
from app.ops.bucket.iam import minimal_policy
from app.ops.bucket.state import Mode

OBJECTS = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"]


@pytest.mark.parametrize(
    ("acl", "mode", "actions"),
    [
        ("none", None, OBJECTS),
        ("none", "public", OBJECTS),
        ("auto", "private", OBJECTS),
        ("auto", None, [*OBJECTS, "s3:PutObjectAcl"]),
        ("public-read", "public", [*OBJECTS, "s3:PutObjectAcl"]),
    ],
)
def test_the_mode_and_the_settings_decide_whether_acls_are_allowed(
    config: Config, acl: str, mode: Mode | None, actions: list[str]
) -> None:
    assert minimal_policy(replace(config, s3_bucket="cats", s3_acl=acl), "aws", mode) == {
        "Version": "2012-10-17",
        "Statement": [
            {"Sid": "Objects", "Effect": "Allow", "Action": actions, "Resource": "arn:aws:s3:::cats/*"},
            {
                "Sid": "Listing",
                "Effect": "Allow",
                "Action": ["s3:ListBucket"],
                "Resource": "arn:aws:s3:::cats",
            },
        ],
    }


@pytest.mark.parametrize("urls", ["server", "presigned"])
def test_private_urls_need_no_permission_for_acls_unless_they_are_set(config: Config, urls: str) -> None:
    config = replace(config, s3_bucket="cats", image_urls=urls)
    for acl, actions in (("auto", OBJECTS), ("public-read", [*OBJECTS, "s3:PutObjectAcl"])):
        statement, _ = minimal_policy(replace(config, s3_acl=acl), "aws")["Statement"]
        assert statement["Action"] == actions


@pytest.mark.parametrize(
    ("region", "arn"),
    [
        ("eu-west-1", "arn:aws:s3:::cats"),
        ("cn-north-1", "arn:aws-cn:s3:::cats"),
        ("us-gov-west-1", "arn:aws-us-gov:s3:::cats"),
        ("eusc-de-east-1", "arn:aws-eusc:s3:::cats"),
        ("us-iso-east-1", "arn:aws-iso:s3:::cats"),
        ("us-isob-east-1", "arn:aws-iso-b:s3:::cats"),
    ],
)
def test_arns_use_the_partition_of_the_region(config: Config, region: str, arn: str) -> None:
    partition = AwsClients(region=region).partition
    policy = minimal_policy(replace(config, s3_bucket="cats"), partition)
    assert [statement["Resource"] for statement in policy["Statement"]] == [f"{arn}/*", arn]


def test_a_bedrock_model_may_be_invoked_and_looked_up(config: Config) -> None:
    drawing = replace(config, s3_bucket="cats", generator="bedrock", generator_model="stability.x-v1:0")
    assert minimal_policy(drawing, "aws")["Statement"][2] == {
        "Sid": "Drawing",
        "Effect": "Allow",
        "Action": ["bedrock:InvokeModel", "bedrock:GetFoundationModel"],
        "Resource": "arn:aws:bedrock:us-west-2::foundation-model/stability.x-v1:0",
    }


@pytest.mark.parametrize(
    ("region", "partition"),
    [("us-gov-west-1", "aws-us-gov"), ("cn-north-1", "aws-cn"), ("eusc-de-east-1", "aws-eusc")],
)
def test_the_bedrock_model_may_be_in_a_different_partition_than_the_bucket(
    config: Config, region: str, partition: str
) -> None:
    drawing = replace(
        config, s3_bucket="cats", generator="bedrock", generator_model="m", bedrock_region=region
    )
    resource = minimal_policy(drawing, "aws")["Statement"][2]["Resource"]
    assert resource == f"arn:{partition}:bedrock:{region}::foundation-model/m"


KEY_ARN = "arn:aws:kms:eu-west-1:111122223333:key/abc"
ALIAS = {"ForAnyValue:StringEquals": {"kms:ResourceAliases": "alias/cats"}}


@pytest.mark.parametrize(
    ("region", "key", "resource", "condition"),
    [
        ("us-east-1", KEY_ARN, KEY_ARN, {}),
        ("eu-west-1", "abc", "arn:aws:kms:eu-west-1:*:key/abc", {}),
        ("", "abc", "arn:aws:kms:*:*:key/abc", {}),
        ("eu-west-1", "alias/cats", "arn:aws:kms:eu-west-1:*:key/*", {"Condition": ALIAS}),
        (
            "us-east-1",
            "arn:aws:kms:eu-west-1:111122223333:alias/cats",
            "arn:aws:kms:eu-west-1:111122223333:key/*",
            {"Condition": ALIAS},
        ),
    ],
)
def test_a_kms_key_may_be_used(
    config: Config, region: str, key: str, resource: str, condition: dict[str, Any]
) -> None:
    settings: dict[str, Any] = {"aws_region": region, "s3_sse": "aws:kms", "s3_sse_kms_key_id": key}
    policy = minimal_policy(replace(config, s3_bucket="cats", **settings), "aws")
    assert policy["Statement"][2:] == [
        {
            "Sid": "Encryption",
            "Effect": "Allow",
            "Action": ["kms:GenerateDataKey", "kms:Decrypt"],
            "Resource": resource,
            **condition,
        }
    ]


@pytest.mark.parametrize(
    ("sse", "key"), [("none", ""), ("AES256", ""), ("aws:kms", ""), ("aws:kms", "alias/aws/s3")]
)
def test_keys_that_aws_manages_need_no_permission(config: Config, sse: str, key: str) -> None:
    encrypted = replace(config, s3_bucket="cats", s3_sse=sse, s3_sse_kms_key_id=key)
    assert "kms:" not in json.dumps(minimal_policy(encrypted, "aws"))


def test_the_documentation_shows_the_same_policy(config: Config) -> None:
    text = (Path(__file__).parents[3] / "docs/buckets.md").read_text(encoding="utf-8")
    shown = json.loads(text.partition("```json\n")[2].partition("```")[0])
    assert shown == minimal_policy(replace(config, s3_bucket="newgate-ai-images-2025", s3_acl="none"), "aws")
