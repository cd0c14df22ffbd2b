"""The client for one bucket: regions, credentials, timeouts and retries."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import StoreError, StoreRefused, StoreTimeout, StoreUnreachable
from app.stores.s3 import client as s3_client_module
from app.stores.s3.store import S3Store
from tests.ports import free_port
from tests.s3server import Fault, S3Server, error
from tests.stores.s3.conftest import REGION
from tests.waiting import wait_until


def _wrong_region(environ: dict[str, Any]) -> bool:
    return f"/{REGION}/" in environ.get("HTTP_AUTHORIZATION", "")


IN_HEADER = ("x-amz-bucket-region", "eu-west-1")

ELSEWHERE = [
    pytest.param("301 Moved Permanently", "PermanentRedirect", {"headers": (IN_HEADER,)}, id="301"),
    pytest.param("307 Temporary Redirect", "TemporaryRedirect", {"headers": (IN_HEADER,)}, id="307"),
    pytest.param(
        "400 Bad Request",
        "AuthorizationHeaderMalformed",
        {"elements": "<Region>eu-west-1</Region>"},
        id="400",
    ),
    pytest.param(
        "400 Bad Request", "IllegalLocationConstraintException", {"headers": (IN_HEADER,)}, id="opt-in"
    ),
]


@pytest.mark.parametrize(("status", "code", "more"), ELSEWHERE)
def test_calls_follow_s3_to_the_region_of_the_bucket(
    s3: S3Server, aws: str, status: str, code: str, more: Any, caplog: pytest.LogCaptureFixture
) -> None:
    S3Store(aws, region="eu-west-1").put("a/b.png", b"bytes", content_type="image/png")
    calls: list[Callable[[S3Store], Any]] = [
        lambda store: store.put("c.png", b"bytes", content_type="image/png"),
        lambda store: store.head("a/b.png"),
        lambda store: store.list(),
        lambda store: store.get("a/b.png").body.read(),  # type: ignore[union-attr]
    ]
    s3.fault = error(status, code, _wrong_region, **more)
    for call in calls:
        caplog.clear()
        store = S3Store(aws, region=REGION)
        call(store)
        assert caplog.text.count("set AWS_REGION=eu-west-1") == 1
        _, _, place = store.object_url("a.png").partition("://")
        assert place == f"{aws}.s3.eu-west-1.amazonaws.com/a.png"
        s3.requests.clear()
        assert store.exists("a/b.png")
        assert [method for method, _, _ in s3.requests] == ["HEAD"]  # directly to the right region


@pytest.mark.parametrize("status", ["301 Moved Permanently", "302 Found", "307 Temporary Redirect"])
def test_a_redirect_without_a_region_says_what_to_check(s3: S3Server, aws: str, status: str) -> None:
    """A proxy may redirect to HTTPS. botocore alone would repeat HeadBucket endlessly."""
    s3.fault = error(status, "Moved", lambda environ: True)
    for store in (S3Store(aws, region=REGION), S3Store(aws, region=REGION, endpoint_url=s3.url)):
        for call in (store.get, store.head):
            s3.requests.clear()
            with pytest.raises(StoreRefused, match=r"AWS_REGION.*AWS_ENDPOINT_URL_S3"):
                call("a.png")
            assert len(s3.requests) <= 4


def test_an_invalid_region_name_is_ignored(s3: S3Server, store: S3Store) -> None:
    element = "<Region>../x</Region>"
    s3.fault = error("400 Bad Request", "AuthorizationHeaderMalformed", _wrong_region, elements=element)
    with pytest.raises(StoreError):
        store.get("a.png")
    assert store._client.region() == REGION


def test_the_session_token_is_sent(s3: S3Server, aws: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "a-token")
    S3Store(aws, region=REGION).exists("a.png")
    assert {headers["x-amz-security-token"] for _, _, headers in s3.requests} == {"a-token"}


def test_a_dotted_bucket_name_is_in_the_path(s3: S3Server, aws: str) -> None:
    s3.make_bucket("cats.example.org").close()
    store = S3Store("cats.example.org", region=REGION)
    s3.requests.clear()
    store.put("a.png", b"bytes", content_type="image/png")
    _, path, headers = s3.requests[0]
    assert (headers["host"], path) == ("s3.us-east-1.amazonaws.com", "/cats.example.org/a.png")


def test_each_process_has_one_client(store: S3Store) -> None:
    client = store._client.boto3_client()
    assert store._client.boto3_client() is client
    child = os.fork()
    if child == 0:
        os._exit(store._client.boto3_client() is client)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_missing_credentials_are_a_refusal(
    monkeypatch: pytest.MonkeyPatch, s3: S3Server, store: S3Store, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(StoreRefused, match="AWS_ACCESS_KEY_ID"):
        store.head("a.png")


def test_a_missing_profile_is_a_refusal(
    monkeypatch: pytest.MonkeyPatch, s3: S3Server, store: S3Store
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "no-such-profile")
    for call in (store.head, store.signed_url, S3Store("cats").object_url):
        with pytest.raises(StoreRefused, match="no-such-profile"):
            call("a.png")


def test_refused_connections_are_an_outage(s3: S3Server) -> None:
    store = S3Store("some-bucket", region=REGION, endpoint_url=f"http://127.0.0.1:{free_port()}")
    with pytest.raises(StoreUnreachable, match="AWS_ENDPOINT_URL_S3"):
        store.list()


def _silent(s3: S3Server) -> Fault:
    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
        s3.silence()
        start_response("200 OK", [])
        yield b""

    return answer


def test_a_late_failure_is_not_retried(s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The deadline applies to the whole call, not only to each attempt."""
    monkeypatch.setattr(s3_client_module, "READ_TIMEOUT_SECONDS", 0.5)
    monkeypatch.setattr(s3_client_module, "RETRY_WINDOW_SECONDS", 0.4)
    store = S3Store(bucket, region=REGION, endpoint_url=s3.url)
    s3.fault = _silent(s3)
    began = time.monotonic()
    with pytest.raises(StoreTimeout):
        store.get("a.png")
    assert time.monotonic() - began < 20
    wait_until(lambda: s3.count("GET", "a.png"))
    assert s3.count("GET", "a.png") == 1


def test_an_early_failure_is_retried(s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_client_module, "READ_TIMEOUT_SECONDS", 1)
    monkeypatch.setattr(s3_client_module, "RETRY_WINDOW_SECONDS", 60)
    store = S3Store(bucket, region=REGION, endpoint_url=s3.url)
    s3.fault = _silent(s3)
    with pytest.raises(StoreTimeout):
        store.get("a.png")
    wait_until(lambda: s3.count("GET", "a.png") >= s3_client_module.MAX_ATTEMPTS)
    assert s3.count("GET", "a.png") == s3_client_module.MAX_ATTEMPTS


def test_a_server_that_accepts_no_connection_is_an_outage(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's backlog is full, so not even its operating system responds."""
    monkeypatch.setattr(s3_client_module, "CONNECT_TIMEOUT_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, ExitStack() as stack:
        for _ in range(3):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        store = S3Store(
            "cats", region="us-east-1", endpoint_url=f"http://127.0.0.1:{listener.getsockname()[1]}"
        )
        with pytest.raises((StoreTimeout, StoreUnreachable)):
            store.head("a.png")


def test_a_server_that_does_not_read_is_an_outage(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_client_module, "CONNECT_TIMEOUT_SECONDS", 0.3)
    monkeypatch.setattr(s3_client_module, "READ_TIMEOUT_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        store = S3Store(
            "cats", region="us-east-1", endpoint_url=f"http://127.0.0.1:{listener.getsockname()[1]}"
        )
        with pytest.raises((StoreTimeout, StoreUnreachable)):
            store.put("a.png", bytes(32 * 1024**2), content_type="image/png")
