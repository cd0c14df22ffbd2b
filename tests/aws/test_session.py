"""Limits on the responses of AWS's services, and of servers that respond in their place."""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha1
from pathlib import Path

import pytest
from botocore.credentials import SSOProvider
from botocore.utils import ContainerMetadataFetcher

from app.aws.session import MAX_RESPONSE_BYTES, MIN_BYTES_PER_SECOND, POOLS
from app.core.errors import GeneratorError, StoreError, StoreTimeout
from app.generators.bedrock import BedrockGenerator
from app.ops.bucket.clients import AwsClients
from app.stores.s3 import client as s3_client_module
from app.stores.s3.store import S3Store
from app.stores.s3.urls import NoResponse, fetch_anonymously
from tests.rawstore import RawRequest, RawStore, answer_of, listing
from tests.s3server import CREDENTIALS

MEGABYTES = 64
HEADERS = ("Content-Type: image/png", 'ETag: "e"', "Last-Modified: Sun, 22 Nov 2026 08:00:00 GMT")


class Endless:
    """An endless response. `sent` counts the megabytes that the client read."""

    def __init__(self, status: str = "200 OK") -> None:
        self.status = status
        self.sent = 0

    def __call__(self, request: RawRequest) -> Iterable[bytes]:
        """Send a body without a length."""
        yield answer_of(self.status, "Content-Type: application/json", body=b'{"x": "')
        for _ in range(MEGABYTES):
            yield 10**6 * b"x"
            self.sent += 1


@pytest.fixture
def raw(monkeypatch: pytest.MonkeyPatch) -> Iterator[RawStore]:
    """Return a server whose responses each test sets."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    raw = RawStore(lambda request: [])
    yield raw
    raw.stop()


@pytest.fixture
def hasty(raw: RawStore, monkeypatch: pytest.MonkeyPatch) -> S3Store:
    """Return a store with a read timeout of one second and without retries."""
    monkeypatch.setattr(s3_client_module, "READ_TIMEOUT_SECONDS", 1)
    monkeypatch.setattr(s3_client_module, "MAX_ATTEMPTS", 1)
    return S3Store("cats", region="us-east-1", endpoint_url=raw.url)


def _read(store: S3Store) -> bytes:
    stored = store.get("a.png")
    assert stored is not None
    with stored:
        return b"".join(iter(lambda: stored.body.read(256 * 1024), b""))


CALLS: dict[str, Callable[[S3Store], object]] = {
    "get": _read,
    "head": lambda store: store.head("a.png"),
    "list": lambda store: store.list(),
    "put": lambda store: store.put("a.png", b"bytes", content_type="image/png"),
    "delete": lambda store: store.delete("a.png"),
}

LONG = answer_of("200 OK", *HEADERS, "Content-Length: 5000", body=5000 * b"x")
SLOW = {
    "a head": LONG,
    "the second of two heads": b"HTTP/1.1 100 Continue\r\n\r\n" + LONG,
    "an error": answer_of("400 No", "Content-Length: 5000", body=5000 * b" "),
    "an error in chunks": answer_of("400 No", "Transfer-Encoding: chunked", body=1000 * b"1\r\n \r\n"),
}


def _drip(data: bytes, at_once: int, raw: RawStore) -> Iterable[bytes]:
    yield data[:at_once]
    for byte in data[at_once:]:
        yield bytes([byte])
        raw.pause(0.2)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", SLOW)
def test_a_dripping_response_ends_the_call(raw: RawStore, hasty: S3Store, name: str, call: str) -> None:
    data = SLOW[name]
    has_body = name.startswith("an error") and call != "head"
    at_once = data.index(b"\r\n\r\n") + 4 if has_body else 40
    raw.answer = lambda request: _drip(data, at_once, raw)
    began = time.monotonic()
    with pytest.raises(StoreTimeout):
        CALLS[call](hasty)
    assert time.monotonic() - began < 30


def test_a_dripping_body_ends_the_read(raw: RawStore, hasty: S3Store) -> None:
    raw.answer = lambda request: _drip(LONG, LONG.index(b"\r\n\r\n") + 4, raw)
    with pytest.raises(StoreTimeout):
        _read(hasty)


def test_a_dripping_listing_ends_the_call(raw: RawStore, hasty: S3Store) -> None:
    page = listing(1000 * " ")
    raw.answer = lambda request: _drip(page, page.index(b"\r\n\r\n") + 4, raw)
    with pytest.raises(StoreTimeout):
        hasty.list()


def test_a_body_at_the_minimum_rate_is_read_to_the_end(raw: RawStore, hasty: S3Store) -> None:
    pieces = 30

    def answer(request: RawRequest) -> Iterable[bytes]:
        yield answer_of("200 OK", *HEADERS, f"Content-Length: {pieces * MIN_BYTES_PER_SECOND}")
        for _ in range(pieces):
            yield MIN_BYTES_PER_SECOND * b"x"
            raw.pause(0.1)

    raw.answer = answer
    assert len(_read(hasty)) == pieces * MIN_BYTES_PER_SECOND


def test_the_time_of_the_reader_does_not_count(raw: RawStore, hasty: S3Store) -> None:
    data = bytes(20_000)
    raw.answer = lambda request: [answer_of("200 OK", *HEADERS, f"Content-Length: {len(data)}", body=data)]
    stored = hasty.get("a.png")
    assert stored is not None
    with stored:
        taken = b""
        while piece := stored.body.read(4000):
            taken += piece
            time.sleep(0.7)
    assert taken == data


@pytest.mark.parametrize("status", ["200 OK", "400 No", "403 No", "500 No", "301 Moved"])
@pytest.mark.parametrize("call", [call for call in CALLS if call != "head"])
def test_no_call_reads_an_endless_response(raw: RawStore, hasty: S3Store, call: str, status: str) -> None:
    raw.answer = endless = Endless(status)
    with pytest.raises(StoreError):
        CALLS[call](hasty)
    assert endless.sent < MEGABYTES / 2


def test_the_largest_page_is_within_the_limit(raw: RawStore, hasty: S3Store) -> None:
    """1000 keys of 1024 bytes, each byte percent-encoded."""
    key = "".join(f"%{byte:02X}" for byte in 341 * "€".encode() + b"a")
    entry = (
        f"<Key>{key[:-9]}NNNN.png</Key><Size>5000000000000</Size><ETag>&quot;{32 * 'e'}-10000&quot;</ETag>"
        "<LastModified>2026-11-22T08:00:00.000Z</LastModified><StorageClass>INTELLIGENT_TIERING</StorageClass>"
        "<ChecksumAlgorithm>SHA256</ChecksumAlgorithm><ChecksumType>FULL_OBJECT</ChecksumType>"
    )
    page = listing(*(entry.replace("NNNN", f"{number:04}") for number in range(1000)), truncated=_URL_ENCODED)
    assert len(page) < MAX_RESPONSE_BYTES
    raw.answer = lambda request: [page]
    assert len(hasty.list(limit=1000).objects) == 1000


_URL_ENCODED = "<IsTruncated>false</IsTruncated><EncodingType>url</EncodingType>"


@pytest.fixture
def alone(raw: RawStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Remove all credentials. Return the directory for a test's own files."""
    for name in CREDENTIALS:
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "config"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return tmp_path


def _container(raw: RawStore, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ContainerMetadataFetcher, "SLEEP_TIME", 0)
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{raw.url}/role")


def _machine(raw: RawStore, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "false")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", raw.url)


def _web_identity(raw: RawStore, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "token").write_text("token")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(home / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/images")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", raw.url)


def _sso(raw: RawStore, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = "https://example.awsapps.com/start"
    (home / "config").write_text(
        f"[profile sso]\nsso_start_url={start}\nsso_region=us-east-1\nsso_account_id=1\nsso_role_name=r\n"
    )
    token = {"accessToken": "t", "expiresAt": f"{datetime.now(UTC) + timedelta(hours=8):%Y-%m-%dT%H:%M:%SZ}"}
    (home / f"{sha1(start.encode(), usedforsecurity=False).hexdigest()}.json").write_text(json.dumps(token))
    monkeypatch.setattr(SSOProvider, "_SSO_TOKEN_CACHE_DIR", str(home))
    monkeypatch.setenv("AWS_PROFILE", "sso")
    monkeypatch.setenv("AWS_ENDPOINT_URL_SSO", raw.url)


@pytest.mark.parametrize("status", ["200 OK", "400 No"])
@pytest.mark.parametrize("source", [_container, _machine, _web_identity, _sso])
def test_no_credential_provider_reads_an_endless_response(
    raw: RawStore,
    alone: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: Callable[[RawStore, Path, pytest.MonkeyPatch], None],
    status: str,
) -> None:
    source(raw, alone, monkeypatch)
    raw.answer = endless = Endless(status)
    store = S3Store("cats", region="us-east-1", endpoint_url="http://127.0.0.1:9")
    with pytest.raises(StoreError):
        store.head("a.png")
    assert raw.requests
    assert endless.sent < MEGABYTES / 2


@pytest.mark.parametrize("service", ["s3", "iam", "sts"])
def test_no_bucket_command_reads_an_endless_response(
    raw: RawStore, monkeypatch: pytest.MonkeyPatch, service: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", raw.url)
    raw.answer = endless = Endless()
    client = getattr(AwsClients(region="us-east-1", endpoint_url=raw.url if service == "s3" else ""), service)
    calls = {
        "s3": lambda: client.get_bucket_policy(Bucket="cats"),
        "iam": lambda: client.list_users(),
        "sts": lambda: client.get_caller_identity(),
    }
    with pytest.raises(Exception, match="can't be used"):
        calls[service]()
    client.close()
    assert endless.sent < MEGABYTES / 2


def test_describing_a_model_reads_no_endless_response(raw: RawStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK", raw.url)
    raw.answer = endless = Endless()
    with pytest.raises(GeneratorError):
        BedrockGenerator("stability.x", region="us-west-2", timeout=5).describe_model()
    assert endless.sent < MEGABYTES / 2


def test_an_anonymous_request_reads_no_endless_response(raw: RawStore) -> None:
    raw.answer = endless = Endless()
    assert len(fetch_anonymously("GET", raw.url).body) == 1024**2
    assert endless.sent < MEGABYTES / 2
    raw.answer = lambda request: _drip(LONG, 40, raw)
    with pytest.raises(NoResponse):
        fetch_anonymously("GET", raw.url, seconds=0.5)
    assert set(POOLS) == {"http", "https"}
