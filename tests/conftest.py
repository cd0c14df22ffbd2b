"""Fixtures: settings in a temporary directory, an application, its client, and a server for S3 and IAM."""

import gc
import itertools
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import botocore.loaders
import botocore.session
import pytest
import requests
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, settings

from app import create_app
from app.components import components_of
from app.config.settings import Config
from app.ops.bucket import apply as bucket_apply
from app.stores.s3 import urls as public_access
from tests.leaks import inspected_responses
from tests.s3server import CREDENTIALS, S3Server

# Otherwise failures in the contract suites of users' stores would not show values.
pytest.register_assert_rewrite("tests.contracts")

settings.register_profile(
    "fuzz",  # a round of `make fuzz`
    max_examples=400,
    deadline=None,  # the machine may be busy
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.register_profile(  # the same examples in every run
    "tests", settings.get_profile("fuzz"), max_examples=20, derandomize=True
)
settings.load_profile("tests")

_bucket_numbers = itertools.count()


def pytest_collection_finish() -> None:
    """Exclude the imported modules from garbage collection, which would examine them again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _cached_botocore_loader() -> Iterator[None]:
    """Share the loader of service descriptions among botocore sessions: they are most of a client's cost."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.session, "create_loader", cache(botocore.loaders.create_loader))
        yield


@pytest.fixture(autouse=True)
def _no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail tests whose error responses leak internals, or are a 500 (unless marked `crashes`)."""
    with inspected_responses() as errors:
        yield
    assert errors.leaks == []
    assert errors.crashes == [] or request.node.get_closest_marker("crashes")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """The default settings, with all directories in a temporary one."""
    return replace(
        Config.from_env({}),
        local_store_dir=tmp_path / "store",
        cache_dir=tmp_path / "cache",
        state_dir=tmp_path / "state",
        log_level="DEBUG",
    )


@pytest.fixture
def app(config: Config) -> Iterator[Flask]:
    """An application with `config` and the local store."""
    flask = create_app(config)
    yield flask
    components_of(flask).cache.close()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """A client of `app` on the same machine."""
    return app.test_client()


@pytest.fixture(scope="session")
def _s3_server() -> Iterator[S3Server]:
    server = S3Server().start()
    yield server
    server.stop()


@pytest.fixture
def s3(_s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """A server for S3 with no recorded requests; the environment has credentials for it."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(public_access, "_PROBE_TIMEOUT_SECONDS", 30)  # the machine may be slow
    _s3_server.reset()
    yield _s3_server
    _s3_server.reset()


@pytest.fixture
def account(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """An empty AWS account: a server for S3 and IAM. Retries don't wait."""
    requests.post(f"{s3.url}/moto-api/reset", timeout=10).close()
    monkeypatch.setenv("AWS_ENDPOINT_URL_IAM", s3.url)
    delays = (0.0,) * len(bucket_apply.RETRY_DELAYS_SECONDS)
    monkeypatch.setattr(bucket_apply, "RETRY_DELAYS_SECONDS", delays)
    s3.reset()
    return s3


@pytest.fixture
def bucket(s3: S3Server) -> str:
    """The name of a new, empty bucket."""
    name = f"bucket-{next(_bucket_numbers)}"
    s3.make_bucket(name).close()
    s3.reset()
    return name


@pytest.fixture
def s3_config(config: Config, s3: S3Server, bucket: str) -> Config:
    """Settings for `bucket` on the server `s3`."""
    return replace(config, store="s3", s3_bucket=bucket, aws_endpoint_url_s3=s3.url, aws_region="us-east-1")


@pytest.fixture
def s3_app(s3_config: Config) -> Iterator[Flask]:
    """An application with `s3_config`."""
    flask = create_app(s3_config)
    yield flask
    components_of(flask).cache.close()


@pytest.fixture
def s3_client(s3_app: Flask) -> FlaskClient:
    """A client of `s3_app`."""
    return s3_app.test_client()


def json_of(response: Any) -> dict[str, Any]:
    """Return the JSON object in the body of a response."""
    loaded: dict[str, Any] = response.get_json()
    return loaded
