"""A gunicorn worker whose event loop reads requests' heads, answers cache hits, and sends to slow clients.

Threads answer everything else. A connection takes one only while the application works on its request:
neither a client that is slow to send its head or slow to read its answer, nor a body that is announced and
not sent, holds a thread.

The states of a connection and what may change them are in `app.server.connections`. The loop looks each
event up there, skips stale ones, and closes the connection, counted and logged, if handling one fails.
Only signals and `max_requests` end the loop.
"""

import errno
import os
import resource
import selectors
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any

from gunicorn.http.errors import LimitRequestHeaders, NoMoreData
from gunicorn.workers.base import Worker

from app.cache import CachedObject
from app.delivery import LoopHooks
from app.errors import Busy
from app.parking import ParkingPool
from app.server.connection_table import ConnectionTable
from app.server.connections import TRANSITIONS, Connection, Event, State
from app.server.exchanges import Exchanges

_TICK_SECONDS = 1.0
"""How often the arbiter is told that the worker lives, and deadlines are looked at."""

_HEAD_SECONDS = 20.0
"""How long a request's head may take from its first byte."""

_LINGER_SECONDS = 2.0
"""How long the loop waits for a client to close after the last answer."""

_STOP_SECONDS = 2.0
"""How long a stopping worker keeps idle connections, on which a request may be on its way."""

_WINDOW_SECONDS = 30.0
_WINDOW_BYTES = 240 * 1024
"""A client that takes less than this of its answer in a window is dropped: 8 KiB a second, as for uploads."""

_ACCEPTED_AT_ONCE = 64
"""Newcomers for each turn of the loop, so that they don't wait behind a thousand busy connections."""

_DISCARDED_AT_ONCE = 256 * 1024

_NO_FILES = {errno.EMFILE, errno.ENFILE}


class ImageWorker(Worker):  # type: ignore[misc]
    """Works for any WSGI application; answers in its loop what the application's `LoopHooks` let it.

    TLS and the PROXY protocol are left to a proxy in front.
    """

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """Refuse to start with settings that this worker can't follow."""
        if cfg.is_ssl or cfg.proxy_protocol != "off":
            raise RuntimeError(
                "This worker speaks neither TLS nor the PROXY protocol. Put a proxy in front of it, or start "
                "gunicorn with --worker-class gthread."
            )

    def init_process(self) -> None:
        """Allow as many open files as the system does: a hit on its way takes two."""
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        self._pool = ParkingPool(self.cfg.threads)
        self._finished: SimpleQueue[Connection] = SimpleQueue()
        self._poller = selectors.DefaultSelector()
        self._keepalive: int = self.cfg.keepalive
        self._now = time.monotonic()
        self._next_tick = self._now + _TICK_SECONDS
        self._table = ConnectionTable(self.cfg.worker_connections, self._now)
        self._accepting = False
        super().init_process()

    def load_wsgi(self) -> None:
        """Load the application and its hooks."""
        super().load_wsgi()
        self._hooks = getattr(self.wsgi, "extensions", {}).get(LoopHooks.NAME) or LoopHooks()
        self._exchanges = Exchanges(self.wsgi, self.cfg, self.log, self._hooks, self._may_go_on)

    def run(self) -> None:
        """Work until told to stop, then until the connections have ended or the time for that is over."""
        self._poller.register(self.PIPE[0], selectors.EVENT_READ, self._wake_up)
        self._accept_connections(True)
        try:
            while self.alive and self.ppid == os.getppid():
                self._turn()
            self._stop()
        finally:
            self._hooks.flush(at_once=True)

    def _may_go_on(self) -> bool:
        """Count a request, and return whether its connection may be used for another."""
        self.nr += 1
        if self.nr >= self.max_requests:
            self.alive = False
        return self.alive and self._keepalive > 0

    def _stop(self) -> None:
        """Close the listeners, let connections end, and close those that have not ended in time."""
        self._close_listeners()
        self._now = time.monotonic()
        deadline = self._now + self.cfg.graceful_timeout
        for conn in self._table:
            if conn.state is State.HEAD:
                self._table.set_deadline(conn, self._now + _STOP_SECONDS)
        while len(self._table) and self._now < deadline:
            self._turn()
        for conn in self._table:
            if conn.state is not State.WORKING:
                self._close(conn)
        self._pool.shutdown(wait=False)
        self._poller.close()

    def _turn(self) -> None:
        """Handle what has happened, and what is due."""
        events = self._poller.select(max(0.0, self._next_tick - time.monotonic()))
        self._now = time.monotonic()
        for key, mask in events:
            if type(key.data) is Connection:
                self._dispatch(key.data, Event.WRITABLE if mask & selectors.EVENT_WRITE else Event.READABLE)
            else:
                key.data()
        if self._now >= self._next_tick:
            self._tick()

    def _tick(self) -> None:
        self.notify()
        self._hooks.flush()
        self._table.measure_senders(self._now - self._next_tick + _TICK_SECONDS)
        self._next_tick = self._now + _TICK_SECONDS
        for conn in self._table.expired(self._now):
            self._dispatch(conn, Event.EXPIRED)
        self._accept_connections(self.alive)

    def _dispatch(self, conn: Connection, event: Event) -> None:
        """Let the event change the connection as `TRANSITIONS` allows. Raises nothing of a connection's."""
        before = conn.state
        step = _STEPS[before][event]
        if step is None:
            return
        handle, allowed = step
        try:
            handle(self, conn)
            if conn.state not in allowed:
                raise AssertionError(f"{event.name} led from {before.name} to {conn.state.name}")
        except Exception:
            self.log.exception("A connection failed and is closed")
            self._close(conn, "failed")

    # Newcomers

    def _accept_connections(self, enabled: bool) -> None:
        """Watch the listeners, or leave newcomers to wait in the kernel."""
        if enabled == self._accepting:
            return
        self._accepting = enabled
        for listener in self.sockets:
            if enabled:
                listener.setblocking(False)
                self._poller.register(listener, selectors.EVENT_READ, _Accepting(self, listener))
            else:
                self._poller.unregister(listener)

    def _accept(self, listener: Any) -> bool:
        """Accept one connection; return whether there may be more."""
        try:
            sock, client = listener.accept()
        except (BlockingIOError, InterruptedError):
            return False
        except ConnectionError:  # the client has gone already
            return True
        except OSError as exc:
            # Out of files, or the network is down (accept(2)): look again at the next tick, when some have
            # been closed.
            if exc.errno in _NO_FILES:
                self._make_room()
            self._accept_connections(False)
            return False
        if self._table.is_full() and not self._make_room():
            sock.close()
            self._hooks.count_dropped("room")
            return True
        conn = Connection(sock, client, listener.getsockname(), self._now)
        self._table.add(conn)
        try:
            self._wait_for_head(conn)
        except OSError:  # the kernel watches no more sockets for this user
            self._close(conn, "failed")
        return True

    def _close_listeners(self) -> None:
        """Accept who waits already, and no more.

        With a listener for each worker (SO_REUSEPORT), the kernel would go on giving this one connections for
        as long as its last download takes, though others could answer them.
        """
        self._accept_connections(False)
        for listener in self.sockets:
            for _ in range(self.cfg.worker_connections):
                if not self._accept(listener):
                    break
            listener.close()

    def _make_room(self) -> bool:
        worst = self._table.worst(self._now)
        if worst is None:
            return False
        self._dispatch(worst, Event.EVICTED)
        return True

    # Changes of state

    def _watch(self, conn: Connection, mask: int) -> None:
        """Have the poller watch the connection for these events; for none if `mask` is 0."""
        if mask == conn.mask:
            return
        if not conn.mask:
            self._poller.register(conn.sock, mask, conn)
        elif mask:
            self._poller.modify(conn.sock, mask, conn)
        else:
            self._poller.unregister(conn.sock)
        conn.mask = mask

    def _wait_for_head(self, conn: Connection) -> None:
        conn.state, conn.active_at = State.HEAD, self._now
        self._watch(conn, selectors.EVENT_READ)
        self._table.set_deadline(conn, self._now + (self._keepalive if self.alive else _STOP_SECONDS))

    def _linger(self, conn: Connection) -> None:
        """Close once the client has: closed earlier, the connection is reset and the answer may be lost."""
        conn.state, conn.active_at = State.LINGERING, self._now
        try:
            conn.sock.shutdown(socket.SHUT_WR)
        except OSError:  # the client has gone
            self._close(conn)
            return
        conn.sock.setblocking(False)
        self._watch(conn, selectors.EVENT_READ)
        self._table.set_deadline(conn, self._now + _LINGER_SECONDS)

    def _close(self, conn: Connection, reason: str = "") -> None:
        """Close the connection; `reason` says why the server drops a client that did not ask for it."""
        if conn.state is State.CLOSED:
            return
        if conn.state is State.WORKING:
            self._table.working -= 1
        conn.state = State.CLOSED
        self._table.remove(conn)
        if reason:
            self._hooks.count_dropped(reason)
        try:
            with suppress(OSError, KeyError, ValueError):
                self._watch(conn, 0)
        finally:
            conn.close()

    # What happens in each state

    def _read_head(self, conn: Connection) -> None:
        empty = not conn.head
        try:
            conn.receive()
        except OSError:
            self._close(conn)
            return
        if empty and conn.head:
            conn.active_at = self._now
            self._table.set_deadline(conn, self._now + _HEAD_SECONDS)
        self._take_up(conn)

    def _take_up(self, conn: Connection) -> None:
        """Answer or pass on the requests that have arrived, one after the other."""
        while conn.state is State.HEAD and conn.head:
            if not conn.can_be_parsed():
                if conn.is_too_long():
                    self._refuse(conn, LimitRequestHeaders("the head is too long"))
                return
            path = conn.plain_path()
            found = None if path is None else self._hooks.find(path)
            if found is not None or path in self._hooks.quick:
                self._answer(conn, found)
            else:
                self._hand_over(conn)

    def _hand_over(self, conn: Connection) -> None:
        """Let a thread answer."""
        if not self._table.may_work():
            self._refuse(conn, Busy())
            return
        self._watch(conn, 0)
        self._table.cancel_deadline(conn)
        self._table.working += 1
        conn.state, conn.active_at = State.WORKING, self._now
        self._pool.submit(self._work, conn)

    def _answer(self, conn: Connection, found: CachedObject | None) -> None:
        """Answer in the loop, with the cache hit if there is one."""
        try:
            conn.exchange = self._exchanges.answer_plain(conn, found)
        except (StopIteration, NoMoreData, OSError):
            self._close(conn)
        except Exception as exc:
            self._refuse(conn, exc)
        else:
            conn.active_at = self._now
            self._send(conn)

    def _refuse(self, conn: Connection, exc: Exception) -> None:
        self._exchanges.refuse(conn, exc)
        self._linger(conn)

    def _finish(self, conn: Connection) -> None:
        """Take the connection back from its thread."""
        self._table.working -= 1
        conn.state = State.HEAD  # until it is clear what follows
        if conn.exchange is not None:
            if not conn.keep:
                conn.exchange.response.force_close()
            self._send(conn)
        elif conn.keep:
            self._wait_for_next(conn)
        else:
            self._linger(conn)

    def _wait_for_next(self, conn: Connection) -> None:
        conn.sock.setblocking(False)
        self._wait_for_head(conn)
        conn.take_read_ahead()
        self._take_up(conn)

    def _send(self, conn: Connection) -> None:
        """Send what the client takes now; the rest as soon as it takes more."""
        exchange = conn.exchange
        assert exchange is not None
        assert exchange.sending is not None
        try:
            done = exchange.sending.go_on(conn.sock)
        except OSError:
            self._close(conn)
            return
        if not done:
            if conn.state is not State.SENDING:
                conn.begin_sending()
                conn.state, conn.active_at = State.SENDING, self._now
                self._watch(conn, selectors.EVENT_WRITE)
                self._table.set_deadline(conn, self._now + _WINDOW_SECONDS)
            return
        conn.exchange = None
        exchange.end()
        if exchange.response.should_close():
            self._linger(conn)
        elif conn.state is State.HEAD and conn.mask:  # answered at once, by the loop
            self._table.set_deadline(conn, self._now + self._keepalive)
        else:
            self._wait_for_next(conn)

    def _check_reader(self, conn: Connection) -> None:
        if conn.is_taking(_WINDOW_BYTES):
            self._table.set_deadline(conn, self._now + _WINDOW_SECONDS)
        else:
            self._close(conn, "slow_reader")

    def _expire_head(self, conn: Connection) -> None:
        self._close(conn, "slow_head" if conn.head else "")

    def _discard(self, conn: Connection) -> None:
        try:
            gone = not conn.sock.recv(_DISCARDED_AT_ONCE)
        except BlockingIOError:
            return
        except OSError:
            gone = True
        if gone:
            self._close(conn)

    def _end_linger(self, conn: Connection) -> None:
        self._close(conn)

    def _evict(self, conn: Connection) -> None:
        self._close(conn, "room")

    # What threads do

    def _work(self, conn: Connection) -> None:
        """Answer the request whose head has been read, and give the connection back to the loop."""
        conn.keep = False
        try:
            conn.keep = self._exchanges.serve(conn)
        except Exception:
            self.log.exception("A request failed")
        finally:
            self._finished.put(conn)
            with suppress(OSError):  # the pipe is full: the loop has enough to wake it
                os.write(self.PIPE[1], b".")

    def _wake_up(self) -> None:
        """Look for connections that threads are done with; signals wake the loop by the same pipe."""
        with suppress(BlockingIOError):
            os.read(self.PIPE[0], 4096)
        while not self._finished.empty():
            self._dispatch(self._finished.get(), Event.FINISHED)


class _Accepting:
    """Accepts some newcomers at a listener each time the poller reports any."""

    def __init__(self, worker: ImageWorker, listener: Any) -> None:
        self._worker = worker
        self._listener = listener

    def __call__(self) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            if not self._worker._accept(self._listener):
                return


_Handler = Callable[[ImageWorker, Connection], None]

_HANDLERS: dict[tuple[State, Event], _Handler] = {
    (State.HEAD, Event.READABLE): ImageWorker._read_head,
    (State.HEAD, Event.EXPIRED): ImageWorker._expire_head,
    (State.HEAD, Event.EVICTED): ImageWorker._evict,
    (State.WORKING, Event.FINISHED): ImageWorker._finish,
    (State.SENDING, Event.WRITABLE): ImageWorker._send,
    (State.SENDING, Event.EXPIRED): ImageWorker._check_reader,
    (State.SENDING, Event.EVICTED): ImageWorker._evict,
    (State.LINGERING, Event.READABLE): ImageWorker._discard,
    (State.LINGERING, Event.EXPIRED): ImageWorker._end_linger,
    (State.LINGERING, Event.EVICTED): ImageWorker._evict,
}
"""What the loop does for each entry of `TRANSITIONS`."""

_STEPS: list[list[tuple[_Handler, frozenset[State]] | None]] = [
    [(_HANDLERS[state, event], allowed) if (allowed := row.get(event)) else None for event in Event]
    for state, row in sorted(TRANSITIONS.items())
]
"""The two tables in one, by the numbers of states and events: every hit looks a step up here."""
