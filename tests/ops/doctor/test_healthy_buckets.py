"""In healthy buckets, the doctor finds no problem and leaves no object behind."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from app.cache.disk_cache import DiskCache
from app.config.settings import Config
from app.ops.bucket.clients import AwsClients
from app.ops.doctor.context import CheckContext
from app.ops.doctor.findings import Finding, Status
from app.stores.local import LocalStore
from tests.aws_restrictions import AwsRestrictions
from tests.ops.doctor.conftest import MakeContext, findings, set_ownership, set_public_access_block
from tests.ops.doctor.fake_aws import FakeAws
from tests.s3server import S3Server, first_of

NOT_AT_AWS = {"url-format"}
"""Names of checks that do not apply to an S3 server on this machine."""


def not_ok(found: dict[str, Finding]) -> dict[str, Finding]:
    """Return the findings that are not ok."""
    return {name: finding for name, finding in found.items() if finding.status is not Status.OK}


def test_a_private_bucket_is_ok(private: CheckContext, admin: Any, bucket: str) -> None:
    assert not_ok(findings(private)).keys() == NOT_AT_AWS
    assert "Contents" not in admin.list_objects_v2(Bucket=bucket)


def test_a_bucket_that_is_public_by_policy_is_ok(public: CheckContext, admin: Any, bucket: str) -> None:
    assert not_ok(findings(public)).keys() == NOT_AT_AWS
    assert "Contents" not in admin.list_objects_v2(Bucket=bucket)


@pytest.mark.parametrize("settings", [{}, {"s3_acl": "none"}, {"s3_acl": "none", "image_urls": "s3"}])
def test_a_bucket_that_setup_made_public_has_no_problem(
    s3_app: Flask, s3: S3Server, aws: FakeAws, make_context: MakeContext, settings: dict[str, str]
) -> None:
    made = s3_app.test_cli_runner().invoke(args=["bucket", "setup", "--mode", "public", "--yes"])
    assert made.exit_code == 0, made.output
    context = make_context(**settings)
    s3.fault, aws.public = first_of(AwsRestrictions(s3), aws), True
    found = findings(context)
    assert [name for name, finding in found.items() if finding.status is Status.PROBLEM] == []
    assert context.is_public
    assert found["block-public-access"].status is Status.OK


@pytest.mark.parametrize("acl", ["public-read", "auto"])
def test_a_bucket_that_is_public_by_acl_is_ok(
    public: CheckContext, make_context: MakeContext, admin: Any, bucket: str, acl: str
) -> None:
    set_ownership(admin, bucket, "ObjectWriter")
    set_public_access_block(admin, bucket, False, RestrictPublicBuckets=True)
    admin.delete_bucket_policy(Bucket=bucket)
    found = findings(make_context(s3_acl=acl))
    assert not_ok(found).keys() == NOT_AT_AWS
    assert "the ACLs of the images do" in found["bucket-policy"].text


def test_auto_is_private_if_the_bucket_is_private(private: CheckContext, make_context: MakeContext) -> None:
    context = make_context(s3_acl="none")
    assert context.mode == "private"
    assert not make_context().is_public


def test_auto_is_public_if_the_probe_is_public(public: CheckContext, make_context: MakeContext) -> None:
    context = make_context(s3_acl="none")
    context.store.put(context.probe.key, context.probe.data, content_type=context.probe.content_type)
    assert context.mode == "public"


def test_permissions_to_get_and_put_are_enough(private: CheckContext, aws: FakeAws) -> None:
    denied = ("403 Forbidden", "AccessDenied")
    every = ("publicAccessBlock", "ownershipControls", "policy", "lifecycle", "encryption", "acl")
    aws.refused = {f"GET {name}": denied for name in every}
    aws.refused |= {
        "HEAD bucket": denied,
        "DELETE object": denied,
        "s3control": denied,
        "GET missing": denied,
    }
    found = not_ok(findings(private))
    assert {name: finding.status for name, finding in found.items()} == {
        "missing-or-forbidden": Status.WARNING,
        "url-format": Status.SKIPPED,
        "object-ownership": Status.SKIPPED,
        "block-public-access": Status.SKIPPED,
        "account-public-access": Status.SKIPPED,
        "bucket-policy": Status.SKIPPED,
        "public-writes": Status.SKIPPED,
        "lifecycle": Status.SKIPPED,
        "encryption": Status.SKIPPED,
        "probe-delete": Status.WARNING,
    }
    assert found["bucket-policy"].text == "can't be checked: needs s3:GetBucketPolicy"
    assert private.probe.key in found["probe-delete"].text


def test_a_local_store_is_checked_without_a_bucket(
    config: Config, set_file_system: Any, tmp_path: Path
) -> None:
    config = replace(config, cache_max_bytes=10**7)
    cache = DiskCache(config.cache_dir, config.cache_max_bytes)
    store = LocalStore.from_config(config)
    context = CheckContext(config, store, cache, AwsClients.from_config(config), lambda key: key)
    found = findings(context)
    cache.close()
    assert not_ok(found).keys() == {"store", "env-file-mode"}
    assert found["store"].text == "does not apply: STORE=local has no bucket"
    assert found["probe-bytes"].status is Status.OK
    assert not store.list().objects
