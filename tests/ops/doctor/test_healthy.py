"""Healthy buckets: nothing to complain of, nothing left behind."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from app.cache.disk_cache import DiskCache
from app.config.settings import Config
from app.ops.bucket.clients import AwsClients
from app.ops.doctor.findings import Finding, Status
from app.ops.doctor.patient import Patient
from app.stores.local import LocalStore
from tests.aws_manners import AwsManners, all_of
from tests.ops.doctor.conftest import MakePatient, block, findings, own
from tests.ops.doctor.played import PlayedAws
from tests.s3server import S3Server

NOT_AT_AWS = {"url-format"}
"""What has no meaning for a server on this machine."""


def not_ok(found: dict[str, Finding]) -> dict[str, Finding]:
    """What is left of `found` without what is in order."""
    return {name: finding for name, finding in found.items() if finding.status is not Status.OK}


def test_a_private_bucket(private: Patient, look: Any, bucket: str) -> None:
    assert not_ok(findings(private)).keys() == NOT_AT_AWS
    assert "Contents" not in look.list_objects_v2(Bucket=bucket)


def test_a_bucket_that_is_public_by_policy(public: Patient, look: Any, bucket: str) -> None:
    assert not_ok(findings(public)).keys() == NOT_AT_AWS
    assert "Contents" not in look.list_objects_v2(Bucket=bucket)


@pytest.mark.parametrize("settings", [{}, {"s3_acl": "none"}, {"s3_acl": "none", "image_urls": "s3"}])
def test_the_bucket_that_setup_makes_public(
    s3_app: Flask, s3: S3Server, aws: PlayedAws, make_patient: MakePatient, settings: dict[str, str]
) -> None:
    made = s3_app.test_cli_runner().invoke(args=["bucket", "setup", "--mode", "public", "--yes"])
    assert made.exit_code == 0, made.output
    patient = make_patient(**settings)
    s3.fault, aws.public = all_of(AwsManners(s3), aws), True
    found = findings(patient)
    assert [name for name, finding in found.items() if finding.status is Status.PROBLEM] == []
    assert patient.is_public
    assert found["block-public-access"].status is Status.OK


@pytest.mark.parametrize("acl", ["public-read", "auto"])
def test_a_bucket_that_is_public_by_acl(
    public: Patient, make_patient: MakePatient, look: Any, bucket: str, acl: str
) -> None:
    own(look, bucket, "ObjectWriter")
    block(look, bucket, False, RestrictPublicBuckets=True)
    look.delete_bucket_policy(Bucket=bucket)
    found = findings(make_patient(s3_acl=acl))
    assert not_ok(found).keys() == NOT_AT_AWS
    assert "ACLs do" in found["bucket-policy"].text


def test_auto_takes_the_mode_from_the_store(private: Patient, make_patient: MakePatient) -> None:
    patient = make_patient(s3_acl="none")
    assert patient.mode == "private"
    assert not make_patient().is_public


def test_auto_finds_a_public_bucket(public: Patient, make_patient: MakePatient) -> None:
    patient = make_patient(s3_acl="none")
    patient.store.put(patient.probe.key, patient.probe.data, content_type=patient.probe.content_type)
    assert patient.mode == "public"


def test_get_and_put_are_permissions_enough(private: Patient, aws: PlayedAws) -> None:
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


def test_a_local_store_needs_no_bucket(config: Config, on_disk: Any, tmp_path: Path) -> None:
    config = replace(config, cache_max_bytes=10**7)
    cache = DiskCache(config.cache_dir, config.cache_max_bytes)
    store = LocalStore.from_config(config)
    patient = Patient(config, store, cache, AwsClients.from_config(config), lambda key: key)
    found = findings(patient)
    cache.close()
    assert not_ok(found).keys() == {"store", "env-file-mode"}
    assert found["store"].text == "STORE=local is no bucket: checks of a bucket don't apply"
    assert found["probe-bytes"].status is Status.OK
    assert not store.list().objects
