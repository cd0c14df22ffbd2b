"""The S3 store: the contract over HTTP against moto's server, and what real S3 says that moto does not."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from app.errors import (
    AppError,
    NotFound,
    StoreError,
    StoreRefused,
    StoreTimeout,
    StoreUnreachable,
)
from app.stores import s3 as module
from app.stores.base import BaseStore
from app.stores.s3 import S3Store
from tests.contracts import StoreContract
from tests.s3server import S3Server, refusal

REGION = "us-east-1"


@pytest.fixture
def store(s3: S3Server, bucket: str) -> S3Store:
    """A store in an empty bucket."""
    return S3Store(bucket, region=REGION, endpoint_url=s3.url)


class TestS3Store(StoreContract):
    """The contract over S3's protocol."""

    @pytest.fixture
    def store(self, s3: S3Server, bucket: str) -> BaseStore:
        """A store in an empty bucket."""
        return S3Store(bucket, region=REGION, endpoint_url=s3.url)


def _put(store: BaseStore, key: str = "a/b.png", *, overwrite: bool = True) -> Any:
    return store.put(
        key, b"bytes", content_type="image/png", cache_control="public, no-cache", overwrite=overwrite
    )


def _put_headers(s3: S3Server) -> list[dict[str, str]]:
    return [headers for method, _, headers in s3.requests if method == "PUT"]


def test_an_object_is_public_and_knows_its_type(s3: S3Server, bucket: str, store: S3Store) -> None:
    _put(store)
    look = s3.make_bucket(bucket)
    head = look.head_object(Bucket=bucket, Key="a/b.png")
    grants = look.get_object_acl(Bucket=bucket, Key="a/b.png")["Grants"]
    assert (head["ContentType"], head["CacheControl"]) == ("image/png", "public, no-cache")
    assert {"URI": "http://acs.amazonaws.com/groups/global/AllUsers", "Type": "Group"} in [
        grant["Grantee"] for grant in grants if grant["Permission"] == "READ"
    ]
    assert store.is_public()


def test_acl_none_sends_none(s3: S3Server, bucket: str) -> None:
    store = S3Store(bucket, region=REGION, endpoint_url=s3.url, acl="none")
    _put(store)
    assert "x-amz-acl" not in _put_headers(s3)[0]
    assert not store.is_public()


def test_acl_auto_learns_that_the_bucket_has_acls_disabled(s3: S3Server, store: S3Store) -> None:
    s3.fault = refusal("400 Bad Request", "AccessControlListNotSupported", "PUT", times=1)
    assert _put(store).created
    assert _put(store, "second.png").created
    assert ["x-amz-acl" in headers for headers in _put_headers(s3)] == [True, False, False]
    assert not store.is_public()


def test_acl_public_read_does_not_fall_back(s3: S3Server, bucket: str) -> None:
    s3.fault = refusal("400 Bad Request", "AccessControlListNotSupported", "PUT")
    with pytest.raises(StoreRefused):
        _put(S3Store(bucket, region=REGION, endpoint_url=s3.url, acl="public-read"))


def test_a_denied_acl_names_the_setting(
    s3: S3Server, store: S3Store, caplog: pytest.LogCaptureFixture
) -> None:
    s3.fault = refusal("403 Forbidden", "AccessDenied", "PUT")
    with pytest.raises(StoreRefused):
        _put(store)
    assert "S3_ACL=none" in caplog.text


def test_a_conflict_is_tried_again(s3: S3Server, store: S3Store) -> None:
    s3.fault = refusal("409 Conflict", "ConditionalRequestConflict", "PUT", times=2)
    assert _put(store, overwrite=False).created


def test_a_server_without_conditional_puts_gets_plain_ones(s3: S3Server, store: S3Store) -> None:
    s3.fault = refusal("501 Not Implemented", "NotImplemented", "PUT", times=1)
    assert _put(store, overwrite=False).created
    _put(store, "second.png", overwrite=False)
    assert ["if-none-match" in headers for headers in _put_headers(s3)] == [True, False, False]


def test_compatible_servers_get_md5_and_no_trailer(s3: S3Server, store: S3Store) -> None:
    _put(store)
    headers = _put_headers(s3)[0]
    assert headers["content-md5"] == "SzpiGLs+OnMD6KFxpg/Pkg=="
    assert not any(name.startswith(("x-amz-trailer", "x-amz-checksum")) for name in headers)


ANSWERS = [
    ("404 Not Found", "NoSuchKey", NotFound),
    ("404 Not Found", "NoSuchBucket", StoreRefused),
    ("403 Forbidden", "AccessDenied", StoreRefused),
    ("403 Forbidden", "InvalidAccessKeyId", StoreRefused),
    ("400 Bad Request", "ExpiredToken", StoreRefused),
    ("301 Moved Permanently", "PermanentRedirect", StoreRefused),
    ("500 Internal Server Error", "InternalError", StoreUnreachable),
    ("503 Slow Down", "SlowDown", StoreUnreachable),
    ("429 Too Many Requests", "TooManyRequests", StoreUnreachable),
]


@pytest.mark.parametrize(("status", "code", "expected"), ANSWERS)
def test_answers_become_our_errors(
    s3: S3Server,
    store: S3Store,
    status: str,
    code: str,
    expected: type[AppError],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_TOTAL_TRIES", 1)
    s3.fault = refusal(status, code, "GET")
    with pytest.raises(AppError) as caught:
        store.get("a/b.png")
    assert type(caught.value) is expected


def test_an_error_tells_outsiders_nothing_of_the_bucket(s3: S3Server, store: S3Store, bucket: str) -> None:
    s3.fault = refusal("403 Forbidden", "AccessDenied", "GET")
    with pytest.raises(StoreRefused) as caught:
        store.get("a/b.png")
    assert bucket not in caught.value.message
    assert "AccessDenied" in str(caught.value)


def test_refused_connections_are_an_outage(monkeypatch: pytest.MonkeyPatch, s3: S3Server) -> None:
    monkeypatch.setattr(module, "_TOTAL_TRIES", 1)
    with pytest.raises(StoreUnreachable):
        S3Store("some-bucket", region=REGION, endpoint_url="http://127.0.0.1:9").get("a.png")


def test_silence_is_a_timeout(monkeypatch: pytest.MonkeyPatch, s3: S3Server, store: S3Store) -> None:
    monkeypatch.setattr(module, "_TOTAL_TRIES", 1)
    monkeypatch.setattr(module, "_READ_SECONDS", 0.2)
    s3.delay = 1.0
    with pytest.raises(StoreTimeout):
        store.get("a.png")


def test_no_credentials_are_a_refusal(
    monkeypatch: pytest.MonkeyPatch, s3: S3Server, store: S3Store, tmp_path: Any
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(StoreRefused):
        store.head("a.png")


def test_a_body_that_breaks_off_is_an_error(s3: S3Server, store: S3Store) -> None:
    def cut(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response(
            "200 OK",
            [
                ("Content-Length", "100"),
                ("ETag", '"e"'),
                ("Last-Modified", "Sun, 22 Nov 2026 08:00:00 GMT"),
                ("Content-Type", "image/png"),
            ],
        )
        return [b"only this"]

    s3.fault = cut
    stored = store.get("a.png")
    assert stored is not None
    with stored, pytest.raises(StoreError):
        stored.body.read()


URLS = [
    ({"region": "eu-west-1"}, "https://cats.s3.eu-west-1.amazonaws.com/a%20b/c.png"),
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
def test_urls(options: dict[str, Any], expected: str, s3: S3Server) -> None:
    assert S3Store("cats", **options).object_url("a b/c.png") == expected


def test_a_dotted_bucket_gets_a_path_style_url(s3: S3Server) -> None:
    store = S3Store("cats.example.org", region="eu-west-1")
    assert store.object_url("c.png") == "https://s3.eu-west-1.amazonaws.com/cats.example.org/c.png"


def test_the_region_comes_from_boto3_where_none_is_set(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "ap-south-1")
    assert S3Store("cats").object_url("c.png") == "https://cats.s3.ap-south-1.amazonaws.com/c.png"


def test_one_client_for_all_threads_of_a_process(store: S3Store) -> None:
    assert store._client() is store._client()


def test_a_server_that_refuses_acls_with_501_gets_none(s3: S3Server, store: S3Store) -> None:
    s3.fault = refusal("501 Not Implemented", "NotImplemented", "PUT", times=1)
    assert _put(store).created
    assert ["x-amz-acl" in headers for headers in _put_headers(s3)] == [True, False]


def test_a_server_without_conditional_puts_keeps_what_must_stay(s3: S3Server, store: S3Store) -> None:
    s3.fault = refusal("501 Not Implemented", "NotImplemented", "PUT", times=1)
    assert _put(store, "other.png", overwrite=False).created
    assert _put(store, "me.png", overwrite=False).created
    assert not _put(store, "me.png", overwrite=False).created
