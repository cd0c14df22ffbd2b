"""gthread whose event loop reads the heads of requests, answers cache hits, and sends to slow clients.

A hit is an open file that the kernel sends: to give it to a thread and take the connection back would cost
more than answering it. Whatever is no hit goes to a thread, as in gthread, once its head is whole; what the
client does not take at once of the thread's answer goes back to the loop. So a client that is slow to ask or
to read holds no thread.
"""

import selectors
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any

from gunicorn.http import wsgi
from gunicorn.http.errors import InvalidHeader, LimitRequestHeaders, ParseException

from app.cache import CachedObject
from app.delivery import FOUND, HITS
from app.metrics import COUNT_MALFORMED, FLUSH_HITS
from app.parking import ParkingPool
from app.requestid import current_request_id, new_request_id, set_request_id, take_request_id
from app.worker.connection import Connection, Exchange
from app.worker.lingering import Lingering
from app.worker.listening import ListeningWorker
from app.worker.refusal import MalformedRequest
from app.worker.response import LoopResponse

_PIECE_SECONDS = 30.0
"""How long a client may take for a piece (256 KB) of what is not sent by the loop: 8 KB/s, as for uploads."""

_LAG_SECONDS = 1.0
"""How far a connection's deadline may lag behind: not every request shall move it to the queue's end."""


class HitWorker(ListeningWorker):
    """For applications with a `Delivery`; for others, and with TLS, it is gthread."""

    def get_thread_pool(self) -> ParkingPool:
        """Threads that don't count while they wait for a generator."""
        return ParkingPool(self.cfg.threads)

    def load_wsgi(self) -> None:
        """Load the application, and what finds its hits."""
        super().load_wsgi()
        extensions = getattr(self.wsgi, "extensions", {})
        self._flush_hits: Callable[..., None] = extensions.get(FLUSH_HITS, _nobody)
        self._count_malformed: Callable[[str, str], None] = extensions.get(COUNT_MALFORMED, _nobody)
        find: Callable[[str], CachedObject | None] | None = extensions.get(HITS)
        self._find = None if self.cfg.is_ssl or self.cfg.proxy_protocol != "off" else find
        self.reads_heads = self._find is not None

    def run(self) -> None:
        """Work until told to stop; what was counted is told to the end."""
        self._lingering = Lingering(self.poller, self._count_out)
        try:
            super().run()
        finally:
            self._flush_hits(at_once=True)

    def notify(self) -> None:
        """What gthread calls at each turn of its loop, at least once a second."""
        super().notify()
        self._flush_hits()

    def on_client_socket_readable(self, conn: Any, client: Any) -> None:
        """Read on, and do what is asked for."""
        if not isinstance(conn, Connection):
            super().on_client_socket_readable(conn, client)
            return
        try:
            conn.read_head()
        except OSError:
            self._drop(conn)
        else:
            self._take_up(conn)

    def handle(self, conn: Any) -> Any:
        """As gthread, after which the thread works on no request."""
        try:
            return super().handle(conn)
        finally:
            set_request_id("")

    def handle_request(self, req: Any, conn: Any) -> bool:
        """As gthread; but what the client does not take at once is left to the loop."""
        if not isinstance(conn, Connection):
            return bool(super().handle_request(req, conn))
        exchange = self._exchange(conn, req, {})
        if exchange.sending is None:
            return self._stream(conn, exchange)
        conn.exchange = exchange
        conn.sock.setblocking(False)
        with suppress(OSError):  # which the loop meets again, and drops the connection
            if exchange.go_on(conn.sock):
                conn.exchange = None
                exchange.end()
        return not exchange.response.should_close()

    def finish_request(self, conn: Any, fs: Future[Any]) -> None:
        """As gthread; but nobody waits for a client to read, to ask on, or to close the connection, too."""
        kept = None if fs.cancelled() or fs.exception() is not None else fs.result()
        if not isinstance(conn, Connection) or kept is None:
            super().finish_request(conn, fs)
        elif conn.exchange is not None:
            self._send_on(conn, conn.exchange, last=not kept)
        elif kept:
            conn.take_read_ahead()
            super().finish_request(conn, fs)
            if not conn.closed:
                self._take_up(conn)
        else:
            self._lingering.begin(conn)

    def murder_pending(self) -> None:
        """What gthread calls at each turn of its loop: close what has had its time."""
        super().murder_pending()
        self._lingering.expire()

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:
        """As gunicorn, with an id for what is no request, and without what the client has sent."""
        if not current_request_id():
            set_request_id(new_request_id())
        if isinstance(exc, ParseException):
            vars(exc).update(
                (name, "…") for name, value in vars(exc).items() if isinstance(value, str | bytes)
            )
        if req is None or isinstance(exc, ParseException):
            req = MalformedRequest(self._count_malformed)
        req.uri = req.path
        super().handle_error(req, client, addr, exc)

    def _take_up(self, conn: Connection) -> None:
        """Answer a hit, and give anything else to a thread once its head is whole."""
        if conn.is_too_long():
            self._refuse(conn, LimitRequestHeaders("the head is too long"))
        elif conn.can_be_parsed():
            path = conn.plain_path()
            found = self._find(path) if path is not None and self._find is not None else None
            if found is None:
                self._hand_over(conn)
            else:
                self._answer(conn, found)

    def _refuse(self, conn: Connection, exc: Exception) -> None:
        self.handle_error(None, conn.sock, conn.client, exc)
        set_request_id("")
        self._forget(conn)
        self._lingering.begin(conn)

    def _hand_over(self, conn: Connection) -> None:
        self._forget(conn)
        conn.give_head_to_parser()
        conn.data_ready = True
        self.enqueue_req(conn)

    def _answer(self, conn: Connection, found: CachedObject) -> None:
        try:
            conn.exchange = self._exchange(conn, conn.parse(), {FOUND: found})
        except StopIteration:
            found.body.close()
            self._drop(conn)
        except Exception as exc:
            found.body.close()
            self._refuse(conn, exc)
        else:
            self._send(conn, conn.exchange)
        finally:
            set_request_id("")

    def _exchange(self, conn: Connection, request: Any, given: dict[str, Any]) -> Exchange:
        """Have the application answer; it is told what is `given`. Raises `ParseException`."""
        began = datetime.now()
        response, environ = wsgi.create(
            request, conn.sock, conn.client, conn.server, self.cfg, response_class=LoopResponse
        )
        if "HTTP_HOST" not in environ and request.version == (1, 1):  # RFC 9112, 3.2
            raise InvalidHeader("Host")
        environ["wsgi.multithread"] = True
        environ.update(given)
        response.request_id = take_request_id(environ)
        self.nr += 1
        if self.nr >= self.max_requests:
            self.alive = False
        if not (self.alive and self.cfg.keepalive and len(self.keepalived_conns) <= self.max_keepalived):
            response.force_close()
        body = self.wsgi(environ, response.start_response)
        return Exchange(request, environ, response, body, response.sending(body), began, self.log)

    def _stream(self, conn: Connection, exchange: Exchange) -> bool:
        """Send what comes piece by piece; whether the connection can be used again."""
        conn.sock.settimeout(_PIECE_SECONDS)
        try:
            exchange.response.stream(exchange.body)
        except TimeoutError:
            exchange.response.force_close()
        except Exception as exc:
            if isinstance(exc, OSError) or not exchange.response.headers_sent:
                raise
            self.log.exception("Error handling request")  # too late to say so to the client
            exchange.response.force_close()
        finally:
            exchange.end()
        return not exchange.response.should_close()

    def _send_on(self, conn: Connection, exchange: Exchange, *, last: bool) -> None:
        """Take over what a thread could not send at once."""
        if last:
            exchange.response.force_close()
        conn.set_timeout()
        self.pending_conns.append(conn)
        self.poller.register(conn.sock, selectors.EVENT_WRITE, lambda _: self._send(conn, exchange))

    def _send(self, conn: Connection, exchange: Exchange) -> None:
        """Send what the client takes now; the rest as soon as it takes more."""
        try:
            done = exchange.go_on(conn.sock)
        except OSError:
            self._drop(conn)
            return
        if done:
            self._finish(conn, exchange)
        elif conn in self.pending_conns:
            self._prolong(conn, self.pending_conns)
        else:
            self._move(conn, self.keepalived_conns, self.pending_conns)
            self.poller.modify(conn.sock, selectors.EVENT_WRITE, lambda _: self._send(conn, exchange))

    def _finish(self, conn: Connection, exchange: Exchange) -> None:
        conn.exchange = None
        exchange.end()
        if exchange.response.should_close():
            self._forget(conn)
            self._lingering.begin(conn)
        elif conn not in self.pending_conns:
            self._prolong(conn, self.keepalived_conns)
        else:
            self._move(conn, self.pending_conns, self.keepalived_conns)
            read = partial(self.on_client_socket_readable, conn)
            self.poller.modify(conn.sock, selectors.EVENT_READ, read)
            conn.take_read_ahead()
            self._take_up(conn)

    def _prolong(self, conn: Connection, queue: deque[Any]) -> None:
        """Put off the connection's deadline; its queue stays in the order of deadlines."""
        if time.monotonic() + self.cfg.keepalive - conn.timeout > _LAG_SECONDS:
            self._move(conn, queue, queue)

    def _move(self, conn: Connection, queue: deque[Any], other: deque[Any]) -> None:
        """gthread keeps idle connections in one queue; in the other those that a stop waits for."""
        queue.remove(conn)
        conn.set_timeout()
        other.append(conn)


def _nobody(*_: str, **__: bool) -> None:
    """Where the application counts nothing."""
