"""Replaces `wsgi.input`: reading the first byte takes a place, and slow clients are dropped."""

import io
from contextlib import suppress
from typing import TYPE_CHECKING

from app.errors import BadRequest, SlowClient
from app.intake.places import Places
from app.intake.reader import Reader
from app.parking import parked

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from _typeshed.wsgi import WSGIEnvironment

_SMALL = 128 * 1024
"""A body of at most so many bytes gives its place back on arrival: drawing a prompt may take a minute."""

_PIECE = 64 * 1024
"""Most bytes read in one call: the client's progress is seen only between calls."""


class WatchedBody(io.RawIOBase):
    """A request's body, which takes one of `places` when it is first read. The thread is parked meanwhile.

    Reading raises `Busy` if there is no place, `SlowClient` if the client is dropped, and `BadRequest` if the
    body ends early.
    """

    def __init__(self, environ: "WSGIEnvironment", places: Places) -> None:
        length = environ.get("CONTENT_LENGTH") or ""
        self._body = environ["wsgi.input"]
        self._left = int(length) if length.isdecimal() else None
        self._places = places
        self._reader = Reader(environ.get("gunicorn.socket"))
        self._begun = False

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        """Read some bytes; 0 at the end."""
        view = memoryview(buffer)
        with parked():
            if not self._begun:
                self._begun = True
                self._places.enter(self._reader)
            data = self._piece(len(view))
        view[: len(data)] = data
        return len(data)

    def leave(self) -> None:
        """Give the place back, without waiting for the rest of the body: the server discards it."""
        self._places.leave(self._reader)
        if self._reader.given_up:
            with suppress(AttributeError):  # servers other than gunicorn have other bodies
                self._body.failed = True  # to be closed: what may still come would be taken for a request

    def _piece(self, size: int) -> bytes:
        size = min(size, _PIECE) if self._left is None else min(size, _PIECE, self._left)
        try:
            data: bytes = self._body.read(size) if size else b""
        except Exception as exc:
            if self._reader.given_up:
                raise SlowClient from exc
            raise
        if self._reader.given_up:
            raise SlowClient
        self._note(data, size)
        if len(data) < size and self._left is not None:  # RFC 9112, 6.3: it is not to be acted on
            raise BadRequest("The request's body ended before it was whole.")
        return data

    def _note(self, data: bytes, size: int) -> None:
        self._reader.received(len(data))
        if self._left is not None:
            self._left -= len(data)
        self._reader.complete = not self._left if self._left is not None else len(data) < size
        if self._reader.complete and self._reader.total <= _SMALL:
            self._places.leave(self._reader)
