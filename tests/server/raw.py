"""HTTP over a plain socket, for requests that no client library sends."""

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass
class RawResponse:
    """A response. Header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


@contextmanager
def connected(url: str, *, receive_buffer: int = 0) -> Iterator[socket.socket]:
    """Open a connection to the server of `url`. With a small receive buffer, it soon stops receiving."""
    parts = urlsplit(url)
    with socket.socket() as sock:
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.settimeout(60)
        sock.connect((parts.hostname, parts.port))
        yield sock


def read_response(sock: socket.socket, *, head_only: bool = False) -> RawResponse:
    """Read the next response, which must have a Content-Length, and return it."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = sock.recv(1)
        if not byte:
            raise EOFError(f"the connection ended after {head!r}")
        head += byte
    lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:] if line)}
    status = int(re.split(r"\s", lines[0])[1])
    left = 0 if head_only or status == 304 else int(headers.get("content-length", 0))
    body = bytearray()
    while len(body) < left:
        data = sock.recv(left - len(body))
        if not data:
            raise EOFError(f"{left - len(body)} bytes are missing")
        body += data
    return RawResponse(status, headers, bytes(body))
