"""The event loop of a worker, which reads request heads, answers cache hits and sends to slow clients.

Threads answer everything else. A connection occupies a thread only while the application works on its
request, but not while the client sends the head or receives the response.

`app.server.connections` defines the states of a connection and the transitions between them. The loop looks
up each event there and skips stale events. If an event can't be handled, the loop logs and counts the
failure, and closes the connection.
"""

import errno
import os
import selectors
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Any

from gunicorn.http.errors import LimitRequestHeaders, NoMoreData

from app.cache.lookup import CachedObject
from app.core.errors import Busy
from app.core.threads import ElasticThreadPool
from app.delivery.fast_path import LoopHooks
from app.server.connections import TRANSITIONS, Connection, ConnectionTable, Event, State
from app.server.exchanges import Exchanges

_TICK_SECONDS = 1.0
"""Interval at which deadlines are checked."""

_HEAD_SECONDS = 20.0
"""Maximum time for a request head to arrive, from its first byte to its end."""

_LINGER_SECONDS = 2.0
"""How long the loop waits for a client to close the connection after the last response."""

_STOP_SECONDS = 2.0
"""How long a stopping worker keeps idle connections open, since a request may already be on its way."""

_WINDOW_SECONDS = 30.0
_MIN_WINDOW_BYTES = 240 * 1024
"""A client that receives fewer bytes than this in `_WINDOW_SECONDS` is dropped. The minimum rate, 8 KiB per
second, is the same as for uploads."""

_MAX_ACCEPTED_PER_TURN = 64
"""Maximum number of connections that are accepted in a row before existing connections get their turn."""

_DISCARD_BYTES = 256 * 1024

_OUT_OF_FILES = {errno.EMFILE, errno.ENFILE}


class EventLoop:
    """Handles at most `capacity` connections, and closes those that are idle for `keepalive` seconds.

    `wake_pipe` is a pair of file descriptors. Bytes that are written to it wake up the loop.
    """

    def __init__(
        self,
        listeners: Sequence[Any],
        exchanges: Exchanges,
        pool: ElasticThreadPool,
        hooks: LoopHooks,
        log: Any,
        *,
        capacity: int,
        keepalive: float,
        wake_pipe: Sequence[int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._listeners = listeners
        self._exchanges = exchanges
        self._pool = pool
        self._hooks = hooks
        self._log = log
        self._capacity = capacity
        self._keepalive = keepalive
        self._wake_pipe = wake_pipe
        self._clock = clock
        self._now = clock()
        self._next_tick = self._now + _TICK_SECONDS
        self._table = ConnectionTable(capacity, self._now)
        self._finished: SimpleQueue[Connection] = SimpleQueue()
        self._poller = selectors.DefaultSelector()
        self._poller.register(wake_pipe[0], selectors.EVENT_READ, self._take_back_finished)
        self._is_accepting = False
        self._is_stopping = False
        self._accept_connections(True)

    def __len__(self) -> int:
        """Return the number of open connections."""
        return len(self._table)

    def run_once(self) -> bool:
        """Wait for events and handle them. Return whether a tick has passed, which is about once a second."""
        events = self._poller.select(max(0.0, self._next_tick - self._clock()))
        self._now = self._clock()
        for key, mask in events:
            if type(key.data) is Connection:
                self._dispatch(key.data, Event.WRITABLE if mask & selectors.EVENT_WRITE else Event.READABLE)
            else:
                key.data()
        if self._now < self._next_tick:
            return False
        self._table.measure_rates(self._now - self._next_tick + _TICK_SECONDS)
        self._next_tick = self._now + _TICK_SECONDS
        for conn in self._table.expired(self._now):
            self._dispatch(conn, Event.EXPIRED)
        self._accept_connections(not self._is_stopping)
        return True

    def stop(self) -> None:
        """Accept the connections that are already waiting, close the listeners, and set short deadlines.

        If each worker has its own listener (SO_REUSEPORT), this worker must close its listener now. Otherwise
        the kernel would keep sending it new connections until its last download ends, although other workers
        could answer them.
        """
        self._is_stopping = True
        self._accept_connections(False)
        for listener in self._listeners:
            for _ in range(self._capacity):
                if not self._accept(listener):
                    break
            listener.close()
        for conn in self._table:
            if conn.state is State.HEAD:
                self._table.set_deadline(conn, self._now + _STOP_SECONDS)

    def close(self) -> None:
        """Close all connections except those that threads are working on."""
        for conn in self._table:
            if conn.state is not State.WORKING:
                self._close(conn)
        self._poller.close()

    def _dispatch(self, conn: Connection, event: Event) -> None:
        """Handle an event. Skip it if it is stale, and close the connection if handling the event fails."""
        before = conn.state
        step = _STEPS[before][event]
        if step is None:
            return
        handle, allowed = step
        try:
            handle(self, conn)
            if conn.state not in allowed:
                raise AssertionError(f"{event.name} must not lead from {before.name} to {conn.state.name}")
        except Exception:
            self._log.exception("A connection failed and was closed")
            self._close(conn, "failed")

    # New connections

    def _accept_connections(self, enabled: bool) -> None:
        """Start or stop watching the listeners.

        While they are not watched, new connections wait in the kernel.
        """
        if enabled == self._is_accepting:
            return
        self._is_accepting = enabled
        for listener in self._listeners:
            if enabled:
                listener.setblocking(False)
                self._poller.register(listener, selectors.EVENT_READ, partial(self._accept_some, listener))
            else:
                self._poller.unregister(listener)

    def _accept_some(self, listener: Any) -> None:
        for _ in range(_MAX_ACCEPTED_PER_TURN):
            if not self._accept(listener):
                return

    def _accept(self, listener: Any) -> bool:
        """Accept a connection. Return whether more connections may be waiting."""
        try:
            sock, client = listener.accept()
        except (BlockingIOError, InterruptedError):
            return False
        except ConnectionError:  # the client has already disconnected
            return True
        except OSError as exc:
            # The process has too many open files, or the network is down (accept(2)). Try again at the next
            # tick, when some files may have been closed.
            if exc.errno in _OUT_OF_FILES:
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
        except OSError:  # the kernel can't watch more sockets for this user
            self._close(conn, "failed")
        return True

    def _make_room(self) -> bool:
        """Evict a connection. Return False if threads are working on all of them."""
        conn = self._table.next_to_evict(self._now)
        if conn is None:
            return False
        self._dispatch(conn, Event.EVICTED)
        return True

    # Changes of state

    def _watch(self, conn: Connection, mask: int) -> None:
        """Make the poller watch the connection for the events in `mask`, or for no events if it is 0."""
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
        self._table.set_deadline(conn, self._now + (_STOP_SECONDS if self._is_stopping else self._keepalive))

    def _linger(self, conn: Connection) -> None:
        """Wait for the client to close the connection.

        If the server closed the connection first, the connection might be reset and the response might be
        lost.
        """
        conn.state, conn.active_at = State.LINGERING, self._now
        try:
            conn.sock.shutdown(socket.SHUT_WR)
        except OSError:  # the client has disconnected
            self._close(conn)
            return
        conn.sock.setblocking(False)
        self._watch(conn, selectors.EVENT_READ)
        self._table.set_deadline(conn, self._now + _LINGER_SECONDS)

    def _close(self, conn: Connection, reason: str = "") -> None:
        """Close the connection. If there is a `reason`, count the connection as dropped."""
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
            conn.close()
        except Exception:  # the response body or the access log can raise anything
            self._log.exception("The response of a closed connection could not be ended")

    # Event handlers for the state HEAD

    def _read_head(self, conn: Connection) -> None:
        was_idle = not conn.head
        try:
            conn.receive()
        except OSError:
            self._close(conn)
            return
        if was_idle and conn.head:
            conn.active_at = self._now
            self._table.set_deadline(conn, self._now + _HEAD_SECONDS)
        self._handle_requests(conn)

    def _handle_requests(self, conn: Connection) -> None:
        """Answer the requests that have arrived, in order, until one must be passed to a thread."""
        while conn.state is State.HEAD and conn.head:
            if not conn.can_be_parsed():
                if conn.is_head_too_long():
                    self._refuse(conn, LimitRequestHeaders("the head is too long"))
                return
            path = conn.plain_path()
            found = None if path is None else self._hooks.find(path, conn.accept)
            if found is not None or path in self._hooks.quick:
                self._answer(conn, found)
            else:
                self._pass_to_thread(conn)

    def _answer(self, conn: Connection, found: CachedObject | None) -> None:
        """Answer a request in the loop. `found` is the cache hit, or None."""
        try:
            conn.exchange = self._exchanges.answer_plain(conn, found)
        except (StopIteration, NoMoreData, OSError):
            self._close(conn)
        except Exception as exc:
            self._refuse(conn, exc)
        else:
            conn.active_at = self._now
            self._send(conn)

    def _pass_to_thread(self, conn: Connection) -> None:
        if not self._table.can_work():
            self._refuse(conn, Busy())
            return
        self._watch(conn, 0)
        self._table.cancel_deadline(conn)
        self._table.working += 1
        conn.state, conn.active_at = State.WORKING, self._now
        self._pool.submit(self._work, conn)

    def _refuse(self, conn: Connection, exc: Exception) -> None:
        self._exchanges.refuse(conn, exc)
        self._linger(conn)

    def _expire_head(self, conn: Connection) -> None:
        self._close(conn, "slow_head" if conn.head else "")

    # Event handlers for the state WORKING

    def _work(self, conn: Connection) -> None:
        """Answer the request. This runs in a thread, which then returns the connection to the loop."""
        conn.keep_alive = False
        try:
            conn.keep_alive = self._exchanges.serve(conn)
        except Exception:
            self._log.exception("A request failed")
        finally:
            self._finished.put(conn)
            with suppress(OSError):  # the pipe is full, so the loop wakes up anyway
                os.write(self._wake_pipe[1], b".")

    def _take_back_finished(self) -> None:
        """Take back the connections that threads have finished with.

        There may be no such connections, since signal handlers also write to the wake-up pipe.
        """
        with suppress(BlockingIOError):
            os.read(self._wake_pipe[0], 4096)
        while not self._finished.empty():
            self._dispatch(self._finished.get(), Event.FINISHED)

    def _finish_work(self, conn: Connection) -> None:
        self._table.working -= 1
        conn.state = State.HEAD  # preliminary, until the next state is known
        if conn.exchange is not None:
            if not conn.keep_alive:
                conn.exchange.response.force_close()
            self._send(conn)
        elif conn.keep_alive:
            self._wait_for_next_request(conn)
        else:
            self._linger(conn)

    def _wait_for_next_request(self, conn: Connection) -> None:
        conn.sock.setblocking(False)
        self._wait_for_head(conn)
        conn.receive_read_ahead()
        if conn.head:
            self._table.set_deadline(conn, self._now + _HEAD_SECONDS)
        self._handle_requests(conn)

    # Event handlers for the state SENDING

    def _send(self, conn: Connection) -> None:
        """Send as much as the socket accepts now. The rest is sent when the socket accepts more."""
        exchange = conn.exchange
        assert exchange is not None
        assert exchange.sender is not None
        try:
            done = exchange.sender.send(conn.sock)
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
        elif conn.state is State.HEAD and conn.mask:  # the loop answered the request and sent everything
            self._table.set_deadline(conn, self._now + self._keepalive)
        else:
            self._wait_for_next_request(conn)

    def _check_receiver(self, conn: Connection) -> None:
        if conn.has_received(_MIN_WINDOW_BYTES):
            self._table.set_deadline(conn, self._now + _WINDOW_SECONDS)
        else:
            self._close(conn, "slow_reader")

    # Event handlers for the state LINGERING

    def _discard(self, conn: Connection) -> None:
        try:
            is_closed = not conn.sock.recv(_DISCARD_BYTES)
        except BlockingIOError:
            return
        except OSError:
            is_closed = True
        if is_closed:
            self._close(conn)

    def _end_linger(self, conn: Connection) -> None:
        self._close(conn)

    # The event handler for EVICTED

    def _evict(self, conn: Connection) -> None:
        self._close(conn, "room")


_Handler = Callable[[EventLoop, Connection], None]

_HANDLERS: dict[tuple[State, Event], _Handler] = {
    (State.HEAD, Event.READABLE): EventLoop._read_head,
    (State.HEAD, Event.EXPIRED): EventLoop._expire_head,
    (State.HEAD, Event.EVICTED): EventLoop._evict,
    (State.WORKING, Event.FINISHED): EventLoop._finish_work,
    (State.SENDING, Event.WRITABLE): EventLoop._send,
    (State.SENDING, Event.EXPIRED): EventLoop._check_receiver,
    (State.SENDING, Event.EVICTED): EventLoop._evict,
    (State.LINGERING, Event.READABLE): EventLoop._discard,
    (State.LINGERING, Event.EXPIRED): EventLoop._end_linger,
    (State.LINGERING, Event.EVICTED): EventLoop._evict,
}
"""The handler for each entry of `TRANSITIONS`."""

_STEPS: list[list[tuple[_Handler, frozenset[State]] | None]] = [
    [(_HANDLERS[state, event], allowed) if (allowed := row.get(event)) else None for event in Event]
    for state, row in sorted(TRANSITIONS.items())
]
"""`TRANSITIONS` and `_HANDLERS` combined in one list, which is indexed by state and event. Each cache hit
looks up a step in it, so this must be fast."""
