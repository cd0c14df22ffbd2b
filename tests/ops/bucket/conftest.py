"""Fixtures for tests of the bucket setup."""

import pytest

from app.ops.bucket.clients import AwsClients
from tests.s3server import S3Server


@pytest.fixture
def clients(account: S3Server) -> AwsClients:
    """Clients for an empty account."""
    return AwsClients(endpoint_url=account.url)
