"""Tests of the worker with slow, unusual and hostile clients."""

import json
import os
import resource
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from tests.pictures import long_png, noise
from tests.server.raw import RawResponse, connected, read_response
from tests.server.running import GUNICORN, Running, answers, running
from tests.waiting import wait_until

THREADS = 2
HIT = "s3-image-server; hit"

SOON = 9.0
"""Seconds. A client that sends nothing would block a thread for ten. A hit never takes this long."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Start a server with one worker and two threads. If both threads are blocked, only hits are answered."""
    directory = tmp_path_factory.mktemp("worker")
    with running(directory, WEB_CONCURRENCY="1", THREADS=str(THREADS), MAX_UPLOAD_BYTES="64MiB") as started:
        yield started


@pytest.fixture(scope="module")
def image(server: Running) -> str:
    """Return the path of a cached image."""
    return str(urlsplit(_upload(server, noise(1))["image_url"]).path)


@pytest.fixture(scope="module")
def big(server: Running) -> tuple[str, bytes]:
    """Return the path and the bytes of a cached image of 12 MB, which is more than the kernel buffers."""
    path = urlsplit(_upload(server, long_png(2))["image_url"]).path
    return path, requests.get(server.url + path, timeout=60).content


def _upload(server: Running, data: bytes) -> dict[str, Any]:
    answer = requests.post(f"{server.url}/api/images", files={"image": data}, timeout=60)
    return dict(answer.json())


def _get(path: str, *lines: str, method: str = "GET") -> bytes:
    return "\r\n".join((f"{method} {path} HTTP/1.1", "Host: x", *lines, "", "")).encode("latin-1")


def _ask(server: Running, request: bytes, *, head_only: bool = False) -> RawResponse:
    with connected(server.url) as sock:
        sock.sendall(request)
        return read_response(sock, head_only=head_only)


def _wait_until_answered(sock: socket.socket) -> None:
    """Wait until the response begins, but read nothing."""
    assert sock.recv(1, socket.MSG_PEEK)


@contextmanager
def _hard_limit(directory: Path, files: int) -> Iterator[Path]:
    """Start gunicorn through a shell that lowers the hard limit on open files."""
    shell = directory / "gunicorn"
    shell.write_text(f'#!/bin/sh\nulimit -n {files}\nexec {GUNICORN[0]} "$@"\n', encoding="utf-8")
    shell.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.server.running.GUNICORN", [str(shell), *GUNICORN[1:]])
        yield directory


def _seconds_for_a_hit(server: Running, path: str) -> float:
    began = time.monotonic()
    answer = _ask(server, _get(path))
    assert (answer.status, answer.headers["cache-status"]) == (200, HIT)
    return time.monotonic() - began


CONDITIONS = {
    "plain": [],
    "keep-alive": ["Connection: keep-alive"],
    "close": ["Connection: close"],
    "if-none-match": ["If-None-Match: *"],
    "if-none-match-other": ['If-None-Match: "other"'],
    "if-modified-since": ["If-Modified-Since: Sun, 01 Jan 2090 00:00:00 GMT"],
    "if-match-fails": ['If-Match: "other"'],
    "if-unmodified-since-fails": ["If-Unmodified-Since: Sun, 01 Jan 2006 00:00:00 GMT"],
    "date-nonsense": ["If-Modified-Since: yesterday"],
    "origin": ["Origin: https://example.org"],
    "repeated": ["X-Some: 1", "X-Some: 2"],
}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("lines", CONDITIONS.values(), ids=CONDITIONS.keys())
def test_the_loop_and_threads_give_the_same_response(
    server: Running, image: str, method: str, lines: list[str]
) -> None:
    """A request with a query is answered by a thread, with the same application."""
    by_loop = _ask(server, _get(image, *lines, method=method), head_only=method == "HEAD")
    by_thread = _ask(server, _get(image + "?x", *lines, method=method), head_only=method == "HEAD")
    for answer in (by_loop, by_thread):
        answer.headers.pop("date")
        assert len(answer.headers.pop("x-request-id")) == 16
    assert by_loop == by_thread


def test_hits_are_served_while_all_threads_wait(server: Running, image: str) -> None:
    """Uploads whose bodies are never sent occupy all threads."""
    post = (
        b"POST /api/images HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 9000\r\n\r\nabc"
    )
    with ExitStack() as stack:
        for _ in range(THREADS + 1):
            stack.enter_context(connected(server.url)).sendall(post)
        time.sleep(0.3)
        assert max(_seconds_for_a_hit(server, image) for _ in range(20)) < SOON


HEALTHZ = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
LONG_HEAD = b"GET / HTTP/1.1\r\n" + b"".join(b"A%d: %s\r\n" % (number, b"x" * 7000) for number in range(10))


@pytest.mark.parametrize(
    "sent", [b"POST /api/images HTTP/1.1\r\nHost:", HEALTHZ + b"GET /h", LONG_HEAD, b"\r\n"]
)
def test_heads_that_never_end_occupy_no_thread(server: Running, image: str, sent: bytes) -> None:
    with ExitStack() as stack:
        slow = [stack.enter_context(connected(server.url)) for _ in range(40)]
        for sock in slow:
            sock.sendall(sent)
        if sent.startswith(HEALTHZ):
            assert {read_response(sock).status for sock in slow} == {200}
        assert _seconds_for_a_hit(server, image) < SOON
        assert requests.get(f"{server.url}/healthz", timeout=25).ok


@pytest.mark.parametrize("sent", [HEALTHZ, _get("/healthz", "Content-Length: 3") + b"abc"])
def test_a_request_that_begins_in_the_packet_of_another_is_answered_when_complete(
    server: Running, image: str, sent: bytes
) -> None:
    with connected(server.url) as sock:
        sock.sendall(sent + _get(image)[:7])
        assert read_response(sock).status == 200
        sock.sendall(_get(image)[7:] + sent[:5])
        assert read_response(sock).headers["cache-status"] == "s3-image-server; hit"
        sock.sendall(sent[5:])
        assert read_response(sock).status == 200


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (LONG_HEAD, 431),
        (b"GET / HTTP/1.1\nHost: x\n\n", 400),
        (b"\r\n\r\nGET /", 400),
        (b"GET /healthz HTTP/1.1\r\n\r\n", 400),
    ],
)
def test_an_invalid_head_is_rejected_immediately(server: Running, sent: bytes, status: int) -> None:
    with connected(server.url) as sock:
        sock.sendall(sent)
        answer = read_response(sock)
        assert (answer.status, json.loads(answer.body)["success"]) == (status, False)
        assert sock.recv(1) == b""


def test_a_hit_requires_a_host_header(server: Running, image: str) -> None:
    """RFC 9112, 3.2, requires it, but HTTP/1.0 does not."""
    for version, status in (("1.1", 400), ("1.0", 200)):
        with connected(server.url) as sock:
            sock.sendall(f"GET {image} HTTP/{version}\r\n\r\n".encode())
            assert read_response(sock).status == status


def test_clients_that_do_not_close_delay_no_other_client(server: Running, image: str) -> None:
    """The server waits two seconds for each client to close the connection, without blocking the loop."""
    with ExitStack() as stack:
        lingering = [stack.enter_context(connected(server.url)) for _ in range(10)]
        for sock in lingering:
            sock.sendall(_get("/healthz", "Connection: close"))
        assert max(_seconds_for_a_hit(server, image) for _ in range(5)) < SOON
        assert {read_response(sock).status for sock in lingering} == {200}
        assert max(_seconds_for_a_hit(server, image) for _ in range(5)) < SOON


def test_disconnected_clients_leave_nothing_open(server: Running, big: tuple[str, bytes]) -> None:
    descriptors = Path(f"/proc/{server.workers()[0]}/fd")
    before = len(list(descriptors.iterdir()))
    for _ in range(30):
        with connected(server.url, receive_buffer=4096) as sock:
            sock.sendall(_get(big[0]))
            sock.recv(100)
    wait_until(lambda: len(list(descriptors.iterdir())) <= before + 2)


def test_a_worker_survives_running_out_of_file_descriptors(server: Running, image: str) -> None:
    worker = server.workers()[0]
    limits = resource.prlimit(worker, resource.RLIMIT_NOFILE)
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (60, limits[1]))
    with ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(connected(server.url)).sendall(_get(image))
        time.sleep(1)
    resource.prlimit(worker, resource.RLIMIT_NOFILE, limits)
    time.sleep(1.5)
    assert _seconds_for_a_hit(server, image) < SOON
    assert server.workers() == [worker]
    assert "Traceback" not in server.log


def test_a_head_can_arrive_in_pieces(server: Running, image: str) -> None:
    with connected(server.url) as sock:
        for byte in _get(image):
            sock.sendall(bytes([byte]))
        assert read_response(sock).headers["cache-status"] == HIT


def test_one_connection_serves_hits_and_other_requests_in_turn(server: Running, image: str) -> None:
    """This includes pipelined requests, which a thread answers."""
    with connected(server.url) as sock:
        sock.sendall(_get(image) + _get("/healthz") + _get(image))
        statuses = [read_response(sock).status for _ in range(3)]
        sock.sendall(_get("/healthz"))
        statuses.append(read_response(sock).status)
        sock.sendall(_get(image))
        assert [*statuses, read_response(sock).status] == [200] * 5


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["Bad Name: 1"], 400),
        (["Bad: a\0b"], 400),
        (["Folded: a", " b"], 400),
        ([f"Long: {'a' * 9000}"], 431),
        ([f"Long: {'a' * 70_000}"], 431),
        ([f"N{n}: 1" for n in range(150)], 431),
        (["Transfer-Encoding: nonsense"], 501),
        (["Content-Length: -1"], 400),
        (["Content-Length: 3", "Transfer-Encoding: chunked"], 400),
    ],
)
def test_an_invalid_request_is_rejected_and_the_connection_closed(
    server: Running, image: str, lines: list[str], status: int
) -> None:
    with connected(server.url) as sock:
        sock.sendall(_get(image, *lines))
        answer = read_response(sock)
        assert (answer.status, answer.headers["connection"]) == (status, "close")
        assert answer.headers["content-type"] == "application/json"
        assert not sock.recv(1)


def test_the_body_of_a_get_is_not_parsed_as_a_request(server: Running, image: str) -> None:
    with connected(server.url) as sock:
        sock.sendall(_get(image, "Content-Length: 5") + b"GET /x")
        assert read_response(sock).status == 200
        sock.sendall(b" HTTP/1.1\r\nHost: x\r\n\r\n")
        assert read_response(sock).status == 400, (
            "the next request line begins after the five bytes of the body, with 'x'"
        )


def test_a_file_truncated_while_it_is_sent_ends_the_connection(server: Running) -> None:
    """A missing image is better than one with wrong bytes."""
    answer = _upload(server, long_png(3))
    file = server.log_path.parent / "cache" / "objects" / answer["key"]
    with connected(server.url, receive_buffer=4096) as sock:
        sock.sendall(_get(urlsplit(answer["image_url"]).path))
        _wait_until_answered(sock)
        os.truncate(file, 1000)
        with pytest.raises(EOFError):
            read_response(sock)


def test_a_stopping_worker_finishes_a_download(tmp_path: Path) -> None:
    with running(tmp_path, WEB_CONCURRENCY="1", MAX_UPLOAD_BYTES="64MiB") as server:
        answer = _upload(server, long_png(4))
        with connected(server.url) as idle, connected(server.url, receive_buffer=4096) as sock:
            sock.sendall(_get(urlsplit(answer["image_url"]).path))
            _wait_until_answered(sock)  # so the earlier connection has been accepted too
            server.process.send_signal(signal.SIGTERM)
            time.sleep(2.5)
            assert len(read_response(sock).body) == answer["bytes"]
            assert not idle.recv(1)
        server.process.wait(40)


def test_idle_connections_make_room_for_new_ones(tmp_path: Path) -> None:
    few = "--worker-connections 40"
    with running(tmp_path, WEB_CONCURRENCY="1", GUNICORN_CMD_ARGS=few) as server, ExitStack() as stack:
        silent = [stack.enter_context(connected(server.url)) for _ in range(100)]
        assert requests.get(f"{server.url}/healthz", timeout=25).ok
        silent[-1].sendall(HEALTHZ)
        assert read_response(silent[-1]).status == 200


def test_a_low_limit_on_open_files_lowers_the_number_of_connections(tmp_path: Path) -> None:
    """If there were more connections than files, the cache would seem to fail."""
    with ExitStack() as stack:
        directory = stack.enter_context(_hard_limit(tmp_path, 286))
        server = stack.enter_context(running(directory, WEB_CONCURRENCY="1"))
        assert "A worker can have only 10 connections instead of 1000" in server.log
        for _ in range(30):
            stack.enter_context(connected(server.url)).sendall(HEALTHZ[:-2])
        assert requests.get(f"{server.url}/healthz", timeout=25).ok
        assert len(list(Path(f"/proc/{server.workers()[0]}/fd").iterdir())) < 100


@pytest.mark.parametrize("options", ["--max-requests 20", "--max-requests 20 --workers 2"])
def test_no_connection_fails_while_a_worker_is_replaced(tmp_path: Path, options: str) -> None:
    """Connections wait for the next worker."""
    with running(tmp_path, WEB_CONCURRENCY="1", GUNICORN_CMD_ARGS=options) as server:
        before = server.workers()
        for _ in range(60):
            assert requests.get(f"{server.url}/healthz", timeout=60).ok
        assert server.workers() != before


def test_the_minimum_number_of_connections_is_sufficient(tmp_path: Path) -> None:
    with running(tmp_path, WEB_CONCURRENCY="1", GUNICORN_CMD_ARGS="--worker-connections 1") as server:
        assert {requests.get(f"{server.url}/docs", timeout=60).status_code for _ in range(100)} == {200}


def _listens(pid: int) -> bool:
    """Return whether the process holds a listening socket."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]]
    listening = {f"socket:[{line[9]}]" for line in lines if line[3] == "0A"}
    return any(str(link.readlink()) in listening for link in Path(f"/proc/{pid}/fd").iterdir())


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_stopping_worker_accepts_no_new_connections(tmp_path: Path, number: signal.Signals) -> None:
    """A slow reader keeps the old worker alive, but new connections must go to other workers."""
    with running(tmp_path, WEB_CONCURRENCY="1", MAX_UPLOAD_BYTES="64MiB") as server, ExitStack() as stack:
        path = urlsplit(_upload(server, long_png(4))["image_url"]).path
        (old,) = server.workers()
        sock = stack.enter_context(connected(server.url, receive_buffer=4096))
        sock.sendall(_get(path))
        assert sock.recv(1)
        assert _listens(old)
        server.process.send_signal(number)
        wait_until(lambda: not _listens(old), seconds=20)
        assert old in server.workers()
        if number is signal.SIGHUP:
            wait_until(lambda: answers(server.url))
            assert all(requests.get(f"{server.url}/healthz", timeout=25).ok for _ in range(60))
