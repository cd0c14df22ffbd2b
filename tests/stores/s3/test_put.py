"""PutObject: ACLs, conditions, checksums, encryption and metadata, with the responses of real servers."""

from collections.abc import Iterable
from dataclasses import replace
from io import BytesIO
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app.config.settings import Config
from app.core.errors import StoreError, StoreRefused, StoreUnreachable
from app.core.objects import PutResult
from app.stores.base import BaseStore
from app.stores.s3 import client as s3_client_module
from app.stores.s3.store import S3Store
from tests.pictures import picture
from tests.rawstore import RawRequest, RawStore, answer_of
from tests.s3server import Fault, S3Server, error, first_of, lost, refusal
from tests.stores.s3.conftest import REGION


def _put(store: BaseStore, key: str = "a/b.png", *, overwrite: bool = True) -> PutResult:
    return store.put(key, b"bytes", content_type="image/png", cache_control="no-cache", overwrite=overwrite)


def _puts(s3: S3Server) -> list[dict[str, str]]:
    return [headers for method, _, headers in s3.requests if method == "PUT"]


def _ways(s3: S3Server) -> list[tuple[bool, bool]]:
    """Return, for each put, whether it had an ACL and whether it had a condition."""
    return [("x-amz-acl" in headers, "if-none-match" in headers) for headers in _puts(s3)]


def _to_acls(status: str, code: str) -> Fault:
    """Return the fault of a bucket that rejects puts with an ACL."""
    return error(status, code, lambda environ: "HTTP_X_AMZ_ACL" in environ)


def _to_conditions(status: str, code: str) -> Fault:
    return error(
        status, code, lambda environ: environ["REQUEST_METHOD"] == "PUT" and "HTTP_IF_NONE_MATCH" in environ
    )


def test_a_put_sends_acl_content_type_and_cache_control(s3: S3Server, bucket: str, store: S3Store) -> None:
    _put(store)
    look = s3.make_bucket(bucket)
    head = look.head_object(Bucket=bucket, Key="a/b.png")
    grants = look.get_object_acl(Bucket=bucket, Key="a/b.png")["Grants"]
    look.close()
    assert (head["ContentType"], head["CacheControl"]) == ("image/png", "no-cache")
    assert {"URI": "http://acs.amazonaws.com/groups/global/AllUsers", "Type": "Group"} in [
        grant["Grantee"] for grant in grants if grant["Permission"] == "READ"
    ]


def test_acl_none_sends_no_acl(s3: S3Server, bucket: str) -> None:
    _put(S3Store(bucket, region=REGION, endpoint_url=s3.url, acl="none"))
    assert _ways(s3) == [(False, False)]


NO_ACLS = [
    pytest.param("400 Bad Request", "AccessControlListNotSupported", id="ACLs disabled"),
    pytest.param("403 Forbidden", "AccessDenied", id="Block Public Access, or no s3:PutObjectAcl"),
    pytest.param("501 Not Implemented", "NotImplemented", id="a server without ACLs"),
]


@pytest.mark.parametrize(("status", "code"), NO_ACLS)
def test_acl_auto_remembers_that_acls_are_rejected(
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


def test_a_put_that_is_denied_even_without_acl_keeps_the_acl(s3: S3Server, store: S3Store) -> None:
    s3.fault = refusal("403 Forbidden", "AccessDenied", "PUT")
    with pytest.raises(StoreRefused, match="Allow s3:PutObject "):
        _put(store)
    s3.fault = None
    _put(store)
    assert _ways(s3) == [(True, False), (False, False), (True, False)]


def test_a_conflicting_put_is_retried(s3: S3Server, store: S3Store) -> None:
    s3.fault = refusal("409 Conflict", "ConditionalRequestConflict", "PUT", times=2)
    assert _put(store, overwrite=False).created


def test_a_conflict_that_does_not_end_is_an_outage(s3: S3Server, store: S3Store) -> None:
    s3.fault = refusal("409 Conflict", "ConditionalRequestConflict", "PUT")
    with pytest.raises(StoreUnreachable):
        _put(store, overwrite=False)


def test_a_server_without_conditional_puts_gets_plain_ones(s3: S3Server, store: S3Store) -> None:
    s3.fault = _to_conditions("501 Not Implemented", "NotImplemented")
    assert _put(store, overwrite=False).created
    assert _put(store, "second.png", overwrite=False).created
    assert not _put(store, "second.png", overwrite=False).created
    assert _ways(s3) == [(True, True), (False, True), (True, False), (True, False)]


def test_a_server_that_ignores_conditions_does_not_overwrite(
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
    assert caplog.text.count("not support conditional puts") == 1


def test_conditional_puts_are_probed_once(s3: S3Server, store: S3Store) -> None:
    for key in ("a.png", "b.png", "b.png"):
        _put(store, key, overwrite=False)
    assert _ways(s3) == [(True, True)] * 4


def test_a_server_without_acls_and_conditions_gets_plain_puts(s3: S3Server, store: S3Store) -> None:
    s3.fault = first_of(
        _to_acls("501 Not Implemented", "NotImplemented"),
        _to_conditions("501 Not Implemented", "NotImplemented"),
    )
    assert _put(store, overwrite=False).created
    assert not _put(store, overwrite=False).created
    assert _ways(s3)[-1] == (False, False)


def test_an_existing_object_needs_only_get_and_put_permissions(s3: S3Server, store: S3Store) -> None:
    first = _put(store, overwrite=False)
    s3.fault = error("403 Forbidden", "AccessDenied", lambda environ: "list-type" in environ["QUERY_STRING"])
    again = _put(store, overwrite=False)
    assert (again.created, again.facts.etag) == (False, first.facts.etag)


def test_an_existing_object_that_can_not_be_read_is_store_refused(s3: S3Server, store: S3Store) -> None:
    """An upload must not get a 404."""
    _put(store, overwrite=False)
    s3.fault = first_of(
        refusal("403 Forbidden", "AccessDenied", "GET"), refusal("403 Forbidden", "AccessDenied", "HEAD")
    )
    with pytest.raises(StoreRefused):
        _put(store, overwrite=False)


def test_compatible_servers_get_an_md5_checksum_and_no_trailer(s3: S3Server, store: S3Store) -> None:
    _put(store)
    headers = _puts(s3)[0]
    assert headers["content-md5"] == "SzpiGLs+OnMD6KFxpg/Pkg=="
    assert not any(name.startswith(("x-amz-trailer", "x-amz-checksum", "expect")) for name in headers)


def test_aws_gets_a_sha256_checksum(s3: S3Server, aws: str) -> None:
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
def test_the_encryption_settings_are_sent(
    s3: S3Server, bucket: str, options: dict[str, Any], expected: dict[str, str]
) -> None:
    _put(S3Store(bucket, region=REGION, endpoint_url=s3.url, **options))
    prefix = "x-amz-server-side-encryption"
    sent = {name.removeprefix(prefix): v for name, v in _puts(s3)[0].items() if name.startswith(prefix)}
    assert sent == expected


def _by_name(client: FlaskClient, data: bytes) -> TestResponse:
    form = {"image": (BytesIO(data), "a.png"), "name": "me.png", "overwrite": "false"}
    return client.post("/api/images", data=form)


def test_a_lost_response_does_not_make_a_new_name_taken(s3: S3Server, s3_client: FlaskClient) -> None:
    """S3 stores the object, but its response is lost.

    The retry then finds the name taken by the first attempt.
    """
    s3.fault = lost(s3)
    assert _by_name(s3_client, picture()).status_code == 201
    assert _by_name(s3_client, picture()).status_code == 409
    s3_client.get("/api/images/me.png").close()


LOSSES = {
    "once": {},
    "each time": {"times": 2},
    "to a gateway": {"status": "502 Bad Gateway"},
    "in overload": {"status": "503 Slow Down"},
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_put_with_a_lost_response_created_the_object(
    s3: S3Server, store: S3Store, aws: str, name: str
) -> None:
    for one in (store, S3Store(aws, region=REGION)):
        _put(one, "learn.png", overwrite=False)
        s3.fault = lost(s3, **LOSSES[name])  # type: ignore[arg-type]
        result = _put(one, "lost.png", overwrite=False)
        assert result.created
        assert result.facts == one.head("lost.png")
        assert not _put(one, "lost.png", overwrite=False).created


def test_an_object_stored_by_another_client_is_not_created_by_the_retry(s3: S3Server, store: S3Store) -> None:
    _put(store, "learn.png", overwrite=False)

    def overtake(environ: dict[str, Any], start_response: Any) -> list[bytes] | None:
        if environ["REQUEST_METHOD"] != "PUT":
            return None
        s3.fault = None
        store.put("a.png", b"other", content_type="image/png")
        start_response("500 Internal Server Error", [("Content-Length", "0")])
        return [b""]

    s3.fault = overtake
    result = _put(store, "a.png", overwrite=False)
    assert (result.created, result.facts) == (False, store.head("a.png"))


@pytest.mark.parametrize("first", ["500 Internal Server Error", ""], ids=["500", "no answer"])
@pytest.mark.parametrize(("body", "created"), [(b"bytes", True), (b"other", False), (b"longer", False)])
def test_after_a_lost_response_the_bytes_are_compared_if_etags_are_not_checksums(
    s3: S3Server, bucket: str, body: bytes, created: bool, first: str
) -> None:
    """With KMS encryption, the ETag is not an MD5, so the bytes are compared."""
    statuses = iter(["404 Not Found", first, "412 Precondition Failed"])

    def answer(request: RawRequest) -> Iterable[bytes]:
        if request.method == "GET":
            date, length = "Last-Modified: Sun, 22 Nov 2026 08:00:00 GMT", f"Content-Length: {len(body)}"
            return [answer_of("200 OK", 'ETag: "no-md5"', date, length, "Connection: close", body=body)]
        status = next(statuses)
        if not status:
            return []
        code = "PreconditionFailed" if status.startswith("412") else "InternalError"
        xml = f"<Error><Code>{code}</Code></Error>".encode() if request.method == "PUT" else b""
        return [answer_of(status, f"Content-Length: {len(xml)}", "Connection: close", body=xml)]

    raw = RawStore(answer)
    result = _put(S3Store(bucket, region=REGION, endpoint_url=raw.url), overwrite=False)
    raw.stop()
    assert (result.created, result.facts.etag) == (created, '"no-md5"')


@pytest.mark.parametrize("status", ["503 Slow Down", "500 Internal Server Error"])
def test_a_failed_probe_of_conditional_puts_does_not_fail_the_upload(
    s3: S3Server,
    store: S3Store,
    status: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """At that point the object is stored. The next put repeats the probe."""
    monkeypatch.setattr(s3_client_module, "MAX_ATTEMPTS", 1)
    puts: list[str] = []

    def second_fails(environ: dict[str, Any], start_response: Any) -> list[bytes] | None:
        if environ["REQUEST_METHOD"] == "PUT":
            puts.append(environ["PATH_INFO"])
        if environ["REQUEST_METHOD"] != "PUT" or len(puts) != 2:
            return None
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        start_response(status, [("Content-Length", "0")])
        return [b""]

    s3.fault = second_fails
    for key in ("a.png", "b.png", "c.png"):
        assert _put(store, key, overwrite=False).created
    assert [path.rpartition("/")[2] for path in puts] == ["a.png", "a.png", "b.png", "b.png", "c.png"]
    assert "not support conditional puts" not in caplog.text


def _without_etag(s3: S3Server, then: Any = None) -> Fault:
    """Return a fault that omits the ETag from the response to a put, and calls `then` before the response."""

    def answer(environ: dict[str, Any], start_response: Any) -> list[bytes] | None:
        if environ["REQUEST_METHOD"] != "PUT":
            return None

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> None:
            start_response(status, [pair for pair in headers if pair[0].lower() != "etag"])

        body = s3.serve(environ, start)
        if then:
            s3.fault = None
            then()
        return body

    return answer


@pytest.mark.parametrize("overwrite", [True, False])
def test_an_etag_missing_from_the_response_is_replaced_with_the_md5(
    s3: S3Server, store: S3Store, overwrite: bool
) -> None:
    s3.fault = _without_etag(s3)
    result = _put(store, overwrite=overwrite)
    assert result.created
    assert result.facts.etag == store.head("a/b.png").etag


def test_a_superseded_put_returns_the_facts_of_its_own_bytes(s3: S3Server, store: S3Store) -> None:
    """Swift responds without an ETag."""
    s3.fault = _without_etag(s3, lambda: store.put("a/b.png", b"later and longer", content_type="image/png"))
    facts = _put(store).facts
    assert (facts.size, facts.etag) == (5, '"4b3a6218bb3e3a7303e8a171a60fcf92"')
    assert store.head("a/b.png").size == 16


def test_a_response_without_an_etag_is_an_error_if_nothing_was_stored(s3: S3Server, store: S3Store) -> None:
    s3.fault = _without_etag(s3, lambda: store.delete("a/b.png"))
    with pytest.raises(StoreError, match="without an ETag"):
        _put(store)


def test_deleting_a_missing_object_may_return_404(s3: S3Server, store: S3Store) -> None:
    s3.fault = refusal("404 Not Found", "NoSuchKey", "DELETE")
    store.delete("a/b.png")
    s3.fault = refusal("404 Not Found", "NoSuchBucket", "DELETE")
    with pytest.raises(StoreRefused):
        store.delete("a/b.png")


TEXT = "%E7%8C%AB" * 100  # 猫, in nine bytes each


def _bound(status: str, code: str, most: int) -> Fault:
    """Return the fault of a server that rejects metadata values of more than `most` bytes."""
    return error(
        status,
        code,
        lambda environ: any(len(v) > most for n, v in environ.items() if n.startswith("HTTP_X_AMZ_META_")),
    )


BOUNDS = [
    pytest.param("500 Internal Server Error", "InternalError", id="Swift"),
    pytest.param("400 Bad Request", "MetadataTooLarge", id="S3"),
    pytest.param("400 Bad Request", "InvalidArgument", id="others"),
    pytest.param("431 Request Header Fields Too Large", "431", id="a proxy"),
    pytest.param("501 Not Implemented", "NotImplemented", id="none at all"),
]


@pytest.mark.parametrize(("status", "code"), BOUNDS)
@pytest.mark.parametrize(
    ("most", "kept"), [(256, {"prompt": "%E7%8C%AB" * 27 + "%E2%80%A6", "size": "64x64"}), (0, {})]
)
def test_metadata_over_the_limit_of_a_server_does_not_fail_the_upload(
    s3: S3Server,
    store: S3Store,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    status: str,
    code: str,
    most: int,
    kept: dict[str, str],
) -> None:
    monkeypatch.setattr(s3_client_module, "MAX_ATTEMPTS", 1)
    s3.fault = _bound(status, code, most)
    for overwrite in (False, True):
        result = store.put(
            "a.png",
            b"bytes",
            content_type="image/png",
            metadata={"prompt": TEXT, "size": "64x64"},
            overwrite=overwrite,
        )
        assert result.created
        assert result.facts.metadata == store.head("a.png").metadata == kept
    assert "KEEP_PROMPTS=false" in caplog.text
    assert code in caplog.text


def test_a_small_metadata_limit_is_remembered(
    s3: S3Server, store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_client_module, "MAX_ATTEMPTS", 1)
    s3.fault = _bound("500 Internal Server Error", "InternalError", 256)
    for key in ("a.png", "b.png", "c.png"):
        store.put(key, b"bytes", content_type="image/png", metadata={"prompt": TEXT})
    assert len(_puts(s3)) == 4
    s3.fault = None
    monkeypatch.setattr(store._uploader, "_short_values_until", 0.0)
    assert store.put("d.png", b"x", content_type="image/png", metadata={"prompt": TEXT}).facts.metadata == {
        "prompt": TEXT
    }


TROUBLES = [
    pytest.param("500 Internal Server Error", "InternalError", StoreUnreachable, 3, id="not working"),
    pytest.param("503 Slow Down", "SlowDown", StoreUnreachable, 1, id="overloaded"),
    pytest.param("400 Bad Request", "ExpiredToken", StoreRefused, 1, id="credentials"),
    pytest.param("400 Bad Request", "NeverHeardOf", StoreRefused, 3, id="something else"),
]


@pytest.mark.parametrize(("status", "code", "expected", "puts"), TROUBLES)
def test_errors_not_caused_by_metadata_are_raised_unchanged(
    s3: S3Server,
    bucket: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    status: str,
    code: str,
    expected: type[StoreError],
    puts: int,
) -> None:
    monkeypatch.setattr(s3_client_module, "MAX_ATTEMPTS", 1)
    store = S3Store(bucket, region=REGION, endpoint_url=s3.url, acl="none")
    s3.fault = refusal(status, code, "PUT")
    with pytest.raises(expected, match=code):
        store.put("a.png", b"bytes", content_type="image/png", metadata={"prompt": TEXT})
    assert len(_puts(s3)) == puts
    assert "KEEP_PROMPTS" not in caplog.text


def test_a_long_prompt_does_not_fail_storing_a_generated_image(
    s3: S3Server, s3_client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_client_module, "MAX_ATTEMPTS", 1)
    s3.fault = _bound("500 Internal Server Error", "InternalError", 256)
    drawn = s3_client.post("/api/generate-image", json={"prompt": "猫" * 400, "size": "64x64"})
    assert drawn.status_code == 200
    listed = s3_client.get("/api/images?details=true").get_json()["images"]
    assert [image["asked"]["prompt"] for image in listed] == ["猫" * 27 + "…"]


@pytest.mark.parametrize("urls", ["server", "presigned"])
def test_private_urls_send_no_acl_unless_the_setting_names_it(
    s3: S3Server, s3_config: Config, urls: str
) -> None:
    """A presigned URL must not be readable without its query."""
    for acl, sent in (("auto", False), ("none", False), ("public-read", True)):
        s3.requests.clear()
        _put(S3Store.from_config(replace(s3_config, image_urls=urls, s3_acl=acl)))
        assert _ways(s3) == [(sent, False)], acl


@pytest.mark.parametrize("urls", ["auto", "s3"])
def test_public_urls_send_the_acl(s3: S3Server, s3_config: Config, urls: str) -> None:
    _put(S3Store.from_config(replace(s3_config, image_urls=urls)))
    assert _ways(s3) == [(True, False)]
