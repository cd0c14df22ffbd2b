"""AccessDenied for one call at a time: the check that needs it says so, the others go on."""

import pytest

from app.ops.doctor.findings import Finding, Status
from app.ops.doctor.patient import Patient
from tests.ops.doctor.conftest import findings
from tests.ops.doctor.played import PlayedAws

LEFT_OUT = [
    ("GET publicAccessBlock", "block-public-access", "s3:GetBucketPublicAccessBlock"),
    ("s3control", "account-public-access", "s3:GetAccountPublicAccessBlock"),
    ("GET ownershipControls", "object-ownership", "s3:GetBucketOwnershipControls"),
    ("GET policy", "bucket-policy", "s3:GetBucketPolicy"),
    ("GET policy", "public-writes", "s3:GetBucketPolicy"),
    ("GET acl", "public-writes", "s3:GetBucketAcl"),
    ("GET cors", "cors", "s3:GetBucketCORS"),
    ("GET lifecycle", "lifecycle", "s3:GetLifecycleConfiguration"),
    ("GET encryption", "encryption", "s3:GetEncryptionConfiguration"),
    ("GET logging", "access-logs", "s3:GetBucketLogging"),
    ("HEAD object", "bucket-owner", "s3:GetObject"),
]


def denied(patient: Patient, aws: PlayedAws, call: str) -> dict[str, Finding]:
    """What is found while `call` is denied."""
    aws.refused = {call: ("403 Forbidden", "AccessDenied")}
    return findings(patient)


@pytest.mark.parametrize(("call", "check", "permission"), LEFT_OUT)
def test_the_check_names_the_permission(
    public: Patient, aws: PlayedAws, call: str, check: str, permission: str
) -> None:
    found = denied(public, aws, call)
    assert (found[check].status, found[check].text) == (
        Status.SKIPPED,
        f"can't be checked: needs {permission}",
    )
    affected = {check, *(other for asked, other, _ in LEFT_OUT if asked == call), "url-format"}
    assert all(f.status is Status.OK for name, f in found.items() if name not in affected)


def test_who_one_is(public: Patient, aws: PlayedAws) -> None:
    found = denied(public, aws, "sts")
    assert found["caller-identity"].text == "can't be checked: needs sts:GetCallerIdentity"
    assert not [name for name, f in found.items() if f.status is Status.PROBLEM]


def test_head_bucket(public: Patient, aws: PlayedAws) -> None:
    found = denied(public, aws, "HEAD bucket")
    assert all(f.status is Status.OK for name, f in found.items() if name != "url-format")


def test_missing_objects(public: Patient, aws: PlayedAws) -> None:
    assert denied(public, aws, "GET missing")["missing-or-forbidden"].status is Status.WARNING


def test_get(private: Patient, aws: PlayedAws) -> None:
    found = denied(private, aws, "GET object")
    assert found["probe-get"].text == "S3 denies GetObject."
    assert found["probe-get"].fix == "Allow s3:GetObject: flask bucket iam-policy"
    assert found["probe-delete"].status is Status.OK


def test_put(private: Patient, aws: PlayedAws) -> None:
    found = denied(private, aws, "PUT object")
    assert found["probe-put"].text == "S3 denies PutObject."
    assert found["probe-delete"].text == "not checked: probe-put comes first"


def test_delete(private: Patient, aws: PlayedAws) -> None:
    found = denied(private, aws, "DELETE object")
    assert found["probe-delete"].status is Status.WARNING
    assert private.probe.key in found["probe-delete"].text
