"""Contexts with a healthy private or public bucket, and functions that change the bucket."""

import json
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest

from app.cache.disk_cache import DiskCache
from app.config.settings import Config
from app.core import system
from app.ops.bucket.clients import AwsClients
from app.ops.doctor.context import Check, CheckContext
from app.ops.doctor.findings import Finding
from app.ops.doctor.runner import checks_for, run_checks
from app.services.urls import ImageUrls
from app.stores.s3.store import S3Store
from tests.ops.doctor.fake_aws import FakeAws
from tests.s3server import S3Server

MakeContext = Callable[..., CheckContext]


@pytest.fixture
def aws(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> FakeAws:
    """The fake AWS in front of moto's server, with STS and S3 Control at the same address."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", s3.url)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3_CONTROL", s3.url.replace("127.0.0.1", "localhost"))
    _resolve_names_below_localhost(monkeypatch)
    return FakeAws()


def _resolve_names_below_localhost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resolve `ACCOUNT.localhost`, which S3 Control uses, as `localhost` (RFC 6761, 6.3)."""
    resolve = socket.getaddrinfo

    def local(host: Any, *args: Any, **kwargs: Any) -> Any:
        return resolve("127.0.0.1" if str(host).endswith(".localhost") else host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", local)


@pytest.fixture
def set_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """A function that sets the file system type of the test directories. The default is ext4."""

    def set_type(kind: str) -> None:
        table = tmp_path / "mountinfo"
        table.write_text(
            f"21 1 0:1 / / rw - ext4 /dev/sda1 rw\n22 21 0:2 / {tmp_path} rw - {kind} source rw\n"
        )
        monkeypatch.setattr(system, "MOUNT_TABLE", str(table))

    set_type("ext4")
    return set_type


@pytest.fixture
def make_context(
    s3: S3Server, aws: FakeAws, s3_config: Config, tmp_path: Path, set_file_system: Any
) -> Iterator[MakeContext]:
    """A function that returns a context with the given settings. The bucket is always the same."""
    caches = []

    def make(**settings: Any) -> CheckContext:
        config = replace(s3_config, **{"cache_max_bytes": 10**7} | settings)
        store = S3Store.from_config(config)
        cache = DiskCache(config.cache_dir, config.cache_max_bytes)
        caches.append(cache)
        env_file = tmp_path / ".env"
        env_file.touch(0o600)
        urls = ImageUrls(store, config.image_urls, config.public_base_url)
        s3.fault = aws
        return CheckContext(config, store, cache, AwsClients.from_config(config), urls.url_of, env_file)

    yield make
    for cache in caches:
        cache.close()


@pytest.fixture
def admin(s3: S3Server, bucket: str) -> Any:
    """An S3 client for changing the bucket's settings."""
    return boto3.client("s3", endpoint_url=s3.url, region_name="us-east-1")


@pytest.fixture
def private(make_context: MakeContext, admin: Any, bucket: str) -> CheckContext:
    """The context of a healthy private bucket."""
    set_public_access_block(admin, bucket, True)
    set_ownership(admin, bucket, "BucketOwnerEnforced")
    set_encryption(admin, bucket, "AES256")
    return make_context(s3_acl="none", image_urls="server")


@pytest.fixture
def public(make_context: MakeContext, admin: Any, bucket: str, aws: FakeAws) -> CheckContext:
    """The context of a healthy public bucket. As after `setup`, its policy is public and ACLs are blocked."""
    set_public_access_block(admin, bucket, True, BlockPublicPolicy=False, RestrictPublicBuckets=False)
    set_ownership(admin, bucket, "BucketOwnerEnforced")
    set_encryption(admin, bucket, "AES256")
    set_public_policy(admin, bucket, "s3:GetObject")
    rule = {"AllowedMethods": ["GET", "HEAD"], "AllowedOrigins": ["https://www.example.org"]}
    admin.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": [rule]})
    log_to_other_bucket(admin, bucket)
    aws.public = True
    return make_context(s3_acl="none", image_urls="s3")


def set_public_access_block(admin: Any, bucket: str, on: bool, **others: bool) -> None:
    """Turn the four blocks on or off, except for `others`."""
    names = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
    blocks = dict.fromkeys(names, on) | others
    admin.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=blocks)


def set_ownership(admin: Any, bucket: str, ownership: str) -> None:
    """Set the bucket's object ownership."""
    rules = {"Rules": [{"ObjectOwnership": ownership}]}
    admin.put_bucket_ownership_controls(Bucket=bucket, OwnershipControls=rules)


def set_encryption(admin: Any, bucket: str, kind: str) -> None:
    """Set the bucket's default encryption."""
    rules = [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": kind}}]
    admin.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": rules})


def set_public_policy(admin: Any, bucket: str, *actions: str, named: str = "") -> None:
    """Set a policy that lets everyone do `actions` in this bucket, or in the bucket called `named`."""
    statement = {
        "Sid": "Everyone",
        "Effect": "Allow",
        "Principal": "*",
        "Action": list(actions),
        "Resource": f"arn:aws:s3:::{named or bucket}/*",
    }
    admin.put_bucket_policy(
        Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    )


def log_to_other_bucket(admin: Any, bucket: str) -> None:
    """Turn access logs on. moto requires that the log delivery group may write to the target bucket."""
    admin.create_bucket(Bucket=f"{bucket}-logs")
    group = 'uri="http://acs.amazonaws.com/groups/s3/LogDelivery"'
    admin.put_bucket_acl(Bucket=f"{bucket}-logs", GrantWrite=group, GrantReadACP=group)
    logging = {"LoggingEnabled": {"TargetBucket": f"{bucket}-logs", "TargetPrefix": "s3/"}}
    admin.put_bucket_logging(Bucket=bucket, BucketLoggingStatus=logging)


def set_lifecycle_rule(admin: Any, bucket: str, prefix: str, **what: Any) -> None:
    """Set a lifecycle rule for `prefix`. By default, it deletes objects after a week."""
    rule = {
        "ID": "rule",
        "Status": "Enabled",
        "Filter": {"Prefix": prefix},
        **(what or {"Expiration": {"Days": 7}}),
    }
    admin.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [rule]})


def findings(context: CheckContext) -> dict[str, Finding]:
    """Run all checks, and return their findings by name."""
    checks = checks_for(context.config.store)
    return {result.check: result.finding for result in run_checks(context, checks)}


def finding(context: CheckContext, name: str) -> Finding:
    """Run a check after the checks that it needs, and return its finding."""
    check = next(check for check in checks_for(context.config.store) if check.name == name)
    *_, result = run_checks(context, dict.fromkeys((*_needed(check), check)))
    return result.finding


def _needed(check: Check) -> Iterator[Check]:
    for need in check.needs:
        yield from _needed(need)
        yield need
