"""Tests of clients that read responses slowly or not at all."""

import socket
import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from gunicorn.config import Config

from app.core.errors import Busy
from app.delivery.fast_path import LoopHooks
from app.server import exchanges
from app.server.connections import Connection
from app.server.exchanges import Exchanges
from tests.pictures import long_png
from tests.server.raw import connected, read_response
from tests.server.running import Running, running
from tests.waiting import wait_until

THREADS = 2
REQUESTED = {
    "hit": ("{image}", "1.1", []),
    "answered by a thread": ("{image}?x", "1.1", []),
    "range": ("{image}", "1.1", ["Range: bytes=1-"]),
    "named": ("{named}", "1.1", []),
    "HTTP/1.0": ("{image}", "1.0", []),
    "last": ("{named}", "1.1", ["Connection: close"]),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Start a server with one worker and two threads. If both are blocked, all clients wait."""
    directory = tmp_path_factory.mktemp("readers")
    with running(directory, WEB_CONCURRENCY="1", THREADS=str(THREADS), MAX_UPLOAD_BYTES="64MiB") as started:
        yield started


@pytest.fixture(scope="module")
def data(server: Running) -> bytes:
    """Return an image of 12 MB, which is more than the kernel buffers for a client that does not read."""
    return requests.get(f"{server.url}{_path(server)}", timeout=60).content


def _path(server: Running, **options: str) -> str:
    sent = requests.post(
        f"{server.url}/api/images", files={"image": long_png(2)}, params=options, timeout=60
    ).json()
    return str(urlsplit(sent["image_url"]).path)


@pytest.fixture(scope="module")
def paths(server: Running, data: bytes) -> dict[str, str]:
    """Return the paths of the image, which is stored both with and without a name."""
    return {"image": _path(server), "named": _path(server, name="big.png")}


def _request(paths: dict[str, str], how: str) -> bytes:
    path, version, lines = REQUESTED[how]
    return "\r\n".join((f"GET {path} HTTP/{version}".format(**paths), "Host: x", *lines, "", "")).encode()


@pytest.mark.parametrize("how", REQUESTED)
def test_clients_that_do_not_read_delay_no_other_client(
    server: Running, paths: dict[str, str], data: bytes, how: str
) -> None:
    with ExitStack() as stack:
        slow = [stack.enter_context(connected(server.url, receive_buffer=4096)) for _ in range(3 * THREADS)]
        for sock in slow:
            sock.sendall(_request(paths, how))
        time.sleep(0.5)
        assert requests.get(f"{server.url}/healthz", timeout=25).ok
        assert requests.get(f"{server.url}/api/images?limit=1", timeout=25).ok
        for sock in slow[:2]:
            assert data.endswith(read_response(sock).body)


@pytest.mark.parametrize("how", ["hit", "answered by a thread"])
def test_a_disconnected_client_leaves_only_a_line_in_the_access_log(
    server: Running, paths: dict[str, str], how: str
) -> None:
    """The client resets the connection before or during the response."""
    descriptors = Path(f"/proc/{server.workers()[0]}/fd")
    before, lines = len(list(descriptors.iterdir())), server.log.count(paths["image"])
    for number in range(10):
        with connected(server.url, receive_buffer=4096) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.sendall(_request(paths, how))
            if number < 5:
                time.sleep(number / 100)
            else:
                sock.recv(1)
    wait_until(lambda: len(list(descriptors.iterdir())) <= before + 2)
    wait_until(lambda: server.log.count(paths["image"]) >= lines + 5)
    assert "Traceback" not in server.log


@pytest.mark.parametrize("how", ["hit", "answered by a thread", "range"])
def test_the_connection_is_reused_after_a_slow_response(
    server: Running, paths: dict[str, str], data: bytes, how: str
) -> None:
    with connected(server.url, receive_buffer=4096) as sock:
        sock.sendall(_request(paths, how))
        time.sleep(0.5)
        answer = read_response(sock)
        assert (answer.headers["connection"], data.endswith(answer.body)) == ("keep-alive", True)
        sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert read_response(sock).status == 200


@pytest.mark.parametrize("how", ["hit", "answered by a thread"])
def test_requests_sent_during_a_slow_response_are_answered(
    server: Running, paths: dict[str, str], data: bytes, how: str
) -> None:
    healthz = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    with connected(server.url, receive_buffer=4096) as sock:
        sock.sendall(_request(paths, how) + healthz)
        time.sleep(0.5)
        sock.sendall(healthz)
        assert read_response(sock).body == data
        assert [read_response(sock).status for _ in range(2)] == [200, 200]


@pytest.mark.parametrize("how", ["HTTP/1.0", "last"])
def test_the_last_response_is_complete_before_the_connection_closes(
    server: Running, paths: dict[str, str], data: bytes, how: str
) -> None:
    with connected(server.url, receive_buffer=4096) as sock:
        sock.sendall(_request(paths, how))
        time.sleep(0.5)
        answer = read_response(sock)
        assert (answer.headers["connection"], answer.body == data) == ("close", True)
        assert not sock.recv(1)


def test_an_image_streamed_from_the_store_is_complete(tmp_path: Path) -> None:
    """A thread sends the image, since it is too large for the cache."""
    with running(tmp_path, CACHE_MAX_BYTES="1MiB", MAX_UPLOAD_BYTES="64MiB") as server:
        url = server.url + _path(server)
        passed = requests.get(url, timeout=60)
        assert (passed.headers["Cache-Status"], passed.content) == (
            "s3-image-server; fwd=bypass",
            long_png(2),
        )
        assert len(passed.headers["X-Request-ID"]) == 16


def _served(sock: socket.socket, head: bytes, *, keep: bool) -> tuple[bool, Connection]:
    """Serve this request in a thread. It must not wait for the client."""

    def application(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Length", str(10**7))])
        return [bytes(10**7)]

    log: Any = SimpleNamespace(access=lambda *_: None)
    serving = Exchanges(application, Config(), log, LoopHooks(), lambda: keep)
    conn = Connection(sock, ("127.0.0.1", 1), ("127.0.0.1", 2), 0.0)
    conn.head += head
    with ThreadPoolExecutor(1) as pool:
        served = pool.submit(serving.serve, conn)
        try:
            return served.result(10), conn
        finally:
            sock.shutdown(socket.SHUT_RDWR)  # wakes the thread if it is waiting


def test_100_continue_waits_for_no_client() -> None:
    """The send buffer is full, since the client has not read earlier responses."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        for size in (65_536, 1):
            with suppress(BlockingIOError):
                while ours.send(bytes(size)):
                    pass
        served, conn = _served(ours, b"GET / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\r\n", keep=True)
    assert (served, conn.exchange) == (False, None)


@pytest.mark.parametrize("keep", [True, False])
def test_threads_leave_slow_readers_to_the_loop(*, keep: bool) -> None:
    """This holds whether or not the connection can be reused."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        served, conn = _served(ours, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", keep=keep)
    assert served is keep
    assert conn.exchange is not None


class Streaming:
    """A response whose body is not a file. The client receives none of it."""

    headers_sent = True
    must_close = False

    def __init__(self, sock: socket.socket, failure: Exception | None) -> None:
        self._sock = sock
        self._failure = failure

    def stream(self, body: bytes) -> None:
        """Raise the failure, or send until the client's time has run out."""
        if self._failure:
            raise self._failure
        self._sock.sendall(body)

    def force_close(self) -> None:
        """Close the connection after this response."""
        self.must_close = True

    def should_close(self) -> bool:
        """Return whether to close the connection."""
        return self.must_close


@pytest.mark.parametrize(("failure", "logged"), [(None, 0), (RuntimeError("the store"), 1)])
def test_a_stalled_stream_ends_the_connection(
    monkeypatch: pytest.MonkeyPatch, failure: Exception | None, logged: int
) -> None:
    """It ends after the time limit for a piece. Then the thread is free and the body is closed."""
    monkeypatch.setattr(exchanges, "_PIECE_SECONDS", 0.2)
    messages: list[str] = []
    ended: list[bool] = []
    log: Any = SimpleNamespace(exception=messages.append)
    asking = Exchanges(None, None, log, LoopHooks(), lambda: True)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        exchange: Any = SimpleNamespace(
            response=Streaming(ours, failure), body=b" " * 10**7, end=lambda: ended.append(True)
        )
        conn: Any = SimpleNamespace(sock=ours)
        with nullcontext() if failure else pytest.raises(TimeoutError):
            assert asking._stream(conn, exchange) is False
    assert (len(messages), ended) == (logged, [True])


def test_the_number_of_streamed_responses_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchanges, "_MAX_STREAMS", 0)
    closed: list[bool] = []
    exchange: Any = SimpleNamespace(body=SimpleNamespace(close=lambda: closed.append(True)))
    asking = Exchanges(None, None, None, LoopHooks(), lambda: True)
    conn: Any = None
    with pytest.raises(Busy):
        asking._stream(conn, exchange)
    assert closed == [True]
