"""Tests of request smuggling. An ambiguous request is rejected and the connection is closed."""

from collections.abc import Iterator

import pytest

from tests.server.raw import connected, read_response
from tests.server.running import Running, running

SECOND = b"DELETE /api/images/a.png HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Start a server with one worker."""
    with running(tmp_path_factory.mktemp("smuggling"), WEB_CONCURRENCY="1") as started:
        yield started


@pytest.mark.parametrize(
    "lines",
    [
        [b"Content-Length: 3", b"Transfer-Encoding: chunked"],
        [b"Transfer-Encoding: chunked", b"Content-Length: 3"],
        [b"Content-Length: 3", b"Content-Length: 4"],
        [b"Content-Length: 3, 4"],
        [b"Content-Length: +3"],
        [b"Content-Length: 0x3"],
        [b"Content-Length: 3 3"],
        [b"Content-Length : 3"],
        [b"Content-Length:\x0b3"],
        [b" Content-Length: 3"],
        [b"Transfer-Encoding : chunked"],
        [b"Transfer-Encoding: xchunked"],
        [b"Transfer-Encoding: chunked, identity"],
        [b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"],
        [b"Transfer-Encoding:\x0bchunked"],
        [b"Transfer-Encoding: identity,\r\n chunked"],
        [b"X: a\rTransfer-Encoding: chunked"],
        [b"X: a\0b"],
    ],
)
@pytest.mark.parametrize("path", [b"/api/images", b"/healthz"])
def test_an_ambiguous_length_is_rejected(server: Running, path: bytes, lines: list[bytes]) -> None:
    head = b"\r\n".join((b"POST " + path + b" HTTP/1.1", b"Host: localhost", *lines))
    with connected(server.url) as sock:
        sock.sendall(head + b"\r\n\r\n0\r\n\r\n" + SECOND)
        answer = read_response(sock)
        assert answer.status in (400, 501), answer
        assert answer.headers["connection"] == "close"
        assert not sock.recv(1)


@pytest.mark.parametrize(
    "line",
    [
        b"get /healthz HTTP/1.1",
        b"GET /healthz HTTP/1.1 ",
        b"GET  /healthz HTTP/1.1",
        b"GET /healthz HTTP/2.0",
    ],
)
def test_an_invalid_request_line_is_rejected(server: Running, line: bytes) -> None:
    with connected(server.url) as sock:
        sock.sendall(line + b"\r\nHost: localhost\r\n\r\n")
        assert read_response(sock).status == 400


def test_a_header_with_underscores_is_not_one_with_hyphens(server: Running) -> None:
    """Otherwise X_Forwarded_For would get past a proxy that removes the X-Forwarded-For of clients."""
    with connected(server.url) as sock:
        sock.sendall(b"GET /api/images HTTP/1.1\r\nHost: localhost\r\nX_Forwarded_For: 192.0.2.1\r\n\r\n")
        assert read_response(sock).status == 200
