"""One request body on its way in: how fast it comes, and how to give it up.

Limits how many requests with a body are under way; if others wait, the slowest is dropped.

Replaces `wsgi.input`: reading the first byte takes a place, and slow clients are dropped.

The WSGI front that stands before every request body.

Request bodies: how many are taken in at once, and that none of them holds a thread for long.
"""

import io
import socket
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

from app.core.errors import BadRequest, Busy, SlowClient
from app.core.thread_pool import blocking

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_GRACE = 10.0
_RATE = 8 * 1024
"""Bytes per second, on the average, after `_GRACE` seconds: a bad mobile line does that."""

_GRACE_UNDER_PRESSURE = 0.5
_RATE_UNDER_PRESSURE = 32 * 1024
"""The same while others wait for its place."""


class Reader:
    """A body that is being received from `connection`, which tests and other servers may not have.

    `total`: bytes so far. `complete`: all of it is here. `given_up`: no more is read.
    """

    def __init__(self, connection: socket.socket | None) -> None:
        self._connection = connection
        self._started = time.monotonic()
        self.total = 0
        self.complete = False
        self.given_up = False

    def received(self, size: int) -> None:
        """Note that so many more bytes are here."""
        self.total += size

    @property
    def rate(self) -> float:
        """Bytes per second so far."""
        return self.total / max(time.monotonic() - self._started, 0.001)

    def is_slow(self, *, pressed: bool) -> bool:
        """Whether it comes more slowly than it may; `pressed` where others wait."""
        if self.complete or self.given_up or self._connection is None:
            return False
        grace, rate = (_GRACE_UNDER_PRESSURE, _RATE_UNDER_PRESSURE) if pressed else (_GRACE, _RATE)
        return self.total < (time.monotonic() - self._started - grace) * rate

    def give_up(self) -> None:
        """Wake the thread that waits for more: it reads the end. Answers can still be sent."""
        self.given_up = True
        if self._connection is not None:
            with suppress(OSError):  # it is gone already
                # Not SSLSocket's own shutdown(), which would end encryption in both directions.
                socket.socket.shutdown(self._connection, socket.SHUT_RD)


_MOST_WAITING = 64
"""Requests that wait for a place at once; each holds a parked thread."""

_STANDSTILL_SECONDS = 2.0
"""How long a request waits if no place becomes free."""

_PATIENCE_SECONDS = 10.0
"""How long it waits at most."""

_TICK = 0.1
"""Seconds between two looks at who is slow."""


class Places:
    """Places for `most` readers, since bodies take memory until their requests are answered.

    A limited number of others wait for some seconds. A client that sends too slowly is dropped
    after some seconds, or sooner if others wait for its place.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting = 0
        self._readers: set[Reader] = set()
        self._change = threading.Condition()
        self._came_free_at = 0.0
        self._watched = False

    def enter(self, reader: Reader) -> None:
        """Take a place, which `leave` gives back. Raises `Busy` if none becomes free in time."""
        with self._change:
            if len(self._readers) >= self._most:
                self._wait()
            if not self._watched:
                self._start_watching()
            self._readers.add(reader)
            if len(self._readers) == self._most:
                self._came_free_at = time.monotonic()  # from now on others have to wait

    def leave(self, reader: Reader) -> None:
        """Give the place back, if `reader` has one."""
        with self._change:
            if reader in self._readers:
                self._readers.remove(reader)
                self._came_free_at = time.monotonic()
                self._change.notify()

    def _wait(self) -> None:
        if self._waiting >= _MOST_WAITING:
            raise Busy
        until = time.monotonic() + _PATIENCE_SECONDS
        self._waiting += 1
        try:
            while len(self._readers) >= self._most:
                if time.monotonic() >= min(until, self._came_free_at + _STANDSTILL_SECONDS):
                    raise Busy
                self._drop_slowest()
                self._change.wait(_TICK)
        finally:
            self._waiting -= 1

    def _drop_slowest(self) -> None:
        """Drop the slowest reader, unless one is being dropped already."""
        slow = [reader for reader in self._readers if reader.is_slow(pressed=True)]
        if slow and not any(reader.given_up for reader in self._readers):
            min(slow, key=lambda reader: reader.rate).give_up()

    def _start_watching(self) -> None:
        """Start the thread that drops slow readers. Raises `Busy` if the system has no more threads."""
        try:
            threading.Thread(target=self._watch, name="intake", daemon=True).start()
        except RuntimeError as exc:
            raise Busy(detail=str(exc)) from exc
        self._watched = True

    def _watch(self) -> None:
        """Drop those that are too slow even if nobody waits; end when there is nobody to watch."""
        while True:
            time.sleep(_TICK)
            with self._change:
                if not self._readers:
                    self._watched = False
                    return
                for reader in self._readers:
                    if reader.is_slow(pressed=False):
                        reader.give_up()


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
        with blocking():
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


class RequestBodyGuard:
    """Wraps `application`, which `threads` threads of a process run; as many bodies but two are under way.

    Reading a body may raise `Busy` or `SlowClient` in the application.
    """

    def __init__(self, application: "WSGIApplication", threads: int) -> None:
        self._application = application
        self._places = Places(max(1, threads - 2))

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Hand the request on; a place that its body took is free when the answer is there."""
        if environ.get("CONTENT_LENGTH", "0") in ("", "0") and "HTTP_TRANSFER_ENCODING" not in environ:
            return self._application(environ, start_response)
        body = WatchedBody(environ, self._places)
        environ["wsgi.input"] = body
        try:
            return self._application(environ, start_response)
        finally:
            body.leave()
