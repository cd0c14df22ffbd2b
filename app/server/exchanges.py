"""Exchanges, in which a request is parsed and the application answers it.

An exchange takes place in the event loop or in a thread.
"""

import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from threading import BoundedSemaphore
from typing import Any

from gunicorn.http import wsgi
from gunicorn.http.errors import InvalidHeader, NoMoreData

from app.cache.lookup import CachedObject
from app.core.errors import Busy
from app.core.request_context import assign_request_id, current_request_id, new_request_id, set_request_id
from app.core.threads import blocking
from app.delivery.fast_path import LoopHooks
from app.server.connections import Connection
from app.server.refusals import refusal_of
from app.server.response import Exchange, LoopResponse, close_body

_PIECE_SECONDS = 30.0
"""Maximum time to send one piece (256 KiB) of a streamed response. So a client must read about 8 KiB per
second."""

_MAX_STREAMS = 128
"""Maximum number of responses that threads stream at the same time. Images that are too large for the cache
are streamed. Meanwhile, other threads take the place of the streaming threads."""


class Exchanges:
    """Calls `application` for each request. `may_keep_alive` returns whether the connection can be reused."""

    def __init__(
        self, application: Any, cfg: Any, log: Any, hooks: LoopHooks, may_keep_alive: Callable[[], bool]
    ) -> None:
        self._application = application
        self._cfg = cfg
        self._log = log
        self._hooks = hooks
        self._may_keep_alive = may_keep_alive
        self._streams = BoundedSemaphore(_MAX_STREAMS)

    def answer_plain(self, conn: Connection, found: CachedObject | None) -> Exchange:
        """Answer a request without a body in the event loop. `found` is the cache hit, or None.

        Raises `StopIteration` or `NoMoreData` if the client has closed the connection, `ParseException` if
        the request is invalid, and any exception of the application. In these cases, `conn.head` contains the
        head again, which `refuse` needs.
        """
        head = b""
        try:
            head = conn.begin_request(self._cfg)
            return self._exchange(conn, next(conn.parser), found, plain=True)
        except BaseException:
            conn.head += head
            if found is not None:
                found.body.close()
            raise
        finally:
            set_request_id("")

    def serve(self, conn: Connection) -> bool:
        """Answer a request in a thread. Return whether the connection can be reused.

        As much of the response as the socket accepts is sent immediately. The rest is left in
        `conn.exchange`.
        """
        head = b""
        try:
            head = conn.begin_request(self._cfg)
            exchange = self._exchange(conn, next(conn.parser), None, plain=False)
            if exchange.sender is None:
                return self._stream(conn, exchange)
            conn.exchange = exchange
            if exchange.sender.send(conn.sock):
                conn.exchange = None
                exchange.end()
            return not exchange.response.should_close()
        except (StopIteration, NoMoreData, OSError):  # the client has closed the connection
            return False
        except Exception as exc:
            conn.head += head
            self.refuse(conn, exc)
            return False
        finally:
            set_request_id("")

    def refuse(self, conn: Connection, exc: Exception) -> None:
        """Send, count and log the response to a request that the application did not answer.

        If `conn.head` contains the head, the response has the CORS headers for the origin.
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
        with suppress(OSError):  # the client has closed the connection or does not read
            conn.sock.send(refusal.data)
        self._log.refused(conn.client, refusal)
        set_request_id("")

    def _exchange(
        self, conn: Connection, request: Any, found: CachedObject | None, *, plain: bool
    ) -> Exchange:
        """Call the application, or the `answer` hook if `found` is a hit. A `plain` request has no body."""
        began = datetime.now()
        # This may send "100 Continue". The socket is non-blocking, so a full send buffer ends the connection.
        response, environ = wsgi.create(
            request, conn.sock, conn.client, conn.server, self._cfg, response_class=LoopResponse
        )
        if "HTTP_HOST" not in environ and request.version == (1, 1):  # RFC 9112, 3.2
            raise InvalidHeader("Host")
        environ["wsgi.multithread"] = True
        response.request_id = assign_request_id(environ)
        if not plain:
            conn.sock.setblocking(True)  # to read the body of the request
        try:
            if found is None:
                body = self._application(environ, response.start_response)
            else:
                body = self._hooks.answer(environ, response.start_response, found)
        finally:
            if not plain:
                conn.sock.setblocking(False)  # if the client reads slowly, the event loop sends the rest
        try:
            if not (self._may_keep_alive() and (plain or conn.discard_body())):
                response.force_close()
            sender = response.sender(body)
        except BaseException:
            close_body(body)
            raise
        return Exchange(request, environ, response, body, sender, began, self._log)

    def _stream(self, conn: Connection, exchange: Exchange) -> bool:
        """Send the response piece by piece. Return whether the connection can be reused.

        Raises `Busy` if too many responses are being streamed, and `OSError` if the client is too slow or has
        disconnected.
        """
        if not self._streams.acquire(blocking=False):
            close_body(exchange.body)
            raise Busy
        try:
            conn.sock.settimeout(_PIECE_SECONDS)
            with blocking():
                exchange.response.stream(exchange.body)
        except Exception as exc:
            if isinstance(exc, OSError) or not exchange.response.headers_sent:
                raise
            self._log.exception("A response was cut short")  # too late for an error status
            return False
        finally:
            self._streams.release()
            exchange.end()
        return not exchange.response.should_close()
