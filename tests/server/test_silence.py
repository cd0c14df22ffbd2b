"""Test that requests that need no store are served while the store never answers."""

import json
import socket
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import pytest
import requests

from tests.pictures import noise
from tests.rawstore import RawRequest, RawStore, answer_of
from tests.s3server import CREDENTIALS, S3Server
from tests.server.raw import RawResponse, connected, read_response
from tests.server.running import Running, running
from tests.waiting import wait_until

SECONDS = 10
"""Seconds. Requests that need no store take milliseconds, or longer on a busy machine. A timeout takes 20
s."""


@pytest.fixture
def server(s3: S3Server, bucket: str, tmp_path: Path) -> Iterator[Running]:
    """Start a server with S3 and one worker with eight threads."""
    settings = {**CREDENTIALS, "S3_BUCKET": bucket, "AWS_ENDPOINT_URL_S3": s3.url, "AWS_REGION": "us-east-1"}
    with running(tmp_path, **settings, WEB_CONCURRENCY="1", CACHE_TTL="3600") as server:
        yield server


def _upload(server: Running, number: int, **fields: str) -> str:
    answer = requests.post(
        f"{server.url}/api/images", files={"image": ("a.png", noise(number))}, data=fields, timeout=60
    )
    return f"/api/images/{answer.json()['key']}"


def _let_expire(server: Running, path: str) -> None:
    """Make the cache entry look as if it was validated two hours ago."""
    with closing(sqlite3.connect(server.log_path.parent / "cache" / "index.sqlite3", timeout=30)) as db, db:
        key = path.removeprefix("/api/images/")
        changed = db.execute("UPDATE entry SET validated_at = validated_at - 7200 WHERE key = ?", (key,))
        assert changed.rowcount == 1


def _get(server: Running, path: str) -> requests.Response:
    began = time.monotonic()
    answer = requests.get(server.url + path, timeout=60)
    assert time.monotonic() - began < SECONDS, path
    return answer


def _send(stack: ExitStack, server: Running, path: str) -> socket.socket:
    sock = stack.enter_context(connected(server.url))
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return sock


def _missing(number: int) -> str:
    return f"/api/images/images/00/{number:030x}.png"


def _mute(s3: S3Server) -> None:
    def answer(environ: object, start_response: Callable[..., object]) -> list[bytes]:
        s3.silence(60)
        start_response("503 Slow Down", [("Content-Length", "0")])
        return [b""]

    s3.fault = answer


def _check_answer(answer: RawResponse) -> None:
    body = json.loads(answer.body)
    assert answer.status in (404, 503, 504), body
    assert body.keys() == {"success", "message", "code"}
    if answer.status != 404:
        assert int(answer.headers["retry-after"]) > 0


@pytest.mark.timeout(180)
@pytest.mark.parametrize("distinct", [True, False], ids=["distinct keys", "one key"])
@pytest.mark.parametrize("clients", [24, 200])
def test_requests_that_need_no_store_are_served_while_the_store_is_silent(
    s3: S3Server, server: Running, clients: int, distinct: bool
) -> None:
    hit, fresh = _upload(server, 1), _upload(server, 2, name="fresh.png")
    stale = _upload(server, 3, name="stale.png")
    _let_expire(server, stale)
    _mute(s3)
    before = len(s3.requests)
    with ExitStack() as stack:
        numbers = range(1, clients + 1)
        waiting = [_send(stack, server, _missing(number if distinct else 0)) for number in numbers]
        wait_until(lambda: len(s3.requests) - before >= (min(clients, 32) if distinct else 1))
        time.sleep(2)  # until all requests are waiting and the silence has been noticed
        for path in ("/", "/healthz", "/openapi.json", "/metrics"):
            assert _get(server, path).status_code == 200
        assert _get(server, "/readyz").json()["store"] == "unreachable"
        assert _get(server, hit).content == noise(1)
        assert _get(server, fresh).content == noise(2)
        shown = _get(server, stale)
        assert (shown.content, shown.headers["Cache-Status"]) == (
            noise(3),
            "s3-image-server; hit; detail=stale-if-error",
        )
        if clients == 200 and distinct:
            _check_that_the_rest_is_refused(server)
        s3.reset()
        for sock in waiting:
            _check_answer(read_response(sock))
    wait_until(lambda: _get(server, _missing(999)).status_code == 404)
    assert _get(server, _upload(server, 4)).content == noise(4)
    assert "Traceback" not in server.log


def _check_that_the_rest_is_refused(server: Running) -> None:
    calls = {
        "miss": requests.get(server.url + _missing(1000), timeout=SECONDS),
        "named miss": requests.get(f"{server.url}/api/images/none.png", timeout=SECONDS),
        "listing": requests.get(f"{server.url}/api/images", timeout=SECONDS),
        "delete": requests.delete(f"{server.url}/api/images/fresh.png", timeout=SECONDS),
        "upload": requests.post(
            f"{server.url}/api/images", files={"image": ("a.png", noise(9))}, timeout=SECONDS
        ),
    }
    for name, answer in calls.items():
        assert (answer.status_code, answer.json()["code"]) == (503, "store_busy"), name
        assert answer.headers["Retry-After"] == "5"


def _drip(raw: RawStore, asked: RawRequest) -> Iterable[bytes]:
    """Send an endless head byte by byte."""
    yield b"HTTP/1.1 200 OK\r\nX-Long: "
    while not raw.stopped.is_set():
        yield b"x"
        raw.pause(5)


@pytest.mark.timeout(180)
def test_requests_that_need_no_store_are_served_while_the_store_sends_byte_by_byte(tmp_path: Path) -> None:
    raw = RawStore(lambda asked: [answer_of("200 OK", 'ETag: "e"', "Content-Length: 0")])
    settings = {**CREDENTIALS, "S3_BUCKET": "cats", "AWS_ENDPOINT_URL_S3": raw.url, "AWS_REGION": "us-east-1"}
    with running(tmp_path, **settings, WEB_CONCURRENCY="1", S3_ACL="none") as server, ExitStack() as stack:
        stack.callback(raw.stop)
        named = _upload(server, 1, name="named.png")
        raw.answer = partial(_drip, raw)
        waiting = [_send(stack, server, _missing(number)) for number in range(60)]
        wait_until(lambda: len(raw.requests) >= 32)
        time.sleep(2)
        assert _get(server, "/").status_code == 200
        assert _get(server, named).content == noise(1)
        for sock in waiting:
            answer = read_response(sock)
            assert answer.status in (503, 504)
            _check_answer(answer)


@pytest.mark.timeout(180)
def test_a_burst_of_misses_on_a_healthy_store_succeeds(s3: S3Server, bucket: str, server: Running) -> None:
    look = s3.client()
    images = {f"burst/{number}.png": noise(number) for number in range(200)}
    for key, data in images.items():
        look.put_object(Bucket=bucket, Key=key, Body=data, ContentType="image/png")
    look.close()
    s3.delay = 0.05
    with ExitStack() as stack:
        waiting = {key: _send(stack, server, f"/api/images/{key}") for key in images}
        for key, sock in waiting.items():
            answer = read_response(sock)
            assert (answer.status, answer.body) == (200, images[key])
