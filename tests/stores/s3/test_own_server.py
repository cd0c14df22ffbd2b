"""The contract on a server that you name by three variables; docs/s3-compatible.md says how."""

import os
import secrets
from collections.abc import Iterator

import boto3
import pytest
from botocore.config import Config as ClientConfig

from app.stores.base import BaseStore
from app.stores.s3 import S3Store
from app.stores.s3.connection import WITHOUT_TRAILERS
from tests.contracts import StoreContract

ENDPOINT, KEY, SECRET = (
    os.environ.get(f"TEST_S3_{name}", "") for name in ("ENDPOINT_URL", "ACCESS_KEY_ID", "SECRET_ACCESS_KEY")
)

pytestmark = pytest.mark.skipif(
    not (ENDPOINT and KEY and SECRET),
    reason="set TEST_S3_ENDPOINT_URL, TEST_S3_ACCESS_KEY_ID and TEST_S3_SECRET_ACCESS_KEY",
)


class TestOwnServer(StoreContract):
    """The contract, each test in a bucket of its own, which is deleted afterwards."""

    @pytest.fixture
    def store(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[BaseStore]:
        """A store in a new bucket."""
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
