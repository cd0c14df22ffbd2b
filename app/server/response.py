"""Responses that are sent without blocking. They are based on the response class of gunicorn."""

import logging
import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from gunicorn.http.wsgi import FileWrapper, Response
from gunicorn.util import has_fileno

from app.core.request_context import REQUEST_ID_HEADER
from app.core.system import REFUSED

_MSG_MORE = getattr(socket, "MSG_MORE", 0)
"""The flag that lets Linux send the head and the file's start in one packet. It is 0 on other systems."""

_MAX_BYTES_PER_TURN = 4 * 1024 * 1024
"""Approximate maximum number of bytes that are sent to a fast client before other connections get their
turn."""

_READ_BYTES = 256 * 1024

_devices_without_sendfile: set[int] = set()
"""The devices (`st_dev` in stat(2)) whose files can't be sent with sendfile(2). Such files are read and
written instead."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Exchange:
    """A request and its response. `sender` sends the response, or is None if it must be streamed."""

    request: Any
    environ: dict[str, Any]
    response: "LoopResponse"
    body: Any
    sender: "Sender | None"
    began: datetime
    log: Any

    def end(self) -> None:
        """Close the body and log the request, even if the client has disconnected."""
        close_body(self.body)
        self.log.access(self.response, self.request, self.environ, datetime.now() - self.began)


class LoopResponse(Response):  # type: ignore[misc]
    """A response that returns a `Sender` instead of sending itself. The headers include `request_id`."""

    request_id = ""

    def sender(self, body: Any) -> "Sender | None":
        """Return a sender for the body that the application returned, or None if it must be streamed."""
        if self._omits_body:
            return Sender(self._head())
        if self.response_length is None:
            return None
        if not isinstance(body, FileWrapper):
            return Sender(self._head() + b"".join(body))
        if not has_fileno(body.filelike):
            return None
        file = body.filelike.fileno()
        return Sender(self._head(), file, os.lseek(file, 0, os.SEEK_CUR), self.response_length)

    def stream(self, body: Iterable[bytes]) -> None:
        """Send `body` piece by piece. Raise `OSError` if the client is too slow or has disconnected."""
        for piece in body:
            self.write(piece)
        self.close()

    def process_headers(self, headers: Iterable[tuple[str, str]]) -> None:
        """Check and add headers as gunicorn does. Results are cached, since hits have similar headers."""
        for name, value in headers:
            kept, length, upgrade = _process_header(name, value)
            self.headers += kept
            if length is not None:
                self.response_length = length
            if upgrade:
                self.upgrade = True

    def default_headers(self) -> list[str]:
        """Return the status line, gunicorn's default headers and the header with the request ID."""
        lines: list[str] = super().default_headers()
        lines.append(f"{REQUEST_ID_HEADER}: {self.request_id}\r\n")
        return lines

    def _head(self) -> bytes:
        lines = self.default_headers()
        lines += [f"{name}: {value}\r\n" for name, value in self.headers]
        return ("".join(lines) + "\r\n").encode("latin-1")


@lru_cache(maxsize=1024)
def _process_header(name: str, value: str) -> tuple[list[tuple[str, str]], int | None, bool]:
    """Return what gunicorn makes of a header.

    This is a tuple: the headers to send, the length of the body or None, and whether the header asks for an
    upgrade.
    """
    response = Response.__new__(Response)
    response.headers, response.response_length, response.upgrade = [], None, False
    response.process_headers([(name, value)])
    return response.headers, response.response_length, response.upgrade


class Sender:
    """Sends `head`, and then `count` bytes of the open `file`, beginning at `offset`.

    `sent` is the number of bytes that the kernel has accepted.
    """

    def __init__(self, head: bytes, file: int = -1, offset: int = 0, count: int = 0) -> None:
        self._head = memoryview(head)
        self._file = file
        self._offset = offset
        self._left = count
        self._reads_file = (
            bool(_devices_without_sendfile)
            and count > 0
            and os.fstat(file).st_dev in _devices_without_sendfile
        )
        self.sent = 0

    def send(self, sock: socket.socket) -> bool:
        """Send what the socket accepts, up to a few megabytes. Return whether everything has been sent.

        Raises `OSError` if the client has disconnected, or if the file is shorter than expected.
        """
        pause = self.sent + _MAX_BYTES_PER_TURN
        try:
            while self._head:
                count = sock.send(self._head, _MSG_MORE if self._left else 0)
                self._head = self._head[count:]
                self.sent += count
            while self._left and self.sent < pause:
                count = self._read_and_send(sock) if self._reads_file else self._sendfile(sock)
                if not count:
                    raise OSError("the file is shorter than expected")
                self._offset += count
                self._left -= count
                self.sent += count
        except BlockingIOError:
            return False
        return not self._left

    def _sendfile(self, sock: socket.socket) -> int:
        """Send from the file with sendfile(2). Return the number of bytes, which is 0 at the end of the file.

        sendfile(2) also returns 0 for files that are not in the page cache of the kernel, such as those in
        /proc and in some FUSE file systems. Such files are read and written instead.
        """
        try:
            count = os.sendfile(sock.fileno(), self._file, self._offset, min(self._left, _MAX_BYTES_PER_TURN))
            return count or self._read_and_send(sock)
        except OSError as exc:
            if exc.errno not in REFUSED:
                raise
            self._reads_file = True
            device = os.fstat(self._file).st_dev
            if device not in _devices_without_sendfile:
                _devices_without_sendfile.add(device)
                _log.warning(
                    "sendfile(2) does not work (%s). Images are read and written instead.", exc.strerror
                )
            return self._read_and_send(sock)

    def _read_and_send(self, sock: socket.socket) -> int:
        piece = os.pread(self._file, min(self._left, _READ_BYTES), self._offset)
        return sock.send(piece) if piece else 0


def close_body(body: Any) -> None:
    """Close the body that an application returned, if it has a `close` method (PEP 3333)."""
    if hasattr(body, "close"):
        body.close()
