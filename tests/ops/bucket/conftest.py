"""Fixtures for tests of the bucket's setup."""

import pytest

from app.ops.bucket.clients import AwsClients
from tests.s3server import S3Server


@pytest.fixture
def clients(account: S3Server) -> AwsClients:
    """Clients of an empty account."""
    return AwsClients(endpoint_url=account.url)
