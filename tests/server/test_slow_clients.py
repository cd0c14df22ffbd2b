"""Tests of clients that send slowly to a server that has two workers with eight threads each."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest
import requests

from tests.pictures import noise
from tests.server.running import Running, running

SIXTEEN = 16
"""The total number of threads of the server."""

_UPLOAD = b"POST /api/images HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
LENGTH = _UPLOAD + b"Content-Length: 1000000\r\n\r\n"
CHUNKED = _UPLOAD + b"Transfer-Encoding: chunked\r\n\r\nfffff\r\n"
JSON = (
    b"POST /api/generate-image HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: 100000\r\n\r\n"
)
REFUSED = LENGTH.replace(b"localhost", b"images.example.org")
"""The host name is foreign and there is no key, so the response is 401, whatever the body is."""
REFUSED_SHORT = REFUSED.replace(b"1000000", b"1000")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Start a server that has two workers with eight threads each."""
    with running(tmp_path_factory.mktemp("slow"), WEB_CONCURRENCY="2", THREADS="8") as started:
        yield started


class Trickler:
    """A connection that sends a head immediately, and then a byte every tenth of a second."""

    def __init__(self, url: str, head: bytes) -> None:
        host, port = url.removeprefix("http://").split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=60)
        self.socket.sendall(head)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._trickle)
        self._thread.start()

    def _trickle(self) -> None:
        try:
            while not self._stop.wait(0.1):
                self.socket.sendall(b"0")
        except OSError:
            pass  # the server has dropped the connection

    def answer(self) -> bytes:
        """Return the response of the server, or b"" if there is none."""
        answer = b""
        with suppress(ConnectionError):
            while b"}" not in answer and (data := self.socket.recv(10_000)):
                answer += data
        return answer

    def close(self) -> None:
        """Stop sending and close the connection."""
        self._stop.set()
        self._thread.join()
        self.socket.close()


@contextmanager
def trickling(url: str, head: bytes, count: int = SIXTEEN) -> Iterator[list[Trickler]]:
    """Run this number of tricklers during the block."""
    with ExitStack() as stack:
        tricklers = [Trickler(url, head) for _ in range(count)]
        for trickler in tricklers:
            stack.callback(trickler.close)
        yield tricklers


def _upload(url: str, number: int) -> requests.Response:
    return requests.post(f"{url}/api/images", files={"image": ("a.png", noise(number))}, timeout=60)


def _upload_with_retries(url: str, number: int) -> requests.Response:
    """Upload an image. Retry while the server is busy, which it is until slow clients have been dropped."""
    while (answer := _upload(url, number)).status_code == 503:
        time.sleep(0.1)  # the test checks how long that takes
    return answer


@pytest.mark.parametrize("head", [LENGTH, CHUNKED, JSON, REFUSED, REFUSED_SHORT])
def test_slow_uploads_delay_neither_hits_nor_other_uploads(server: Running, head: bytes) -> None:
    """Even if no other request were waiting, such a slow client would be dropped after ten seconds."""
    url = _upload(server.url, 1).json()["image_url"]
    took = []
    with trickling(server.url, head):
        time.sleep(0.5)
        for number in range(20):
            began = time.monotonic()
            assert requests.get(url, timeout=60).status_code == 200
            middle = time.monotonic()
            assert _upload_with_retries(server.url, number).status_code in (200, 201)
            took += [middle - began, time.monotonic() - middle]
            time.sleep(0.1)
    assert max(took) < 9, took
    assert sorted(took)[len(took) // 2] < 1.5, took


@pytest.mark.parametrize("head", [LENGTH, CHUNKED, JSON])
def test_a_slow_upload_is_dropped_even_if_no_other_request_waits(server: Running, head: bytes) -> None:
    began = time.monotonic()
    with trickling(server.url, head, 1) as (trickler,):
        answer = trickler.answer()
    assert 9 < time.monotonic() - began < 40
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"request_timeout"' in answer


def test_a_slow_but_steady_upload_is_stored(server: Running) -> None:
    """It sends 32 KiB per second, for longer than the grace period."""
    body = noise(99, (400, 300))
    head = _UPLOAD + f"Content-Length: {len(body)}\r\n\r\n".encode()
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(head)
        for start in range(0, len(body), 8192):
            connection.sendall(body[start : start + 8192])
            time.sleep(0.25)
        assert connection.recv(20).startswith(b"HTTP/1.1 201")


def test_no_traceback_is_logged(server: Running) -> None:
    assert "Traceback" not in server.log
