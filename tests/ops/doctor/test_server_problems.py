"""Mistakes in the settings, the server and the cache are found without requests to a bucket."""

import errno
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from app.cache.disk_cache import DiskCache
from app.config.api_keys import parse_keys
from app.config.settings import Config
from app.core.errors import GeneratorRefused, GeneratorUnreachable
from app.generators.base import ModelFacts
from app.ops.bucket.clients import AwsClients
from app.ops.doctor.connection import dotted_bucket, url_format
from app.ops.doctor.context import BucketHead, CheckContext
from app.ops.doctor.findings import Finding, Status
from app.ops.doctor.probe import checksums
from app.stores.local import LocalStore
from app.stores.s3.store import S3Store
from tests.ops.doctor.conftest import finding
from tests.ops.doctor.fake_aws import FakeAws
from tests.s3server import S3Server, play_aws


@pytest.fixture
def context(config: Config, set_file_system: Any) -> Iterator[CheckContext]:
    """A context with the local store."""
    config = replace(config, cache_max_bytes=10**7)
    cache = DiskCache(config.cache_dir, config.cache_max_bytes)
    yield CheckContext(config, LocalStore.from_config(config), cache, AwsClients(), lambda key: key)
    cache.close()


def with_settings(context: CheckContext, **settings: Any) -> CheckContext:
    """Return the context with changed settings."""
    return replace(context, config=replace(context.config, **settings))


SETTINGS: list[tuple[str, dict[str, Any], Status, str]] = [
    ("api-keys", {"host": "0.0.0.0"}, Status.PROBLEM, "HOST=0.0.0.0 is reachable from other machines"),
    ("api-keys", {"host": "images.example"}, Status.PROBLEM, "API_KEYS is not set"),
    ("api-keys", {"trusted_proxies": 1}, Status.PROBLEM, "TRUSTED_PROXIES=1 is set, but without API_KEYS"),
    (
        "api-keys",
        {"trusted_proxies": 1, "api_keys": parse_keys("k" * 32)},
        Status.OK,
        "requires an API key",
    ),
    ("api-keys", {"host": "::1"}, Status.OK, "this machine"),
    ("api-keys", {"host": "localhost"}, Status.OK, "this machine"),
    ("api-keys", {"host": "images.localhost"}, Status.OK, "this machine"),
    ("api-keys", {"host": "::", "api_keys": parse_keys("k" * 32)}, Status.OK, "requires an API key"),
    ("api-keys", {"api_keys": parse_keys(f"{'k' * 32},short")}, Status.WARNING, "shorter than 16"),
    ("upload-limits", {"max_image_pixels": 10**15}, Status.WARNING, "MAX_IMAGE_PIXELS takes 4,000,000,000"),
    (
        "https-urls",
        {"public_base_url": "http://cdn.example"},
        Status.WARNING,
        "Connections to PUBLIC_BASE_URL",
    ),
    (
        "https-urls",
        {"aws_endpoint_url_s3": "http://s3.example"},
        Status.WARNING,
        "Connections to AWS_ENDPOINT_URL_S3",
    ),
    ("https-urls", {"aws_endpoint_url_s3": "http://127.0.0.1:9000"}, Status.OK, "All URLs"),
    ("https-urls", {"aws_endpoint_url_s3": "http://s3.localhost:9000"}, Status.OK, "All URLs"),
    ("https-urls", {"public_base_url": "http://[::1]:8080"}, Status.OK, "All URLs"),
    ("generator", {"generator": "nowhere.models:Model"}, Status.PROBLEM, "can't be loaded"),
    ("generator", {"generator": "app.config.settings:Config"}, Status.PROBLEM, "not a subclass"),
    ("generator", {"generator": "app.generators.builtin:BuiltinGenerator"}, Status.OK, "can be loaded"),
    ("cache-space", {"cache_max_bytes": 2**60}, Status.WARNING, "less than CACHE_MAX_BYTES"),
]


@pytest.mark.parametrize(("name", "settings", "status", "text"), SETTINGS)
def test_settings_are_checked(
    context: CheckContext, name: str, settings: dict[str, Any], status: Status, text: str
) -> None:
    _assert_finding(finding(with_settings(context, **settings), name), status, text)


GONE = GeneratorRefused("The image model is not available.", detail="404 no such model")


@pytest.mark.parametrize(
    ("response", "status", "text"),
    [
        (ModelFacts("m", "ACTIVE"), Status.OK, "offers the model m"),
        (
            ModelFacts("m", "LEGACY", datetime(2027, 3, 1, tzinfo=UTC)),
            Status.WARNING,
            "switched off on 2027-03-01",
        ),
        (ModelFacts("m", "LEGACY"), Status.WARNING, "m is LEGACY."),
        (GONE, Status.PROBLEM, "404 no such model"),
        (GeneratorUnreachable(), Status.PROBLEM, "is unreachable"),
    ],
)
def test_the_model_must_be_offered_and_active(
    context: CheckContext, response: ModelFacts | Exception, status: Status, text: str
) -> None:
    def describe() -> ModelFacts:
        if isinstance(response, Exception):
            raise response
        return response

    _assert_finding(finding(replace(context, describe_model=describe), "generator-model"), status, text)


def test_the_builtin_generator_has_no_provider(context: CheckContext) -> None:
    assert finding(context, "generator-model").text == "GENERATOR=builtin does not depend on a provider."


def _assert_finding(found: Finding, status: Status, text: str) -> None:
    assert found.status is status
    assert text in found.text
    assert bool(found.fix) is (status in (Status.WARNING, Status.PROBLEM))


@pytest.mark.parametrize(
    ("mode", "status"), [(0o600, Status.OK), (0o640, Status.WARNING), (0o604, Status.WARNING)]
)
def test_the_settings_file_should_be_private(
    context: CheckContext, tmp_path: Path, mode: int, status: Status
) -> None:
    (tmp_path / ".env").touch()
    (tmp_path / ".env").chmod(mode)
    _assert_finding(finding(replace(context, env_file=tmp_path / ".env"), "env-file-mode"), status, ".env")


DISKS = [
    ("ext4", Status.OK, "a local disk (ext4)"),
    ("nfs4", Status.PROBLEM, "a network file system (nfs4)"),
    ("fuse.sshfs", Status.PROBLEM, "a network file system"),
    ("tmpfs", Status.WARNING, "memory (tmpfs)"),
    ("overlay", Status.WARNING, "the container's own layer"),
]


@pytest.mark.parametrize(("kind", "status", "text"), DISKS)
def test_the_cache_should_be_on_a_local_disk(
    context: CheckContext, set_file_system: Any, kind: str, status: Status, text: str
) -> None:
    set_file_system(kind)
    _assert_finding(finding(context, "cache-local-disk"), status, text)


def test_a_file_system_mounted_with_noatime_gets_a_warning(
    context: CheckContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted = os.statvfs(tmp_path)
    noatime = os.statvfs_result([*mounted[:8], mounted.f_flag | os.ST_NOATIME, *mounted[9:]])
    monkeypatch.setattr(os, "statvfs", lambda path: noatime)
    found = finding(context, "cache-access-times")
    _assert_finding(found, Status.WARNING, "noatime")
    assert found.fix.endswith(f"mount -o remount,relatime {tmp_path}")


def test_the_disk_is_not_checked_without_a_list_of_mounts(
    context: CheckContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.core.system.MOUNT_TABLE", "/nowhere")
    assert finding(context, "cache-local-disk").status is Status.SKIPPED


def test_a_cache_that_can_not_be_written_is_a_problem(
    context: CheckContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**kwargs: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    _assert_finding(finding(context, "cache-writable"), Status.PROBLEM, "Read-only file system")
    assert finding(context, "cache-space").text == "not checked: cache-writable must pass first"


def _at_aws(
    context: CheckContext, region: str = "eu-west-1", bucket: str = "cats", **settings: Any
) -> CheckContext:
    config = replace(context.config, store="s3", s3_bucket=bucket, aws_region="eu-west-1", **settings)
    clients = AwsClients.from_config(config)
    found = replace(context, config=config, store=S3Store.from_config(config), clients=clients)
    found.head = BucketHead(200, region, datetime.now(UTC))
    return found


@pytest.mark.parametrize(("style", "bucket"), [("auto", "cats"), ("path", "cats"), ("auto", "my.cats")])
def test_s3_urls_have_the_region(context: CheckContext, style: str, bucket: str) -> None:
    found = url_format.run(_at_aws(context, bucket=bucket, s3_addressing_style=style))
    _assert_finding(found, Status.OK, "s3.eu-west-1.amazonaws.com")


def test_s3_urls_of_a_different_region_are_a_problem(context: CheckContext) -> None:
    found = url_format.run(_at_aws(context, region="us-west-2"))
    _assert_finding(found, Status.PROBLEM, "not URLs of the bucket cats in us-west-2")
    assert found.fix.endswith("AWS_REGION=us-west-2")


def test_a_dotted_bucket_needs_path_style(context: CheckContext) -> None:
    virtual = _at_aws(context, bucket="my.cats", s3_addressing_style="virtual")
    _assert_finding(dotted_bucket.run(virtual), Status.PROBLEM, "TLS fails")
    _assert_finding(dotted_bucket.run(_at_aws(context, bucket="my.cats")), Status.OK, "TLS")


def test_aws_gets_a_sha_256_checksum(
    context: CheckContext, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.make_bucket("checksum-bucket").close()
    play_aws(s3, monkeypatch)
    s3.fault = FakeAws()
    at_aws = _at_aws(context, bucket="checksum-bucket")
    assert at_aws.is_aws
    _assert_finding(checksums.run(at_aws), Status.OK, "refused")
    assert any("x-amz-checksum-sha256" in headers for _, _, headers in s3.requests)


def test_a_file_system_without_hard_links_is_found_by_probe_create(
    local_doctor: Callable[[], dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert local_doctor()["probe-create"]["status"] == "ok"

    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "link", refuse)
    found = local_doctor()
    assert (found["probe-put"]["status"], found["probe-create"]["status"]) == ("ok", "problem")


@pytest.fixture
def local_doctor(app: Flask) -> Callable[[], dict[str, Any]]:
    """A function that runs the doctor with a local store and returns its findings by name."""

    def run() -> dict[str, Any]:
        result = app.test_cli_runner().invoke(args=["bucket", "doctor", "--json"])
        return {finding["check"]: finding for finding in json.loads(result.output)}

    return run
