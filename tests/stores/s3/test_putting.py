"""Putting: ACLs, conditions, checksums and encryption, with what real servers say to each."""

from typing import Any

import pytest

from app.errors import StoreRefused, StoreUnreachable
from app.objects import PutResult
from app.stores.base import BaseStore
from app.stores.s3 import S3Store
from tests.s3server import Fault, S3Server, error, first_of, refusal
from tests.stores.s3.conftest import REGION


def _put(store: BaseStore, key: str = "a/b.png", *, overwrite: bool = True) -> PutResult:
    return store.put(key, b"bytes", content_type="image/png", cache_control="no-cache", overwrite=overwrite)


def _puts(s3: S3Server) -> list[dict[str, str]]:
    return [headers for method, _, headers in s3.requests if method == "PUT"]


def _ways(s3: S3Server) -> list[tuple[bool, bool]]:
    """For each put, whether it had an ACL and whether a condition."""
    return [("x-amz-acl" in headers, "if-none-match" in headers) for headers in _puts(s3)]


def _to_acls(status: str, code: str) -> Fault:
    """A bucket that answers so to each put with an ACL."""
    return error(status, code, lambda environ: "HTTP_X_AMZ_ACL" in environ)


def _to_conditions(status: str, code: str) -> Fault:
    return error(
        status, code, lambda environ: environ["REQUEST_METHOD"] == "PUT" and "HTTP_IF_NONE_MATCH" in environ
    )


def test_an_object_gets_acl_type_and_caching(s3: S3Server, bucket: str, store: S3Store) -> None:
    _put(store)
    look = s3.make_bucket(bucket)
    head = look.head_object(Bucket=bucket, Key="a/b.png")
    grants = look.get_object_acl(Bucket=bucket, Key="a/b.png")["Grants"]
    look.close()
    assert (head["ContentType"], head["CacheControl"]) == ("image/png", "no-cache")
    assert {"URI": "http://acs.amazonaws.com/groups/global/AllUsers", "Type": "Group"} in [
        grant["Grantee"] for grant in grants if grant["Permission"] == "READ"
    ]


def test_acl_none_sends_none(s3: S3Server, bucket: str) -> None:
    _put(S3Store(bucket, region=REGION, endpoint_url=s3.url, acl="none"))
    assert _ways(s3) == [(False, False)]


NO_ACLS = [
    pytest.param("400 Bad Request", "AccessControlListNotSupported", id="ACLs disabled"),
    pytest.param("403 Forbidden", "AccessDenied", id="Block Public Access, or no s3:PutObjectAcl"),
    pytest.param("501 Not Implemented", "NotImplemented", id="a server without ACLs"),
]


@pytest.mark.parametrize(("status", "code"), NO_ACLS)
def test_acl_auto_learns_that_acls_are_not_taken(
    s3: S3Server, aws: str, status: str, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = S3Store(aws, region=REGION)
    s3.fault = _to_acls(status, code)
    assert _put(store, overwrite=False).created
    assert _put(store, "second.png", overwrite=False).created
    assert _ways(s3) == [(True, True), (False, True), (False, True)]
    assert caplog.text.count("S3_ACL=none") == 1
    assert "s3:PutObjectAcl" in caplog.text


@pytest.mark.parametrize(("status", "code"), NO_ACLS)
def test_acl_public_read_does_not_fall_back(s3: S3Server, bucket: str, status: str, code: str) -> None:
    store = S3Store(bucket, region=REGION, endpoint_url=s3.url, acl="public-read")
    s3.fault = _to_acls(status, code)
    with pytest.raises(StoreRefused, match=code):
        _put(store)
    assert not store.exists("a/b.png")


def test_a_put_that_is_denied_without_acl_too_says_nothing_of_acls(s3: S3Server, store: S3Store) -> None:
    s3.fault = refusal("403 Forbidden", "AccessDenied", "PUT")
    with pytest.raises(StoreRefused, match="Allow s3:PutObject "):
        _put(store)
    s3.fault = None
    _put(store)
    assert _ways(s3) == [(True, False), (False, False), (True, False)]


def test_a_conflict_is_tried_again(s3: S3Server, store: S3Store) -> None:
    s3.fault = refusal("409 Conflict", "ConditionalRequestConflict", "PUT", times=2)
    assert _put(store, overwrite=False).created


def test_a_conflict_without_end_is_worth_another_try_later(s3: S3Server, store: S3Store) -> None:
    s3.fault = refusal("409 Conflict", "ConditionalRequestConflict", "PUT")
    with pytest.raises(StoreUnreachable):
        _put(store, overwrite=False)


def test_a_server_without_conditional_puts_gets_plain_ones(s3: S3Server, store: S3Store) -> None:
    s3.fault = _to_conditions("501 Not Implemented", "NotImplemented")
    assert _put(store, overwrite=False).created
    assert _put(store, "second.png", overwrite=False).created
    assert not _put(store, "second.png", overwrite=False).created
    assert _ways(s3) == [(True, True), (False, True), (True, False), (True, False)]


def test_a_server_that_ignores_conditions_keeps_what_must_stay(
    s3: S3Server, store: S3Store, caplog: pytest.LogCaptureFixture
) -> None:
    def ignore(environ: dict[str, Any], start_response: Any) -> None:
        environ.pop("HTTP_IF_NONE_MATCH", None)

    store.put("me.png", b"first", content_type="image/png")
    s3.fault = ignore
    assert not _put(store, "me.png", overwrite=False).created
    assert _put(store, "other.png", overwrite=False).created
    assert not _put(store, "other.png", overwrite=False).created
    assert store.head("me.png").etag != store.head("other.png").etag
    assert caplog.text.count("no conditional puts") == 1


def test_a_server_with_conditions_is_tried_once(s3: S3Server, store: S3Store) -> None:
    for key in ("a.png", "b.png", "b.png"):
        _put(store, key, overwrite=False)
    assert _ways(s3) == [(True, True)] * 4


def test_a_server_with_neither_acls_nor_conditions(s3: S3Server, store: S3Store) -> None:
    s3.fault = first_of(
        _to_acls("501 Not Implemented", "NotImplemented"),
        _to_conditions("501 Not Implemented", "NotImplemented"),
    )
    assert _put(store, overwrite=False).created
    assert not _put(store, overwrite=False).created
    assert _ways(s3)[-1] == (False, False)


def test_an_object_that_is_there_needs_no_more_than_get_and_put(s3: S3Server, store: S3Store) -> None:
    first = _put(store, overwrite=False)
    s3.fault = error("403 Forbidden", "AccessDenied", lambda environ: "list-type" in environ["QUERY_STRING"])
    again = _put(store, overwrite=False)
    assert (again.created, again.facts.etag) == (False, first.facts.etag)


def test_an_object_that_can_be_put_but_not_read_is_a_refusal(s3: S3Server, store: S3Store) -> None:
    """Never a 404 to an upload."""
    _put(store, overwrite=False)
    s3.fault = first_of(
        refusal("403 Forbidden", "AccessDenied", "GET"), refusal("403 Forbidden", "AccessDenied", "HEAD")
    )
    with pytest.raises(StoreRefused):
        _put(store, overwrite=False)


def test_compatible_servers_get_md5_and_no_trailer(s3: S3Server, store: S3Store) -> None:
    _put(store)
    headers = _puts(s3)[0]
    assert headers["content-md5"] == "SzpiGLs+OnMD6KFxpg/Pkg=="
    assert not any(name.startswith(("x-amz-trailer", "x-amz-checksum", "expect")) for name in headers)


def test_aws_gets_sha256(s3: S3Server, aws: str) -> None:
    _put(S3Store(aws, region=REGION))
    headers = _puts(s3)[0]
    assert headers["x-amz-checksum-sha256"] == "J3CJ2RwL308uaGK6fkoHYFEZQx9dE/cm3TUrBvGyBqk="
    assert not {"content-md5", "x-amz-trailer", "expect"} & headers.keys()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {}),
        ({"sse": "AES256"}, {"": "AES256"}),
        ({"sse": "aws:kms"}, {"": "aws:kms"}),
        (
            {"sse": "aws:kms", "sse_kms_key_id": "alias/images"},
            {"": "aws:kms", "-aws-kms-key-id": "alias/images"},
        ),
    ],
)
def test_encryption_is_asked_for(
    s3: S3Server, bucket: str, options: dict[str, Any], expected: dict[str, str]
) -> None:
    _put(S3Store(bucket, region=REGION, endpoint_url=s3.url, **options))
    prefix = "x-amz-server-side-encryption"
    sent = {name.removeprefix(prefix): v for name, v in _puts(s3)[0].items() if name.startswith(prefix)}
    assert sent == expected
