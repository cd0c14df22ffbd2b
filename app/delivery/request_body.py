"""WSGI middleware that limits how many request bodies are read at once, and how slowly they may arrive.

A request body takes memory until the request is answered, and it occupies a thread while it is read.
Therefore a request takes one of a limited number of `BodySlots` when the application begins to read the body.
A client that sends too slowly is dropped after some seconds, or sooner if other requests are waiting for a
slot.
"""

import io
import socket
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

from app.core.errors import BadRequest, Busy, SlowClient
from app.core.threads import blocking

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_SMALL_BODY_BYTES = 128 * 1024
"""Maximum size of a small body. Its slot is released once the body has arrived, before the request is
answered, since generating an image may take a minute."""

_READ_BYTES = 64 * 1024
"""Maximum number of bytes that are read in one call. Progress is measured between calls."""

_MAX_WAITING = 64
"""Maximum number of requests that wait for a slot. Each of them occupies a thread."""

_MAX_STANDSTILL_SECONDS = 2.0
"""Maximum time that requests wait while no slot becomes free for any of them."""

_MAX_WAIT_SECONDS = 10.0
"""Maximum time that a request waits for a slot."""

_CHECK_SECONDS = 0.1
"""Interval between checks for slow clients."""

_GRACE_SECONDS = 10.0
_MIN_BYTES_PER_SECOND = 8 * 1024
"""Minimum average rate of a body after the grace period. Even a poor mobile connection is faster."""

_CONTENDED_GRACE_SECONDS = 0.5
_CONTENDED_BYTES_PER_SECOND = 32 * 1024
"""The grace period and the minimum rate while other requests are waiting for a slot."""


class RequestBodyGuard:
    """Middleware that lets `threads` - 2 requests, but at least one, read their bodies at the same time.

    When `application` reads a body, this can raise `Busy`, `SlowClient` or `BadRequest`.
    """

    def __init__(self, application: "WSGIApplication", threads: int) -> None:
        self._application = application
        self._slots = BodySlots(max(1, threads - 2))

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Call the application.

        If the request has a body, wrap it in a `GuardedBody`, and release its slot after the call.
        """
        if environ.get("CONTENT_LENGTH", "0") in ("", "0") and "HTTP_TRANSFER_ENCODING" not in environ:
            return self._application(environ, start_response)
        body = GuardedBody(environ, self._slots)
        environ["wsgi.input"] = body
        try:
            return self._application(environ, start_response)
        finally:
            body.release()


class GuardedBody(io.RawIOBase):
    """The `wsgi.input` of a request, which takes one of `slots` when it is first read.

    While the thread waits for a slot or reads, it counts as blocked, so another thread can take its place.
    Reading raises `Busy` if no slot becomes free, `SlowClient` if the client is dropped, and `BadRequest` if
    the body is incomplete.
    """

    def __init__(self, environ: "WSGIEnvironment", slots: "BodySlots") -> None:
        length = environ.get("CONTENT_LENGTH") or ""
        self._body = environ["wsgi.input"]
        self._left = int(length) if length.isdecimal() else None
        self._slots = slots
        self._transfer = Transfer(environ.get("gunicorn.socket"))
        self._begun = False

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        """Read some bytes into the buffer. Return the number of bytes, which is 0 at the end of the body."""
        view = memoryview(buffer)
        with blocking():
            if not self._begun:
                self._begun = True
                self._slots.acquire(self._transfer)
            data = self._read(len(view))
        view[: len(data)] = data
        return len(data)

    def release(self) -> None:
        """Release the slot. The server discards the part of the body that the application did not read."""
        self._slots.release(self._transfer)
        if self._transfer.aborted:
            with suppress(AttributeError):  # the server is not gunicorn
                # Make gunicorn close the connection. It would parse the rest of the body as a request.
                self._body.failed = True

    def _read(self, size: int) -> bytes:
        size = min(size, _READ_BYTES) if self._left is None else min(size, _READ_BYTES, self._left)
        try:
            data: bytes = self._body.read(size) if size else b""
        except Exception as exc:
            if self._transfer.aborted:
                raise SlowClient from exc
            raise
        if self._transfer.aborted:
            raise SlowClient
        self._note_progress(data, size)
        if len(data) < size and self._left is not None:  # RFC 9112, 6.3: don't act on incomplete requests
            raise BadRequest("The request body is incomplete.")
        return data

    def _note_progress(self, data: bytes, size: int) -> None:
        transfer = self._transfer
        transfer.received += len(data)
        if self._left is not None:
            self._left -= len(data)
        transfer.complete = not self._left if self._left is not None else len(data) < size
        if transfer.complete and transfer.received <= _SMALL_BODY_BYTES:
            self._slots.release(transfer)


class BodySlots:
    """Limits the number of concurrent transfers to `count`, and aborts slow transfers.

    They are aborted sooner if other requests are waiting for a slot.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._waiting = 0
        self._transfers: set[Transfer] = set()
        self._changed = threading.Condition()
        self._freed_at = 0.0
        self._is_watching = False

    def acquire(self, transfer: "Transfer") -> None:
        """Wait for a slot and hold it until `release`. Raise `Busy` if none becomes free in time."""
        with self._changed:
            if len(self._transfers) >= self._count:
                self._wait()
            if not self._is_watching:
                self._start_watching()
            self._transfers.add(transfer)
            if len(self._transfers) == self._count:
                self._freed_at = time.monotonic()  # from now on, further requests have to wait

    def release(self, transfer: "Transfer") -> None:
        """Release the slot of `transfer`, if it holds one."""
        with self._changed:
            if transfer in self._transfers:
                self._transfers.remove(transfer)
                self._freed_at = time.monotonic()
                self._changed.notify()

    def _wait(self) -> None:
        if self._waiting >= _MAX_WAITING:
            raise Busy
        deadline = time.monotonic() + _MAX_WAIT_SECONDS
        self._waiting += 1
        try:
            while len(self._transfers) >= self._count:
                if time.monotonic() >= min(deadline, self._freed_at + _MAX_STANDSTILL_SECONDS):
                    raise Busy
                self._abort_slowest()
                self._changed.wait(_CHECK_SECONDS)
        finally:
            self._waiting -= 1

    def _abort_slowest(self) -> None:
        """Abort the slowest of the transfers that are too slow, unless one is already being aborted."""
        slow = [transfer for transfer in self._transfers if transfer.is_too_slow(contended=True)]
        if slow and not any(transfer.aborted for transfer in self._transfers):
            min(slow, key=lambda transfer: transfer.bytes_per_second).abort()

    def _start_watching(self) -> None:
        """Start the thread that drops slow clients. Raise `Busy` if the system can't start a thread."""
        try:
            threading.Thread(target=self._watch, name="request-bodies", daemon=True).start()
        except RuntimeError as exc:
            raise Busy(detail=str(exc)) from exc
        self._is_watching = True

    def _watch(self) -> None:
        """Abort transfers that are too slow, even if no request is waiting.

        Return when no transfer is left.
        """
        while True:
            time.sleep(_CHECK_SECONDS)
            with self._changed:
                if not self._transfers:
                    self._is_watching = False
                    return
                for transfer in self._transfers:
                    if transfer.is_too_slow(contended=False):
                        transfer.abort()


class Transfer:
    """The progress of one body. `connection` is its socket, or None if the server is not gunicorn.

    `received` is the number of bytes that have arrived, `complete` says whether all bytes have arrived, and
    `aborted` says whether the server has stopped reading.
    """

    def __init__(self, connection: socket.socket | None) -> None:
        self._connection = connection
        self._began = time.monotonic()
        self.received = 0
        self.complete = False
        self.aborted = False

    @property
    def bytes_per_second(self) -> float:
        """The average rate since the transfer began."""
        return self.received / max(time.monotonic() - self._began, 0.001)

    def is_too_slow(self, *, contended: bool) -> bool:
        """Return whether the client is slower than the minimum rate.

        `contended` says whether other requests are waiting for a slot.
        """
        if self.complete or self.aborted or self._connection is None:
            return False
        if contended:
            grace, rate = _CONTENDED_GRACE_SECONDS, _CONTENDED_BYTES_PER_SECOND
        else:
            grace, rate = _GRACE_SECONDS, _MIN_BYTES_PER_SECOND
        return self.received < (time.monotonic() - self._began - grace) * rate

    def abort(self) -> None:
        """Make the thread that reads the body see EOF. A response can still be sent."""
        self.aborted = True
        if self._connection is not None:
            with suppress(OSError):  # already closed
                # SSLSocket.shutdown() would end the encryption in both directions.
                socket.socket.shutdown(self._connection, socket.SHUT_RD)
