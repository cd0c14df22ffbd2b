"""Contract tests against a server that three environment variables specify; see docs/s3-compatible.md."""

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator

import boto3
import pytest
from botocore.config import Config as ClientConfig

from app.stores.base import BaseStore
from app.stores.s3.client import WITHOUT_TRAILERS
from app.stores.s3.store import S3Store
from tests.contracts import StoreContract
from tests.s3server import CREDENTIALS, S3Server

ENDPOINT, KEY, SECRET = (
    os.environ.get(f"TEST_S3_{name}", "") for name in ("ENDPOINT_URL", "ACCESS_KEY_ID", "SECRET_ACCESS_KEY")
)


@pytest.mark.skipif(
    not (ENDPOINT and KEY and SECRET),
    reason="set TEST_S3_ENDPOINT_URL, TEST_S3_ACCESS_KEY_ID and TEST_S3_SECRET_ACCESS_KEY",
)
class TestOwnServer(StoreContract):
    """The contract. Each test gets a new bucket, which is deleted afterwards."""

    @pytest.fixture
    def store(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[BaseStore]:
        """Return a store in a new bucket."""
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
        region = os.environ.get("TEST_S3_REGION", "us-east-1")
        config = ClientConfig(s3={"addressing_style": "path"}, **WITHOUT_TRAILERS)
        client = boto3.client("s3", endpoint_url=ENDPOINT, region_name=region, config=config)
        bucket = f"contract-{secrets.token_hex(8)}"
        client.create_bucket(Bucket=bucket)
        yield S3Store(bucket, region=region, endpoint_url=ENDPOINT)
        for found in client.list_objects_v2(Bucket=bucket).get("Contents", []):
            client.delete_object(Bucket=bucket, Key=found["Key"])
        client.delete_bucket(Bucket=bucket)
        client.close()


def test_three_variables_name_a_server(s3: S3Server) -> None:
    names = {f"TEST_S3_{name.removeprefix('AWS_')}": value for name, value in CREDENTIALS.items()}
    variables = {"TEST_S3_ENDPOINT_URL": s3.url, **names}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n0", "-q"]
    ran = subprocess.run(
        [*command, "-k", "TestOwnServer and test_a_part_of_a_key", __file__],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "3 passed" in ran.stdout, ran.stdout + ran.stderr
    puts = [path for method, path, _ in s3.requests if method == "PUT"]
    assert puts[0].startswith("/contract-")
    assert f"DELETE {puts[0]}" in [f"{method} {path}" for method, path, _ in s3.requests]
