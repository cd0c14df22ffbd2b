"""Fixtures: a store on the test's S3 server, and a bucket at AWS."""

import pytest

from app.stores.s3.store import S3Store
from tests.s3server import S3Server, play_aws

REGION = "us-east-1"


@pytest.fixture
def store(s3: S3Server, bucket: str) -> S3Store:
    """Return a store in an empty bucket of a compatible server."""
    return S3Store(bucket, region=REGION, endpoint_url=s3.url)


@pytest.fixture
def aws(s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a bucket at AWS. The test's server stands in for AWS's hosts, as a proxy."""
    play_aws(s3, monkeypatch)
    return bucket
