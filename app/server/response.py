"""A variant of gunicorn's response that does not block, and the part of an answer still to be sent."""

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

_MORE = getattr(socket, "MSG_MORE", 0)
"""Lets the kernel put the head and the file's beginning into one packet, if it knows how (Linux)."""

_AT_ONCE = 4 * 1024 * 1024
"""Bytes sent to one fast client before the other connections have their turn."""

_READ_AT_ONCE = 256 * 1024

_unsendable: set[int] = set()
"""The devices (stat(2)) whose files the kernel does not send by itself: they are read and written instead."""

_log = logging.getLogger(__name__)


class Sending:
    """Sends `head`, then `count` bytes of the open `file` from `offset` on.

    `sent` is how many bytes the kernel has accepted.
    """

    def __init__(self, head: bytes, file: int = -1, offset: int = 0, count: int = 0) -> None:
        self._head = memoryview(head)
        self._file = file
        self._offset = offset
        self._left = count
        self._reads = bool(_unsendable) and count > 0 and os.fstat(file).st_dev in _unsendable
        self.sent = 0

    def go_on(self, sock: socket.socket) -> bool:
        """Send what the socket accepts, a few megabytes at most; return whether nothing is left.

        Raises `OSError` if the client is gone, or if the file is shorter than announced.
        """
        pause = self.sent + _AT_ONCE
        try:
            while self._head:
                count = sock.send(self._head, _MORE if self._left else 0)
                self._head = self._head[count:]
                self.sent += count
            while self._left and self.sent < pause:
                count = self._send_read(sock) if self._reads else self._send_file(sock)
                if not count:
                    raise OSError("the file has been cut")
                self._offset += count
                self._left -= count
                self.sent += count
        except BlockingIOError:
            return False
        return not self._left

    def _send_file(self, sock: socket.socket) -> int:
        """Have the kernel send from the file; return how many bytes, 0 at the file's end.

        With files of which the kernel has no pages (some of FUSE, /proc) sendfile(2) sends nothing either.
        """
        try:
            count = os.sendfile(sock.fileno(), self._file, self._offset, min(self._left, _AT_ONCE))
            return count or self._send_read(sock)
        except OSError as exc:
            if exc.errno not in REFUSED:
                raise
            self._reads = True
            device = os.fstat(self._file).st_dev
            if device not in _unsendable:
                _unsendable.add(device)
                _log.warning("sendfile(2) is refused, images are read and written instead: %s", exc.strerror)
            return self._send_read(sock)

    def _send_read(self, sock: socket.socket) -> int:
        piece = os.pread(self._file, min(self._left, _READ_AT_ONCE), self._offset)
        return sock.send(piece) if piece else 0


class LoopResponse(Response):  # type: ignore[misc]
    """Returns what to send instead of sending it, with `request_id` among the headers."""

    request_id = ""

    def sending(self, body: Any) -> Sending | None:
        """Return the whole answer, given what the application returned; None if it has to be streamed."""
        if self._omits_body:
            return Sending(self._head())
        if self.response_length is None:
            return None
        if not isinstance(body, FileWrapper):
            return Sending(self._head() + b"".join(body))
        if not has_fileno(body.filelike):
            return None
        file = body.filelike.fileno()
        return Sending(self._head(), file, os.lseek(file, 0, os.SEEK_CUR), self.response_length)

    def stream(self, body: Iterable[bytes]) -> None:
        """Send `body` piece by piece. Raises `OSError` if the client is too slow or gone."""
        for piece in body:
            self.write(piece)
        self.close()

    def process_headers(self, headers: Iterable[tuple[str, str]]) -> None:
        """Check and keep headers as gunicorn does. Results are cached: hits repeat the same few headers."""
        for name, value in headers:
            kept, length, upgrade = _checked(name, value)
            self.headers += kept
            if length is not None:
                self.response_length = length
            if upgrade:
                self.upgrade = True

    def default_headers(self) -> list[str]:
        """Return gunicorn's own headers, and the request's id."""
        lines: list[str] = super().default_headers()
        lines.append(f"{REQUEST_ID_HEADER}: {self.request_id}\r\n")
        return lines

    def _head(self) -> bytes:
        lines = self.default_headers()
        lines += [f"{name}: {value}\r\n" for name, value in self.headers]
        return ("".join(lines) + "\r\n").encode("latin-1")


@dataclass(slots=True)
class Exchange:
    """A request and its answer; `sending` is what is left to send, None if the answer must be streamed."""

    request: Any
    environ: dict[str, Any]
    response: LoopResponse
    body: Any
    sending: Sending | None
    began: datetime
    log: Any

    def end(self) -> None:
        """Close the body and log the request, even if the client has gone."""
        close_body(self.body)
        self.log.access(self.response, self.request, self.environ, datetime.now() - self.began)


def close_body(body: Any) -> None:
    """Close what an application returned, if it can be closed (PEP 3333)."""
    if hasattr(body, "close"):
        body.close()


@lru_cache(maxsize=1024)
def _checked(name: str, value: str) -> tuple[list[tuple[str, str]], int | None, bool]:
    """Return a header as gunicorn would send it, the length it gives, and whether it is an upgrade."""
    alone = Response.__new__(Response)
    alone.headers, alone.response_length, alone.upgrade = [], None, False
    alone.process_headers([(name, value)])
    return alone.headers, alone.response_length, alone.upgrade
