"""From a request's head to the application's answer, in the event loop and in threads.

A variant of gunicorn's response that does not block, and the part of an answer still to be sent.
"""

import logging
import os
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from threading import BoundedSemaphore
from typing import Any

from gunicorn.http import wsgi
from gunicorn.http.errors import InvalidHeader, NoMoreData
from gunicorn.http.wsgi import FileWrapper, Response
from gunicorn.util import has_fileno

from app.cache.lookup import CachedObject
from app.core.errors import Busy
from app.core.request_context import (
    HEADER,
    current_request_id,
    new_request_id,
    set_request_id,
    take_request_id,
)
from app.core.system import REFUSED
from app.core.thread_pool import parked
from app.delivery.fast_path import FOUND, LoopHooks
from app.server.connections import Connection
from app.server.refusals import refusal_of

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
        lines.append(f"{HEADER}: {self.request_id}\r\n")
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


_PIECE_SECONDS = 30.0
"""How long a client may take to receive a piece (256 KiB) of a streamed answer: 8 KiB a second."""

_MOST_STREAMS = 128
"""Answers that threads stream at once: images too large for the cache. Their threads are parked."""


class Exchanges:
    """Calls `application` for each request. `may_go_on` returns whether a connection may be used again."""

    def __init__(
        self, application: Any, cfg: Any, log: Any, hooks: LoopHooks, may_go_on: Callable[[], bool]
    ) -> None:
        self._application = application
        self._cfg = cfg
        self._log = log
        self._hooks = hooks
        self._may_go_on = may_go_on
        self._streams = BoundedSemaphore(_MOST_STREAMS)

    def answer_plain(self, conn: Connection, found: CachedObject | None) -> Exchange:
        """Answer a request without a body in the event loop; `found` is the cache hit, if there is one.

        Raises `StopIteration` or `NoMoreData` if the client has closed the connection, `ParseException` for
        an invalid request, and what the application raises; `conn.head` holds the head then, for `refuse`.
        """
        head = b""
        try:
            head = conn.begin_request(self._cfg)
            return self._exchange(
                conn, next(conn.parser), {} if found is None else {FOUND: found}, plain=True
            )
        except BaseException:
            conn.head += head
            if found is not None:
                found.body.close()
            raise
        finally:
            set_request_id("")

    def serve(self, conn: Connection) -> bool:
        """Answer in a thread. Sends what the client takes at once, and leaves the rest in `conn.exchange`.

        Returns whether the connection can be used again.
        """
        head = b""
        try:
            head = conn.begin_request(self._cfg)
            exchange = self._exchange(conn, next(conn.parser), {}, plain=False)
            if exchange.sending is None:
                return self._stream(conn, exchange)
            conn.exchange = exchange
            if exchange.sending.go_on(conn.sock):
                conn.exchange = None
                exchange.end()
            return not exchange.response.should_close()
        except (StopIteration, NoMoreData, OSError):  # the client has gone, or sends no more
            return False
        except Exception as exc:
            conn.head += head
            self.refuse(conn, exc)
            return False
        finally:
            set_request_id("")

    def refuse(self, conn: Connection, exc: Exception) -> None:
        """Send, count and log the answer to a request that the application has not answered.

        If its head is in `conn.head`, pages of other origins may read the answer as they may any other.
        """
        request_id = current_request_id() or new_request_id()
        set_request_id(request_id)
        refusal = refusal_of(exc, request_id, self._hooks.cors(conn.origin()))
        # gunicorn's error messages may quote the request.
        level, info = (logging.ERROR, exc) if refusal.status == 500 else (logging.WARNING, None)
        name = type(exc).__name__
        self._log.log(
            level, "Refused a request: %d %s, %s", refusal.status, refusal.code, name, exc_info=info
        )
        self._hooks.count_refused(str(refusal.status), refusal.code)
        conn.sock.setblocking(False)
        with suppress(OSError):  # the client has gone, or does not read
            conn.sock.send(refusal.data)
        self._log.refused(conn.client, refusal)
        set_request_id("")

    def _exchange(self, conn: Connection, request: Any, given: dict[str, Any], *, plain: bool) -> Exchange:
        """Call the application, with `given` added to the environ. A `plain` request has no body."""
        began = datetime.now()
        # This sends "100 Continue". The socket does not block, so a full send buffer ends the connection.
        response, environ = wsgi.create(
            request, conn.sock, conn.client, conn.server, self._cfg, response_class=LoopResponse
        )
        if "HTTP_HOST" not in environ and request.version == (1, 1):  # RFC 9112, 3.2
            raise InvalidHeader("Host")
        environ["wsgi.multithread"] = True
        environ.update(given)
        response.request_id = take_request_id(environ)
        if not plain:
            conn.sock.setblocking(True)  # to read the request's body
        try:
            body = self._application(environ, response.start_response)
        finally:
            if not plain:
                conn.sock.setblocking(False)  # a client that reads slowly is the loop's business
        try:
            if not (self._may_go_on() and (plain or conn.discard_body())):
                response.force_close()
            sending = response.sending(body)
        except BaseException:
            close_body(body)
            raise
        return Exchange(request, environ, response, body, sending, began, self._log)

    def _stream(self, conn: Connection, exchange: Exchange) -> bool:
        """Send the answer piece by piece; return whether the connection can be used again.

        Raises `Busy` if too many answers are streamed already, `OSError` if the client is too slow or gone.
        """
        if not self._streams.acquire(blocking=False):
            close_body(exchange.body)
            raise Busy
        try:
            conn.sock.settimeout(_PIECE_SECONDS)
            with parked():
                exchange.response.stream(exchange.body)
        except Exception as exc:
            if isinstance(exc, OSError) or not exchange.response.headers_sent:
                raise
            self._log.exception("An answer broke off")  # too late to say so to the client
            return False
        finally:
            self._streams.release()
            exchange.end()
        return not exchange.response.should_close()
