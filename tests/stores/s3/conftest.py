"""Fixtures: a store over the test's S3 server, and the ways of looking at what it asked."""

import pytest

from app.stores.s3.store import S3Store
from tests.s3server import S3Server, play_aws

REGION = "us-east-1"


@pytest.fixture
def store(s3: S3Server, bucket: str) -> S3Store:
    """A store in an empty bucket of a compatible server."""
    return S3Store(bucket, region=REGION, endpoint_url=s3.url)


@pytest.fixture
def aws(s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a bucket at AWS, whose hosts are played by the test's server, as a proxy."""
    play_aws(s3, monkeypatch)
    return bucket
