"""Presigned URLs: their signature, and the window in which they stay the same."""

from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import botocore.auth
import pytest

from app.core.errors import StoreRefused
from app.stores.s3.store import S3Store
from tests.s3server import S3Server

NOW = datetime(2026, 11, 22, 10, 44, 59, tzinfo=UTC).timestamp()


def _url(now: float, key: str = "a b/c.png", bucket: str = "cats", **options: Any) -> str:
    return S3Store(bucket, region="eu-west-1", clock=lambda: now, **options).signed_url(key)


def _query(url: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


@pytest.mark.parametrize("token", ["", "a-session-token/+="])
@pytest.mark.parametrize("bucket", ["cats", "cats.example.org"])
def test_the_url_equals_that_of_boto3_at_the_start_of_the_window(
    s3: S3Server, bucket: str, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if token:
        monkeypatch.setenv("AWS_SESSION_TOKEN", token)
    start = datetime(2026, 11, 22, 10, 30, tzinfo=UTC)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: start.replace(tzinfo=None))
    store = S3Store(bucket, region="eu-west-1", clock=lambda: NOW)
    expected = store._client.boto3_client().generate_presigned_url(
        "get_object", Params={"Bucket": bucket, "Key": "a b/c.png"}, ExpiresIn=3600
    )
    assert urlsplit(store.signed_url("a b/c.png"))[:3] == urlsplit(expected)[:3]
    assert _query(store.signed_url("a b/c.png")) == _query(expected)
    assert ("X-Amz-Security-Token" in expected) == bool(token)


def test_the_url_stays_the_same_for_a_window_and_is_valid_for_two(s3: S3Server) -> None:
    first, last, after = _url(NOW), _url(NOW + 900), _url(NOW + 901)
    assert first == last != after
    assert _query(first)["X-Amz-Date"] == "20261122T103000Z"
    assert _query(after)["X-Amz-Date"] == "20261122T110000Z"
    assert _query(first)["X-Amz-Expires"] == "3600"


@pytest.mark.parametrize(("expiry", "expected"), [(60, "60"), (61, "60"), (604_800, "604800")])
def test_the_expiry_is_at_most_the_setting(s3: S3Server, expiry: int, expected: str) -> None:
    assert _query(_url(NOW, presigned_expiry=expiry))["X-Amz-Expires"] == expected


def test_signing_without_credentials_raises_store_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    with pytest.raises(StoreRefused, match="AWS_ACCESS_KEY_ID"):
        _url(NOW)
