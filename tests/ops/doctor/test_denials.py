"""If a call is denied, the check that needs it names the permission, and all other checks run."""

import pytest

from app.ops.doctor.context import CheckContext
from app.ops.doctor.findings import Finding, Status
from tests.ops.doctor.conftest import findings
from tests.ops.doctor.fake_aws import FakeAws

DENIED_CALLS = [
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


def denied(context: CheckContext, aws: FakeAws, call: str) -> dict[str, Finding]:
    """Return all findings while `call` is denied."""
    aws.refused = {call: ("403 Forbidden", "AccessDenied")}
    return findings(context)


@pytest.mark.parametrize(("call", "check", "permission"), DENIED_CALLS)
def test_the_check_names_the_missing_permission(
    public: CheckContext, aws: FakeAws, call: str, check: str, permission: str
) -> None:
    found = denied(public, aws, call)
    assert (found[check].status, found[check].text) == (
        Status.SKIPPED,
        f"can't be checked: needs {permission}",
    )
    affected = {check, *(other for other_call, other, _ in DENIED_CALLS if other_call == call), "url-format"}
    assert all(f.status is Status.OK for name, f in found.items() if name not in affected)


def test_without_sts_the_identity_is_not_checked(public: CheckContext, aws: FakeAws) -> None:
    found = denied(public, aws, "sts")
    assert found["caller-identity"].text == "can't be checked: needs sts:GetCallerIdentity"
    assert not [name for name, f in found.items() if f.status is Status.PROBLEM]


def test_a_denied_head_bucket_is_not_a_problem(public: CheckContext, aws: FakeAws) -> None:
    found = denied(public, aws, "HEAD bucket")
    assert all(f.status is Status.OK for name, f in found.items() if name != "url-format")


def test_a_denied_read_of_a_missing_object_is_a_warning(public: CheckContext, aws: FakeAws) -> None:
    assert denied(public, aws, "GET missing")["missing-or-forbidden"].status is Status.WARNING


def test_a_denied_get_is_a_problem(private: CheckContext, aws: FakeAws) -> None:
    found = denied(private, aws, "GET object")
    assert found["probe-get"].text == "S3 denies GetObject."
    assert found["probe-get"].fix == "Allow s3:GetObject: flask bucket iam-policy"
    assert found["probe-delete"].status is Status.OK


def test_a_denied_put_blocks_the_checks_of_the_probe(private: CheckContext, aws: FakeAws) -> None:
    found = denied(private, aws, "PUT object")
    assert found["probe-put"].text == "S3 denies PutObject."
    assert found["probe-delete"].text == "not checked: probe-put must pass first"


def test_a_denied_delete_is_a_warning_with_the_key(private: CheckContext, aws: FakeAws) -> None:
    found = denied(private, aws, "DELETE object")
    assert found["probe-delete"].status is Status.WARNING
    assert private.probe.key in found["probe-delete"].text
