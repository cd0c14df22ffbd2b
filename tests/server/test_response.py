"""Tests of the worker's response class, which treats headers like gunicorn's class and sends files."""

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.http.wsgi import Response

from app.server import response as response_module
from app.server.response import LoopResponse, Sender

_REQUEST = SimpleNamespace(method="GET", version=(1, 1))

Headers = list[tuple[Any, Any]]


def _started(kind: type[Any], headers: Headers) -> dict[str, Any]:
    response = kind(_REQUEST, None, Config())
    response.start_response("200 OK", headers)
    return {name: value for name, value in vars(response).items() if name != "cfg"}


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("Content-Type", "image/png"), ("Content-Length", "12"), ("ETag", '"a"')],
        [("Content-Length", "12"), ("Content-Length", "13")],
        [("X-A", " b\t"), ("x-a", "c"), ("X-A", "")],
        [("Connection", "close"), ("Transfer-Encoding", "chunked"), ("X-A", "b")],
        [("Connection", "Upgrade"), ("Upgrade", "WebSocket")],
        [("Upgrade", "h2c")],
    ],
)
def test_headers_are_processed_as_gunicorn_does(headers: Headers) -> None:
    expected = _started(Response, headers)
    assert _started(LoopResponse, headers) == expected
    assert _started(LoopResponse, headers) == expected


@pytest.mark.parametrize(
    "header",
    [
        ("X A", "b"),
        ("", "b"),
        ("X-A", "b\r\nX-B: c"),
        ("X-A", 1),
        (b"X-A", "b"),
        ("Content-Length", "x"),
        ("X-A", []),
    ],
)
def test_an_invalid_header_is_rejected_as_gunicorn_does(header: tuple[Any, Any]) -> None:
    kinds = set()
    for response in (Response, LoopResponse, LoopResponse):
        with pytest.raises(Exception) as refused:  # noqa: PT011 (whatever gunicorn raises)
            _started(response, [("X-Good", "a"), header])
        kinds.add(refused.type)
    assert len(kinds) == 1


DATA = os.urandom(100_000)


@contextmanager
def _file_and_sockets(directory: Path) -> Iterator[tuple[int, socket.socket, socket.socket]]:
    (directory / "file").write_bytes(DATA)
    ours, theirs = socket.socketpair()
    with ours, theirs, (directory / "file").open("rb") as file:
        ours.setblocking(False)
        theirs.settimeout(60)
        yield file.fileno(), ours, theirs


def _send_all(sender: Sender, ours: socket.socket, theirs: socket.socket) -> bytes:
    received = b""
    while not sender.send(ours):
        received += theirs.recv(1 << 20)
    ours.shutdown(socket.SHUT_WR)
    while piece := theirs.recv(1 << 20):
        received += piece
    return received


@pytest.mark.parametrize("error", [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM])
@pytest.mark.parametrize("after", [0, 1])
def test_a_file_is_read_if_sendfile_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int, after: int
) -> None:
    """It is read from the current position to the end. sendfile is not tried again for this device."""
    calls = []

    def sendfile(out: int, file: int, offset: int, count: int) -> int:
        calls.append(count)
        if len(calls) > after:
            raise OSError(error, "not here")
        return os.write(out, os.pread(file, 1000, offset))

    monkeypatch.setattr(response_module, "_devices_without_sendfile", set())
    monkeypatch.setattr(os, "sendfile", sendfile)
    for _ in range(2):
        with _file_and_sockets(tmp_path) as (file, ours, theirs):
            sender = Sender(b"head", file, 7, len(DATA) - 7)
            assert _send_all(sender, ours, theirs) == b"head" + DATA[7:]
            assert sender.sent == 4 + len(DATA) - 7
    assert len(calls) == after + 1


def test_a_file_is_read_if_sendfile_sends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sendfile", lambda *arguments: 0)
    with _file_and_sockets(tmp_path) as (file, ours, theirs):
        assert _send_all(Sender(b"head", file, 7, len(DATA) - 7), ours, theirs) == b"head" + DATA[7:]
    with (
        _file_and_sockets(tmp_path) as (file, ours, _),
        pytest.raises(OSError, match="shorter than expected"),
    ):
        Sender(b"", file, len(DATA), 1).send(ours)


@pytest.mark.parametrize("error", [errno.EPIPE, errno.ECONNRESET, errno.EIO, errno.ENOTCONN])
def test_a_broken_connection_does_not_disable_sendfile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    def sendfile(*arguments: int) -> int:
        raise OSError(error, "gone")

    monkeypatch.setattr(response_module, "_devices_without_sendfile", set())
    monkeypatch.setattr(os, "sendfile", sendfile)
    with (
        _file_and_sockets(tmp_path) as (file, ours, _),
        pytest.raises(OSError, match="gone"),
    ):
        Sender(b"head", file, 0, len(DATA)).send(ours)
    assert not response_module._devices_without_sendfile
