"""Steps for CORS, lifecycle and encryption. All other rules stay unchanged."""

from typing import Any

import pytest

from app.ops.bucket.plan import Step, rule_steps
from app.ops.bucket.state import BucketState, Target

ORIGIN = "https://app.example"
ABORT = {
    "ID": "s3-image-server abort incomplete uploads",
    "Status": "Enabled",
    "Filter": {"Prefix": ""},
    "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
}
EXPIRE = {
    "ID": "s3-image-server expire Tmp/",
    "Status": "Enabled",
    "Filter": {"Prefix": "Tmp/"},
    "Expiration": {"Days": 30},
}
CORS = {
    "ID": "s3-image-server",
    "AllowedOrigins": [ORIGIN],
    "AllowedMethods": ["GET", "HEAD"],
    "AllowedHeaders": ["*"],
    "MaxAgeSeconds": 3600,
}
FOREIGN_LIFECYCLE = {"ID": "logs", "Status": "Enabled", "Prefix": "logs/", "Expiration": {"Days": 5}}
FOREIGN_CORS = {"AllowedOrigins": ["https://other.example"], "AllowedMethods": ["PUT"]}
ENCRYPTED = {"ServerSideEncryptionConfiguration": {"Rules": [{"BucketKeyEnabled": True}]}}


def _steps(cors: tuple[str, ...] = (), **settings: dict[str, Any]) -> list[Step]:
    target = Target("cats", "eu-west-1", "private", cors=cors, expire={"Tmp/": 30})
    return rule_steps(target, BucketState(exists=True, settings=settings))


def test_other_rules_stay_in_place() -> None:
    steps = _steps(
        (ORIGIN,),
        GetBucketCors={"CORSRules": [FOREIGN_CORS]},
        GetBucketLifecycleConfiguration={
            "Rules": [FOREIGN_LIFECYCLE],
            "TransitionDefaultMinimumObjectSize": "varies_by_storage_class",
        },
    )
    assert [(step.operation, step.parameters) for step in steps] == [
        ("PutBucketCors", {"Bucket": "cats", "CORSConfiguration": {"CORSRules": [FOREIGN_CORS, CORS]}}),
        (
            "PutBucketLifecycleConfiguration",
            {
                "Bucket": "cats",
                "LifecycleConfiguration": {"Rules": [FOREIGN_LIFECYCLE, ABORT, EXPIRE]},
                "TransitionDefaultMinimumObjectSize": "varies_by_storage_class",
            },
        ),
    ]
    assert (
        steps[1].title == "Delete objects under Tmp/ after 30 days, discard incomplete uploads after 7 days"
    )


def test_our_rules_are_replaced_in_place() -> None:
    (step,) = _steps(
        GetBucketLifecycleConfiguration={
            "Rules": [EXPIRE | {"Expiration": {"Days": 1}}, FOREIGN_LIFECYCLE, ABORT | {"Filter": {}}]
        },
    )
    assert step.parameters["LifecycleConfiguration"]["Rules"] == [
        EXPIRE,
        FOREIGN_LIFECYCLE,
        ABORT | {"Filter": {}},
    ]


@pytest.mark.parametrize("empty", [{"Filter": {"Prefix": ""}}, {"Filter": {}}, {"Prefix": "", "Filter": {}}])
def test_no_steps_if_all_rules_exist(empty: dict[str, Any]) -> None:
    assert not _steps(
        (ORIGIN,),
        GetBucketCors={"CORSRules": [CORS, FOREIGN_CORS]},
        GetBucketLifecycleConfiguration={"Rules": [EXPIRE, ABORT | empty]},
        GetBucketEncryption=ENCRYPTED,
    )


def test_no_steps_for_settings_that_the_server_does_not_support() -> None:
    assert not _steps((ORIGIN,))


def test_a_bucket_without_default_encryption_gets_it() -> None:
    (step,) = _steps(GetBucketEncryption={})
    assert step.parameters == {
        "Bucket": "cats",
        "ServerSideEncryptionConfiguration": {
            "Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]
        },
    }
