"""The connections of a worker: their number and deadlines, and which is dropped if there are too many.

A client's connection as a state machine, driven by the worker's event loop.

`TRANSITIONS` is the whole machine: which events can happen to a connection in each state, and which states
they may lead to. An event that the table does not list is stale: the connection changed after the kernel
reported the event. That happens when one event of a batch closes a connection that a later event of the same
batch concerns. The loop skips stale events, so every event is legal in every state.
"""

import fcntl
import heapq
import re
import socket
import struct
import termios
from collections.abc import Iterator, Mapping
from enum import IntEnum
from typing import Any

from gunicorn.http import get_parser
from gunicorn.http.errors import NoMoreData, ParseException

from app.server.response import Exchange


class State(IntEnum):
    """Who waits for whom on a connection."""

    HEAD = 0
    """The server waits for a request's head; on an idle connection no byte of it has arrived yet."""
    WORKING = 1
    """A thread answers a request, or the request waits for a thread. The loop leaves the socket alone."""
    SENDING = 2
    """The loop waits for the client to take more of an answer."""
    LINGERING = 3
    """The last answer is sent; what still arrives is discarded until the client closes (RFC 9112, 9.6)."""
    CLOSED = 4


class Event(IntEnum):
    """What can happen to a connection."""

    READABLE = 0
    WRITABLE = 1
    FINISHED = 2
    """The thread has finished with the request."""
    EXPIRED = 3
    """The connection's deadline has passed."""
    EVICTED = 4
    """The worker has too many connections and drops this one."""


_OPEN = frozenset({State.HEAD, State.WORKING, State.SENDING, State.LINGERING})
_ANY = _OPEN | {State.CLOSED}
_CLOSED = frozenset({State.CLOSED})

TRANSITIONS: Mapping[State, Mapping[Event, frozenset[State]]] = {
    State.HEAD: {
        # A pipelined request may begin at once when the one before it has been answered.
        Event.READABLE: _ANY,
        Event.EXPIRED: _CLOSED,
        Event.EVICTED: _CLOSED,
    },
    State.WORKING: {
        # Neither deadline nor eviction: the thread uses the socket, and its work may cost money.
        Event.FINISHED: _ANY,
    },
    State.SENDING: {
        Event.WRITABLE: _ANY,
        Event.EXPIRED: frozenset({State.SENDING, State.CLOSED}),
        Event.EVICTED: _CLOSED,
    },
    State.LINGERING: {
        Event.READABLE: frozenset({State.LINGERING, State.CLOSED}),
        Event.EXPIRED: _CLOSED,
        Event.EVICTED: _CLOSED,
    },
    State.CLOSED: {},
}

_LONGEST_HEAD = 64 * 1024
"""Bytes of a request's head that are read before the request is refused."""

_END = b"\r\n\r\n"

_BARE_LF = re.compile(rb"(?<!\r)\n")
"""A line feed alone, which makes a head invalid whatever follows."""

_PLAIN_GET = re.compile(rb"(?:GET|HEAD) (/[A-Za-z0-9/._-]+) HTTP/1\.1\r\n")

_NOT_PLAIN = re.compile(rb"\r\n(?:content-length|transfer-encoding|range|expect|upgrade)[ \t]*:", re.I)
"""Headers of requests that are left to threads: with a body, for a range, or for another protocol."""

_ORIGIN = re.compile(rb"\r\norigin:[ \t]*([!-~]{1,300})[ \t]*\r\n", re.I)
"""The page's origin in a head; RFC 9110, 5.1, allows no white space before the colon."""

_MAPPED = "::ffff:"

_AT_UNIX_SOCKET = ("localhost", 80)
"""Name and port of the server for requests that name none; gunicorn would look for them in the path."""

_UNKNOWN_RATE = 32 * 1024.0
"""Bytes a second assumed at least of a client that is not measured yet: more than those that read nothing."""

_MOST_DISCARDED = 64 * 1024
"""Bytes of an unread body that are discarded so that the connection can be used again."""


class Connection:
    """One client's connection. The event loop alone changes `state`.

    `mask` holds the events that the poller watches the socket for, `slot` the second of its deadline in the
    table (0 if there is none), `active_at` when the state last changed or a request began (monotonic
    seconds), `keep` whether the connection may be used again.
    """

    __slots__ = (
        "active_at",
        "client",
        "exchange",
        "head",
        "keep",
        "marked",
        "mask",
        "parser",
        "rate",
        "searched",
        "server",
        "slot",
        "sock",
        "state",
        "window",
    )

    def __init__(self, sock: socket.socket, client: Any, server: Any, now: float) -> None:
        self.sock = sock
        # With HOST=:: an IPv4 client has a mapped address (RFC 4291, 2.5.5.2); everybody knows it by its own.
        mapped = isinstance(client, tuple) and client[0].startswith(_MAPPED)
        self.client = (client[0].removeprefix(_MAPPED), client[1]) if mapped else client
        self.server = server if isinstance(server, tuple) else _AT_UNIX_SOCKET
        self.state = State.HEAD
        self.mask = 0
        self.slot = 0
        self.active_at = now
        self.head = bytearray()
        self.searched = 0
        self.parser: Any = None
        self.exchange: Exchange | None = None
        self.keep = False
        self.rate: float | None = None
        self.marked: int | None = None
        self.window = 0
        sock.setblocking(False)

    def receive(self) -> None:
        """Read what has arrived of the next request's head. Raises `OSError` if the client has gone."""
        try:
            data = self.sock.recv(_LONGEST_HEAD)
        except BlockingIOError:
            return
        if not data:
            raise ConnectionError("the client has closed the connection")
        self.head += data

    def take_read_ahead(self) -> None:
        """Move what the parser has read of the next request into `head`: the poller does not report it."""
        if self.parser is not None:
            self.head += self.parser.unreader.take_buffered()

    def can_be_parsed(self) -> bool:
        """Return whether the parser needs no more bytes: the head is complete or invalid."""
        if self.head.find(_END, self.searched) >= 0 or _BARE_LF.search(self.head, self.searched):
            return True
        self.searched = max(0, len(self.head) - 3)
        return False

    def is_too_long(self) -> bool:
        """Return whether an incomplete head is longer than any that would be accepted."""
        return len(self.head) >= _LONGEST_HEAD

    def plain_path(self) -> str | None:
        """Return the path if the head is one GET or HEAD without body, range or upgrade, else None."""
        match = _PLAIN_GET.match(self.head)
        alone = match and self.head.find(_END) == len(self.head) - len(_END)
        return match[1].decode("ascii") if match and alone and not _NOT_PLAIN.search(self.head) else None

    def origin(self) -> str:
        """Return the `Origin` in the head, as far as it has arrived; "" if there is none."""
        found = _ORIGIN.search(self.head.partition(_END)[0] + b"\r\n")
        return found[1].decode("ascii") if found else ""

    def begin_request(self, cfg: Any) -> bytes:
        """Pass the head to gunicorn's parser, and return it."""
        head = bytes(self.head)
        if self.parser is None:
            self.parser = get_parser(cfg, self.sock, self.client)
        self.parser.unreader.unread(head)
        self.head.clear()
        self.searched = 0
        return head

    def discard_body(self) -> bool:
        """Discard what has arrived of a body that the application did not read; return whether it was all.

        The socket must not block: a body that is announced and not sent must not hold a thread.
        """
        try:
            return bool(self.parser.finish_body(max_bytes=_MOST_DISCARDED))
        except (OSError, ParseException, NoMoreData):
            return False

    def acknowledged(self) -> int:
        """Return how many bytes of the answer the client's system has acknowledged.

        What our kernel has accepted for sending says nothing about the client: it buffers megabytes.
        """
        if self.exchange is None or self.exchange.sending is None:
            return 0
        try:
            queued = fcntl.ioctl(self.sock.fileno(), termios.TIOCOUTQ, bytes(4))
        except OSError:  # not every system counts them
            return self.exchange.sending.sent
        return self.exchange.sending.sent - int(struct.unpack("i", queued)[0])

    def measure(self, seconds: float) -> None:
        """Set `rate`, in bytes a second, from what was acknowledged since the last call, `seconds` ago."""
        before, self.marked = self.marked, self.acknowledged()
        if before is not None:
            self.rate = (self.marked - before) / seconds

    def rate_at(self, now: float) -> float:
        """Return bytes a second that the client receives: as measured, else since the answer began.

        Clients that have just been accepted can't be told apart by their age: the oldest may well be reading.
        """
        if self.rate is not None:
            return self.rate
        return max(_UNKNOWN_RATE, self.acknowledged() / max(1.0, now - self.active_at))

    def begin_sending(self) -> None:
        """Reset the measurements for a new answer."""
        self.rate = None
        self.marked = None
        self.window = 0

    def is_taking(self, least: int) -> bool:
        """Return whether the client has received `least` bytes or more since the last call."""
        before, self.window = self.window, self.acknowledged()
        return self.window - before >= least

    def close(self) -> None:
        """Close the socket and end the answer being sent. The event loop calls it once."""
        exchange, self.exchange = self.exchange, None
        self.head.clear()
        try:
            self.sock.close()
        finally:
            if exchange is not None:
                exchange.end()


_SENDING_SHARE = 0.5
"""Share of the capacity that clients being sent answers may hold; beyond it the slowest are dropped first."""

_WORKING_SHARE = 0.75
"""Share of the capacity that may be with threads or wait for them; the rest can be evicted."""

_RANKED = 64
"""Connections ranked at once for eviction: ranking all for each new connection would take too long."""

_RANKING_SECONDS = 0.25
"""How long a ranking is used."""


class ConnectionTable:
    """Holds at most `capacity` connections, all open.

    Deadlines have a resolution of a second: a connection expires up to two seconds late. They are kept in
    sets, one for each second, so removing a deadline is cheap.
    """

    def __init__(self, capacity: int, now: float) -> None:
        self._capacity = capacity
        self._connections: set[Connection] = set()
        self._slots: dict[int, set[Connection]] = {}
        self._next_slot = int(now)
        self._ranked: list[tuple[Connection, State, float]] = []
        self._ranked_at = float("-inf")
        self.working = 0

    def __len__(self) -> int:
        return len(self._connections)

    def __iter__(self) -> Iterator[Connection]:
        return iter(tuple(self._connections))

    def add(self, conn: Connection) -> None:
        """Add a new connection."""
        self._connections.add(conn)

    def remove(self, conn: Connection) -> None:
        """Remove a connection and its deadline."""
        self._connections.discard(conn)
        self.cancel_deadline(conn)

    def is_full(self) -> bool:
        """Return whether a connection must be dropped before another can be added."""
        return len(self._connections) >= self._capacity

    def may_work(self) -> bool:
        """Return whether one more request may be passed to the threads."""
        return self.working < max(1, int(self._capacity * _WORKING_SHARE))

    def set_deadline(self, conn: Connection, deadline: float) -> None:
        """Set when the connection expires, in monotonic seconds, in place of any deadline set before."""
        slot = max(int(deadline) + 1, self._next_slot)
        if slot != conn.slot:
            self.cancel_deadline(conn)
            conn.slot = slot
            self._slots.setdefault(slot, set()).add(conn)

    def cancel_deadline(self, conn: Connection) -> None:
        """Remove the connection's deadline."""
        slot = self._slots.get(conn.slot)
        if slot is not None:
            slot.discard(conn)
            if not slot:
                del self._slots[conn.slot]
        conn.slot = 0

    def expired(self, now: float) -> list[Connection]:
        """Return the connections whose deadlines have passed, and remove those deadlines."""
        found: list[Connection] = []
        for slot in range(self._next_slot, int(now) + 1):
            found += self._slots.pop(slot, ())
        self._next_slot = int(now) + 1
        for conn in found:
            conn.slot = 0
        return found

    def measure_senders(self, seconds: float) -> None:
        """Measure how fast clients receive their answers; `seconds` have passed since the last call."""
        for conn in self._connections:
            if conn.state is State.SENDING:
                conn.measure(seconds)

    def worst(self, now: float) -> Connection | None:
        """Return the connection to drop first; None if threads work on all of them.

        First those that linger after their last answer; then the slowest of the clients that are being sent
        answers, if these hold more than their share; then those that have been silent the longest.
        """
        if now - self._ranked_at > _RANKING_SECONDS:
            self._ranked.clear()
        for _ in range(2):
            while self._ranked:
                conn, state, active_at = self._ranked.pop()
                if (conn.state, conn.active_at) == (state, active_at):
                    return conn
            self._rank(now)
        return None

    def _rank(self, now: float) -> None:
        senders = sum(conn.state is State.SENDING for conn in self._connections)
        over = senders - int(self._capacity * _SENDING_SHARE)
        ranks = {State.LINGERING: 0, State.SENDING: 1 if over > 0 else 3, State.HEAD: 2}
        candidates = (
            (
                ranks[conn.state],
                conn.rate_at(now) if conn.state is State.SENDING else 0.0,
                conn.active_at,
                id(conn),
                conn,
            )
            for conn in self._connections
            if conn.state in ranks
        )
        worst = heapq.nsmallest(min(_RANKED, over) if over > 0 else _RANKED, candidates)
        self._ranked = [(conn, conn.state, conn.active_at) for *_, conn in reversed(worst)]
        self._ranked_at = now
