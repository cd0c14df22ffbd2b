"""Patients: over a healthy private bucket, a public one, and the pieces of which to make others."""

import json
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest

from app.cache import health as mount
from app.cache.disk_cache import DiskCache
from app.config.settings import Config
from app.ops.bucket.clients import AwsClients
from app.ops.doctor.examination import checks_for, examine
from app.ops.doctor.findings import Finding
from app.ops.doctor.patient import Check, Patient
from app.services.urls import ImageUrls
from app.stores.s3.store import S3Store
from tests.ops.doctor.played import PlayedAws
from tests.s3server import S3Server

MakePatient = Callable[..., Patient]


@pytest.fixture
def aws(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> PlayedAws:
    """The S3 server, refined; STS and S3 Control are found there too."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", s3.url)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3_CONTROL", s3.url.replace("127.0.0.1", "localhost"))
    _resolve_names_below_localhost(monkeypatch)
    return PlayedAws()


def _resolve_names_below_localhost(monkeypatch: pytest.MonkeyPatch) -> None:
    """S3 Control puts the account before the host name (RFC 6761, 6.3 says what such names mean)."""
    resolve = socket.getaddrinfo

    def local(host: Any, *args: Any, **kwargs: Any) -> Any:
        return resolve("127.0.0.1" if str(host).endswith(".localhost") else host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", local)


@pytest.fixture
def on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Say what file system the directories of a test lie on; an ext4 at first."""

    def lie(kind: str) -> None:
        table = tmp_path / "mountinfo"
        table.write_text(
            f"21 1 0:1 / / rw - ext4 /dev/sda1 rw\n22 21 0:2 / {tmp_path} rw - {kind} source rw\n"
        )
        monkeypatch.setattr(mount, "MOUNTS", str(table))

    lie("ext4")
    return lie


@pytest.fixture
def make_patient(
    s3: S3Server, aws: PlayedAws, s3_config: Config, tmp_path: Path, on_disk: Any
) -> Iterator[MakePatient]:
    """Makes patients from settings; each bucket is as it was left."""
    caches = []

    def make(**settings: Any) -> Patient:
        config = replace(s3_config, **{"cache_max_bytes": 10**7} | settings)
        store = S3Store.from_config(config)
        cache = DiskCache(config.cache_dir, config.cache_max_bytes)
        caches.append(cache)
        env_file = tmp_path / ".env"
        env_file.touch(0o600)
        links = ImageUrls(store, config.image_urls, config.public_base_url)
        s3.fault = aws
        return Patient(config, store, cache, AwsClients.from_config(config), links.url_of, env_file)

    yield make
    for cache in caches:
        cache.close()


@pytest.fixture
def look(s3: S3Server, bucket: str) -> Any:
    """A client for configuring the bucket."""
    return boto3.client("s3", endpoint_url=s3.url, region_name="us-east-1")


@pytest.fixture
def private(make_patient: MakePatient, look: Any, bucket: str) -> Patient:
    """A healthy private bucket."""
    block(look, bucket, True)
    own(look, bucket, "BucketOwnerEnforced")
    encrypt(look, bucket, "AES256")
    return make_patient(s3_acl="none", image_urls="server")


@pytest.fixture
def public(make_patient: MakePatient, look: Any, bucket: str, aws: PlayedAws) -> Patient:
    """A healthy public bucket, opened by its policy: ACLs stay blocked, as `setup` leaves them."""
    block(look, bucket, True, BlockPublicPolicy=False, RestrictPublicBuckets=False)
    own(look, bucket, "BucketOwnerEnforced")
    encrypt(look, bucket, "AES256")
    open_for(look, bucket, "s3:GetObject")
    rule = {"AllowedMethods": ["GET", "HEAD"], "AllowedOrigins": ["https://www.example.org"]}
    look.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": [rule]})
    log_to_itself(look, bucket)
    aws.public = True
    return make_patient(s3_acl="none", image_urls="s3")


def block(look: Any, bucket: str, on: bool, **others: bool) -> None:
    """Set the four blocks, some of them otherwise."""
    names = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
    blocks = dict.fromkeys(names, on) | others
    look.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=blocks)


def own(look: Any, bucket: str, ownership: str) -> None:
    """Set the object ownership."""
    rules = {"Rules": [{"ObjectOwnership": ownership}]}
    look.put_bucket_ownership_controls(Bucket=bucket, OwnershipControls=rules)


def encrypt(look: Any, bucket: str, kind: str) -> None:
    """Set the default encryption."""
    rules = [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": kind}}]
    look.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": rules})


def open_for(look: Any, bucket: str, *actions: str, named: str = "") -> None:
    """A policy that lets everybody do `actions` in this bucket, or in the one `named`."""
    statement = {
        "Sid": "Everybody",
        "Effect": "Allow",
        "Principal": "*",
        "Action": list(actions),
        "Resource": f"arn:aws:s3:::{named or bucket}/*",
    }
    look.put_bucket_policy(
        Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    )


def log_to_itself(look: Any, bucket: str) -> None:
    """Access logs, which moto wants the log delivery group to be allowed to write."""
    look.create_bucket(Bucket=f"{bucket}-logs")
    group = 'uri="http://acs.amazonaws.com/groups/s3/LogDelivery"'
    look.put_bucket_acl(Bucket=f"{bucket}-logs", GrantWrite=group, GrantReadACP=group)
    logging = {"LoggingEnabled": {"TargetBucket": f"{bucket}-logs", "TargetPrefix": "s3/"}}
    look.put_bucket_logging(Bucket=bucket, BucketLoggingStatus=logging)


def expire(look: Any, bucket: str, prefix: str, **what: Any) -> None:
    """A lifecycle rule for `prefix`; it deletes after a week unless `what` says otherwise."""
    rule = {
        "ID": "rule",
        "Status": "Enabled",
        "Filter": {"Prefix": prefix},
        **(what or {"Expiration": {"Days": 7}}),
    }
    look.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [rule]})


def findings(patient: Patient) -> dict[str, Finding]:
    """What the doctor finds, by the names of the checks."""
    checks = checks_for(patient.config.store)
    return {result.check: result.finding for result in examine(patient, checks)}


def finding(patient: Patient, name: str) -> Finding:
    """What one check finds, made after those that it needs."""
    check = next(check for check in checks_for(patient.config.store) if check.name == name)
    *_, result = examine(patient, dict.fromkeys((*_needed(check), check)))
    return result.finding


def _needed(check: Check) -> Iterator[Check]:
    for need in check.needs:
        yield from _needed(need)
        yield need
