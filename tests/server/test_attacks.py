"""Tests of attacks that need no API key, on a running server with one worker."""

import os
import resource
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from tests.pictures import long_png, noise
from tests.server.descriptors import client_connections
from tests.server.raw import RawResponse, connected, read_response
from tests.server.running import Running, running
from tests.waiting import wait_until

CONNECTIONS = 1000
"""The maximum number of connections of a worker, by gunicorn's default."""

THREADS = 8
ORIGIN = "https://app.example.org"

SOON = 4.0
"""Seconds. Responses take milliseconds. If one of these attacks succeeded, they would take ten or more."""


@pytest.fixture(autouse=True)
def _many_files() -> None:
    """Raise the limit, since an attack needs as many descriptors in this process as in the server."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    """Start a server with one worker, so that no other worker can answer instead."""
    settings = {"WEB_CONCURRENCY": "1", "THREADS": str(THREADS), "MAX_UPLOAD_BYTES": "64MiB"}
    settings["COVERAGE_PROCESS_CONFIG"] = ""  # these tests measure time, which counting lines would distort
    with running(tmp_path, CORS_ORIGINS=ORIGIN, ACCESS_LOG="false", **settings) as started:
        yield started


@pytest.fixture
def small(server: Running) -> str:
    """Return the path of a small cached image."""
    return _cached(server, noise(1))


@pytest.fixture
def large(server: Running) -> str:
    """Return the path of a cached image of 8.7 MB."""
    return _cached(server, long_png(1, 1700))


def _cached(server: Running, data: bytes) -> str:
    sent = requests.post(f"{server.url}/api/images", files={"image": data}, timeout=60)
    path = str(urlsplit(sent.json()["image_url"]).path)
    assert requests.get(server.url + path, timeout=60).headers["Cache-Status"].endswith("hit")
    return path


def _request(path: str, *lines: str, method: str = "GET") -> bytes:
    return "\r\n".join((f"{method} {path} HTTP/1.1", "Host: localhost", *lines, "", "")).encode()


def _ask(server: Running, path: str, seconds: float = 60) -> RawResponse:
    """Send a request over a new connection."""
    with connected(server.url) as sock:
        sock.settimeout(seconds)
        sock.sendall(_request(path))
        return read_response(sock)


def _seconds_for(server: Running, path: str) -> float:
    began = time.monotonic()
    assert _ask(server, path).status == 200
    return time.monotonic() - began


def _port(server: Running) -> int:
    port = urlsplit(server.url).port
    assert port
    return port


def _still_open(socks: list[socket.socket]) -> list[socket.socket]:
    """Return the idle connections that the server has not closed."""
    poll = select.poll()
    for sock in socks:
        poll.register(sock, select.POLLIN)
    ended = {descriptor for descriptor, _ in poll.poll(0)}
    return [sock for sock in socks if sock.fileno() not in ended]


@pytest.mark.parametrize("what", ["a byte", "a request", "the end", "a reset"])
def test_data_that_arrives_on_a_connection_while_it_is_evicted_is_harmless(
    server: Running, small: str, what: str
) -> None:
    """The worker sees the data in the same batch of events as the connections that cause the eviction."""
    (worker,) = server.workers()
    with ExitStack() as stack:
        idle = [stack.enter_context(connected(server.url)) for _ in range(CONNECTIONS)]
        wait_until(lambda: client_connections(worker, _port(server)) > 0.8 * CONNECTIONS)
        for _ in range(10):
            idle += [stack.enter_context(connected(server.url)) for _ in range(12)]  # the table is full again
            idle[-1].sendall(_request("/healthz"))
            assert read_response(idle[-1]).status == 200
            idle = _still_open(idle)
            os.kill(worker, signal.SIGSTOP)
            try:
                new = [stack.enter_context(connected(server.url)) for _ in range(5)]
                for sock in idle[:10]:
                    _do(sock, what, small)
                new += [stack.enter_context(connected(server.url)) for _ in range(5)]
            finally:
                os.kill(worker, signal.SIGCONT)
            new[-1].sendall(_request("/healthz"))
            assert read_response(new[-1]).status == 200
            idle = idle[10:] if what == "a reset" else idle
        assert len(_still_open(idle)) <= CONNECTIONS, "no connection was dropped"
    assert _seconds_for(server, small) < SOON
    assert server.workers() == [worker]
    assert "Traceback" not in server.log
    wait_until(lambda: client_connections(worker, _port(server)) <= 1)


def _do(sock: socket.socket, what: str, path: str) -> None:
    if what == "the end":
        sock.shutdown(socket.SHUT_WR)
    elif what == "a reset":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        sock.close()
    else:
        sock.sendall(b"G" if what == "a byte" else _request(path))


PREFLIGHT = (f"Origin: {ORIGIN}", "Access-Control-Request-Method: POST")
UNSENT = {
    "HEAD": ("HEAD", ["Content-Length: 10"]),
    "GET": ("GET", ["Content-Length: 10"]),
    "GET, large": ("GET", ["Content-Length: 1000000"]),
    "GET, chunked": ("GET", ["Transfer-Encoding: chunked"]),
    "HEAD, chunked": ("HEAD", ["Transfer-Encoding: chunked"]),
    "GET, expecting": ("GET", ["Content-Length: 10", "Expect: 100-continue"]),
    "preflight": ("OPTIONS", ["Content-Length: 10", *PREFLIGHT]),
    "preflight, chunked": ("OPTIONS", ["Transfer-Encoding: chunked", *PREFLIGHT]),
}


@pytest.mark.parametrize("how", UNSENT)
def test_unsent_bodies_occupy_no_thread(server: Running, small: str, how: str) -> None:
    """There are three per thread. Their requests need no body."""
    method, lines = UNSENT[how]
    _expect_answers_beside(server, [_request(small, *lines, method=method)] * (3 * THREADS), small)


def test_500_unsent_bodies_delay_no_other_client(server: Running, small: str) -> None:
    unsent = [_request(small, *lines, method=method) for method, lines in UNSENT.values()]
    _expect_answers_beside(server, (unsent * 63)[:500], small)


WANTED = {
    "upload": _request("/api/images", "Content-Type: image/png", "Content-Length: 100000", method="POST"),
    "upload, begun": _request(
        "/api/images", "Content-Type: image/png", "Content-Length: 100000", method="POST"
    )
    + b"x" * 16_384,
    "upload, expecting": _request(
        "/api/images", "Content-Type: image/png", "Content-Length: 9", "Expect: 100-continue", method="POST"
    ),
    "upload, chunked": _request(
        "/api/images", "Content-Type: image/png", "Transfer-Encoding: chunked", method="POST"
    ),
    "prompt": _request(
        "/api/generate-image", "Content-Type: application/json", "Content-Length: 1000", method="POST"
    ),
}


@pytest.mark.parametrize("how", WANTED)
def test_500_unsent_uploads_delay_no_other_client(server: Running, small: str, how: str) -> None:
    """Uploads wait for their bodies, but other requests don't wait for the uploads."""
    _expect_answers_beside(server, [WANTED[how]] * 500, small)


def _expect_answers_beside(server: Running, requested: list[bytes], path: str) -> None:
    with ExitStack() as stack:
        for request in requested:
            stack.enter_context(connected(server.url)).sendall(request)
        took = {other: _seconds_for(server, other) for other in ("/healthz", "/", path)}
        assert max(took.values()) < SOON, took


class Reader(threading.Thread):
    """Reads an image at 200 KB per second until `hurry` is set. `data` contains the received bytes."""

    def __init__(self, sock: socket.socket, length: int) -> None:
        super().__init__()
        self._sock = sock
        self._length = length
        self.hurry = threading.Event()
        self.data = b""

    def run(self) -> None:
        """Read until the image is complete or the connection is closed."""
        while len(self.data) < self._length and (piece := self._sock.recv(20_000)):
            self.data += piece
            self.hurry.wait(0.1)


def test_clients_that_read_nothing_do_not_block_others(server: Running, small: str, large: str) -> None:
    """They use all connections of the worker. A client that reads slowly is not evicted."""
    whole = requests.get(server.url + large, timeout=60).content
    (worker,) = server.workers()
    with ExitStack() as stack:
        honest = stack.enter_context(connected(server.url, receive_buffer=65_536))
        honest.sendall(_request(large, "Connection: close"))
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += honest.recv(1)
        reader = Reader(honest, len(whole))
        reader.start()
        stack.callback(reader.join)
        stack.callback(reader.hurry.set)
        for _ in range(CONNECTIONS - 1):
            sock = stack.enter_context(connected(server.url, receive_buffer=4096))
            sock.sendall(_request(large))
        wait_until(lambda: client_connections(worker, _port(server)) > CONNECTIONS // 2)
        ends = time.monotonic() + 12
        took = []
        while time.monotonic() < ends:
            took += [_seconds_for(server, small), _seconds_for(server, "/healthz")]
            time.sleep(0.2)
        assert reader.is_alive()
        reader.hurry.set()
        reader.join(60)
        assert max(took) < SOON, took
        assert reader.data == whole
    assert "Traceback" not in server.log
