"""The S3 store: the contract against moto's server over HTTP, and how S3's responses are interpreted."""

from typing import Any

import pytest

from app.core.errors import AppError, NotFound, StoreError, StoreRefused, StoreTimeout, StoreUnreachable
from app.core.objects import PutResult
from app.stores.base import BaseStore
from app.stores.s3 import client as s3_client_module
from app.stores.s3.store import S3Store
from tests.contracts import StoreContract
from tests.s3server import S3Server, first_of, refusal
from tests.stores.s3.conftest import REGION


class TestS3Store(StoreContract):
    """The contract for a compatible server."""

    @pytest.fixture
    def store(self, s3: S3Server, bucket: str) -> BaseStore:
        """Return a store in an empty bucket."""
        return S3Store(bucket, region=REGION, endpoint_url=s3.url)


class TestS3StoreAtAws(StoreContract):
    """The contract for AWS, with SHA-256 checksums and the bucket in the host name."""

    @pytest.fixture
    def store(self, aws: str) -> BaseStore:
        """Return a store in an empty bucket."""
        return S3Store(aws, region=REGION)


def _put(store: BaseStore, key: str = "a/b.png") -> PutResult:
    return store.put(key, b"bytes", content_type="image/png", cache_control="public, no-cache")


ANSWERS = [
    ("404 Not Found", "NoSuchKey", NotFound, "404 NoSuchKey"),
    ("404 Not Found", "NoSuchBucket", StoreRefused, "S3_BUCKET"),
    ("403 Forbidden", "InvalidAccessKeyId", StoreRefused, "AWS_ACCESS_KEY_ID"),
    ("403 Forbidden", "SignatureDoesNotMatch", StoreRefused, "AWS_SECRET_ACCESS_KEY"),
    ("403 Forbidden", "RequestTimeTooSkewed", StoreRefused, "clock"),
    ("403 Forbidden", "AccountProblem", StoreRefused, "billing"),
    ("403 Forbidden", "InvalidObjectState", StoreRefused, "archive"),
    ("403 Forbidden", "ExpiredToken", StoreRefused, "Renew AWS_SESSION_TOKEN"),
    ("400 Bad Request", "ExpiredToken", StoreRefused, "Renew AWS_SESSION_TOKEN"),
    ("400 Bad Request", "InvalidToken", StoreRefused, "AWS_SESSION_TOKEN"),
    ("400 Bad Request", "NeverHeardOf", StoreRefused, "400 NeverHeardOf"),
    ("301 Moved Permanently", "PermanentRedirect", StoreRefused, "AWS_REGION"),
    ("501 Not Implemented", "NotImplemented", StoreRefused, "501"),
    ("400 Bad Request", "RequestTimeout", StoreUnreachable, "overloaded"),
    ("500 Internal Server Error", "InternalError", StoreUnreachable, "overloaded"),
    ("503 Slow Down", "SlowDown", StoreUnreachable, "overloaded"),
    ("429 Too Many Requests", "TooManyRequests", StoreUnreachable, "overloaded"),
    ("504 Gateway Timeout", "GatewayTimeout", StoreTimeout, "overloaded"),
]


@pytest.mark.parametrize(("status", "code", "expected", "advice"), ANSWERS)
@pytest.mark.parametrize("operation", ["get", "head", "exists"])
def test_error_responses_become_our_errors(
    s3: S3Server,
    store: S3Store,
    operation: str,
    status: str,
    code: str,
    expected: type[AppError],
    advice: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(s3_client_module, "MAX_ATTEMPTS", 1)
    s3.fault = first_of(refusal(status, code, "GET"), refusal(status, code, "HEAD"))
    if operation == "exists" and expected is NotFound:
        assert not store.exists("a/b.png")
        return
    with pytest.raises(AppError) as caught:
        getattr(store, operation)("a/b.png")
    assert type(caught.value) is expected
    assert advice in caught.value.detail


def test_public_messages_do_not_name_the_bucket(s3: S3Server, store: S3Store, bucket: str) -> None:
    s3.fault = refusal("403 Forbidden", "InvalidAccessKeyId", "GET")
    with pytest.raises(StoreRefused) as caught:
        store.get("a/b.png")
    assert bucket not in caught.value.message
    assert "AWS" not in caught.value.message


DATE = ("Last-Modified", "Sun, 22 Nov 2026 08:00:00 GMT")

NONSENSE = [
    pytest.param("200 OK", [DATE], id="no ETag"),
    pytest.param("200 OK", [DATE, ("ETag", '"')], id="half an ETag"),
    pytest.param("200 OK", [("ETag", '"e"')], id="no date"),
    pytest.param("304 Not Modified", [DATE, ("ETag", '"e"')], id="304 without a condition"),
]


@pytest.mark.parametrize(("status", "headers"), NONSENSE)
def test_an_invalid_response_is_a_store_error(
    s3: S3Server, store: S3Store, status: str, headers: list[tuple[str, str]]
) -> None:
    def answer(environ: Any, start_response: Any) -> list[bytes]:
        start_response(status, [("Content-Length", "0"), ("Content-Type", "image/png"), *headers])
        return [b""]

    s3.fault = answer
    for ask in (store.get, store.head):
        with pytest.raises(StoreError):
            ask("a.png")


def test_a_listing_that_is_not_xml_is_a_store_error(s3: S3Server, store: S3Store) -> None:
    def answer(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/html"), ("Content-Length", "6")])
        return [b"<html>"]

    s3.fault = answer
    with pytest.raises(StoreError):
        store.list()


URLS = [
    ({"region": "eu-west-1"}, "https://cats.s3.eu-west-1.amazonaws.com/a%20b/c.png"),
    ({"region": "us-east-1"}, "https://cats.s3.us-east-1.amazonaws.com/a%20b/c.png"),
    ({"region": "cn-north-1"}, "https://cats.s3.cn-north-1.amazonaws.com.cn/a%20b/c.png"),
    (
        {"region": "eu-west-1", "addressing_style": "path"},
        "https://s3.eu-west-1.amazonaws.com/cats/a%20b/c.png",
    ),
    ({"endpoint_url": "http://127.0.0.1:9000"}, "http://127.0.0.1:9000/cats/a%20b/c.png"),
    (
        {"endpoint_url": "https://r2.example", "addressing_style": "virtual"},
        "https://cats.r2.example/a%20b/c.png",
    ),
]


@pytest.mark.parametrize(("options", "expected"), URLS)
def test_object_urls_follow_region_style_and_endpoint(
    options: dict[str, Any], expected: str, s3: S3Server
) -> None:
    assert S3Store("cats", **options).object_url("a b/c.png") == expected


def test_a_dotted_bucket_has_a_path_style_url(s3: S3Server) -> None:
    store = S3Store("cats.example.org", region="eu-west-1")
    assert store.object_url("c.png") == "https://s3.eu-west-1.amazonaws.com/cats.example.org/c.png"


def test_the_region_comes_from_boto3_if_none_is_set(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "ap-south-1")
    assert S3Store("cats").object_url("c.png") == "https://cats.s3.ap-south-1.amazonaws.com/c.png"


@pytest.mark.parametrize("key", ["a b.png", "ü/ö+&?#%.png", "a//b.png", "=.png"])
def test_keys_that_need_encoding_can_be_used(s3: S3Server, aws: str, key: str) -> None:
    """Our own keys need no encoding, but those of other programs do. The signature covers the encoded key."""
    store = S3Store(aws, region=REGION)
    _put(store, key)
    assert store.head(key).size == 5
    assert [facts.key for facts in store.list().objects] == [key]
    store.delete(key)
    assert not store.exists(key)
