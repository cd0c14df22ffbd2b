"""Bodies of objects that break off, stall, or change while they are read."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from app.core.errors import StoreError, StoreTimeout
from app.stores.s3 import client as s3_client_module
from app.stores.s3.store import S3Store
from tests.s3server import Fault, S3Server

DATA = bytes(range(256)) * 2000
HEADERS = [("Last-Modified", "Sun, 22 Nov 2026 08:00:00 GMT"), ("Content-Type", "image/png")]


def _cut(at: int, *, then: list[tuple[str, str]] | None = None, rest: bytes = b"") -> Fault:
    """Return a fault.

    The first body ends at `at`; the rest is `rest`, with the headers `then` or those of S3.
    """

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes] | None:
        if environ["REQUEST_METHOD"] != "GET":
            return None
        if "HTTP_RANGE" not in environ:
            whole = [("Content-Length", str(len(DATA))), ("ETag", _ETAG[0]), *HEADERS]
            start_response("200 OK", whole)
            return [DATA[:at]]
        if then is None:
            return None
        start_response("206 Partial Content", [("Content-Length", str(len(rest))), *HEADERS, *then])
        return [rest]

    return answer


_ETAG = [""]


@pytest.fixture(autouse=True)
def _stored(store: S3Store) -> None:
    _ETAG[0] = store.put("a.png", DATA, content_type="image/png").facts.etag


def _read(store: S3Store, size: int) -> bytes:
    stored = store.get("a.png")
    assert stored is not None
    with stored:
        if size < 0:
            return stored.body.read()
        return b"".join(iter(lambda: stored.body.read(size), b""))


@pytest.mark.parametrize("size", [-1, 1000, 256 * 1024])
@pytest.mark.parametrize("at", [0, 1, 100_000, len(DATA) - 1])
def test_a_broken_body_is_resumed(s3: S3Server, store: S3Store, at: int, size: int) -> None:
    s3.fault = _cut(at)
    assert _read(store, size) == DATA
    resumed = [headers for method, _, headers in s3.requests if method == "GET" and "range" in headers]
    assert [headers["if-match"] for headers in resumed] == [_ETAG[0]]


OTHERS = [
    pytest.param(
        [("ETag", '"other"'), ("Content-Range", f"bytes 100000-{len(DATA) - 1}/{len(DATA)}")], id="etag"
    ),
    pytest.param([("ETag", "same"), ("Content-Range", f"bytes 0-{len(DATA) - 1}/{len(DATA)}")], id="range"),
    pytest.param([("ETag", "same")], id="no range"),
]


@pytest.mark.parametrize("then", OTHERS)
def test_a_resumed_body_never_mixes_versions(
    s3: S3Server, store: S3Store, then: list[tuple[str, str]]
) -> None:
    then = [(name, _ETAG[0] if value == "same" else value) for name, value in then]
    s3.fault = _cut(100_000, then=then, rest=DATA[100_000:])
    with pytest.raises(StoreError):
        _read(store, 100_000)


def test_a_body_of_a_replaced_object_is_not_resumed(s3: S3Server, store: S3Store) -> None:
    s3.fault = _cut(100_000)
    stored = store.get("a.png")
    assert stored is not None
    with stored:
        assert stored.body.read(100_000) == DATA[:100_000]
        s3.fault = None
        store.put("a.png", b"new", content_type="image/png")
        with pytest.raises(StoreError):
            stored.body.read(100_000)


def test_a_body_is_resumed_only_once(s3: S3Server, store: S3Store) -> None:
    span = f"bytes 100000-{len(DATA) - 1}/{len(DATA)}"
    then = [("ETag", _ETAG[0]), ("Content-Range", span), ("Content-Length", str(len(DATA) - 100_000))]

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes] | None:
        if "HTTP_RANGE" not in environ:
            return _cut(100_000)(environ, start_response)
        start_response("206 Partial Content", [*HEADERS, *then])
        return [DATA[100_000:200_000]]

    s3.fault = answer
    with pytest.raises(StoreError):
        _read(store, -1)
    assert s3.count("GET", "a.png") == 2


def test_a_stalled_body_is_a_timeout(s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_client_module, "READ_TIMEOUT_SECONDS", 3)
    store = S3Store(bucket, region="us-east-1", endpoint_url=s3.url)

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Length", "100"), ("ETag", '"e"'), *HEADERS])
        yield b"some"
        s3.silence()

    s3.fault = answer
    with pytest.raises(StoreTimeout):
        _read(store, -1)
    assert s3.count("GET", "a.png") == 1
