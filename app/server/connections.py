"""The connections of a worker: each one a state machine, and the table of all with deadlines and eviction.

`TRANSITIONS` is the whole state machine: which events can happen to a connection in each state, and which
states they may lead to. An event that the table does not list is stale. That happens if one event of a batch
closes a connection that a later event of the same batch is about. The event loop skips stale events, so every
event is legal in every state.
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
    """What a connection waits for."""

    HEAD = 0
    """The server waits for a request's head. On an idle connection, no byte of it has arrived."""
    WORKING = 1
    """A thread answers a request, or the request waits for a thread. The loop does not use the socket."""
    SENDING = 2
    """The loop waits for the client to receive more of a response."""
    LINGERING = 3
    """The last response is sent. What still arrives is discarded until the client closes (RFC 9112, 9.6)."""
    CLOSED = 4


class Event(IntEnum):
    """What can happen to a connection."""

    READABLE = 0
    WRITABLE = 1
    FINISHED = 2
    """The thread has finished with the request."""
    EXPIRED = 3
    """The deadline has passed."""
    EVICTED = 4
    """The worker has too many connections and drops this one."""


_OPEN = frozenset({State.HEAD, State.WORKING, State.SENDING, State.LINGERING})
_ANY = _OPEN | {State.CLOSED}
_CLOSED = frozenset({State.CLOSED})

TRANSITIONS: Mapping[State, Mapping[Event, frozenset[State]]] = {
    State.HEAD: {
        # When a pipelined request has been answered, the next one may begin at once.
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

_MAX_HEAD_BYTES = 64 * 1024
"""A longer head is refused."""

_MAX_DISCARDED_BYTES = 64 * 1024
"""How much of an unread body is discarded so that the connection can be reused."""

_HEAD_END = b"\r\n\r\n"

_BARE_LF = re.compile(rb"(?<!\r)\n")
"""A line feed without a carriage return, which makes a head invalid whatever follows."""

_PLAIN_GET = re.compile(rb"(?:GET|HEAD) (/[A-Za-z0-9/._-]+) HTTP/1\.1\r\n")

_NOT_PLAIN = re.compile(rb"\r\n(?:content-length|transfer-encoding|range|expect|upgrade)[ \t]*:", re.I)
"""Headers of requests that only threads answer: with a body, for a range, or for another protocol."""

_ORIGIN = re.compile(rb"\r\norigin:[ \t]*([!-~]{1,300})[ \t]*\r\n", re.I)
"""The `Origin` header. RFC 9110, 5.1, allows no white space before the colon."""

_IPV4_MAPPED = "::ffff:"

_UNIX_SOCKET_ADDRESS = ("localhost", 80)
"""The server's name and port at a Unix socket. gunicorn would look for them in the socket's path."""

_ASSUMED_BYTES_PER_SECOND = 32 * 1024.0
"""The least rate assumed of a client that is not measured yet: more than of clients that read nothing."""


class Connection:
    """One client's connection. Only the event loop changes `state`.

    `mask` holds the events that the poller watches the socket for. `deadline` is the second in which the
    connection expires, 0 if there is no deadline. `active_at` is when the state last changed or a request
    began, in monotonic seconds. `keep_alive` is whether the connection may be used for another request.
    """

    __slots__ = (
        "acknowledged_before",
        "acknowledged_in_window",
        "active_at",
        "client",
        "deadline",
        "exchange",
        "head",
        "keep_alive",
        "mask",
        "parser",
        "rate",
        "searched",
        "server",
        "sock",
        "state",
    )

    def __init__(self, sock: socket.socket, client: Any, server: Any, now: float) -> None:
        self.sock = sock
        # With HOST=:: an IPv4 client has a mapped address (RFC 4291, 2.5.5.2).
        mapped = isinstance(client, tuple) and client[0].startswith(_IPV4_MAPPED)
        self.client = (client[0].removeprefix(_IPV4_MAPPED), client[1]) if mapped else client
        self.server = server if isinstance(server, tuple) else _UNIX_SOCKET_ADDRESS
        self.state = State.HEAD
        self.mask = 0
        self.deadline = 0
        self.active_at = now
        self.head = bytearray()
        self.searched = 0
        self.parser: Any = None
        self.exchange: Exchange | None = None
        self.keep_alive = False
        self.rate: float | None = None
        self.acknowledged_before: int | None = None
        self.acknowledged_in_window = 0
        sock.setblocking(False)

    def receive(self) -> None:
        """Read what has arrived of the next head. Raise `OSError` if the client has disconnected."""
        try:
            data = self.sock.recv(_MAX_HEAD_BYTES)
        except BlockingIOError:
            return
        if not data:
            raise ConnectionError("the client has closed the connection")
        self.head += data

    def receive_read_ahead(self) -> None:
        """Move what the parser has read of the next request into `head`: the poller does not report it."""
        if self.parser is not None:
            self.head += self.parser.unreader.take_buffered()

    def can_be_parsed(self) -> bool:
        """Return whether the parser needs no more bytes: the head is complete or invalid."""
        if self.head.find(_HEAD_END, self.searched) >= 0 or _BARE_LF.search(self.head, self.searched):
            return True
        self.searched = max(0, len(self.head) - 3)
        return False

    def is_head_too_long(self) -> bool:
        """Return whether an incomplete head is longer than any that would be accepted."""
        return len(self.head) >= _MAX_HEAD_BYTES

    def plain_path(self) -> str | None:
        """Return the path if the head is a single GET or HEAD without body, range or upgrade, else None."""
        match = _PLAIN_GET.match(self.head)
        single = match and self.head.find(_HEAD_END) == len(self.head) - len(_HEAD_END)
        return match[1].decode("ascii") if match and single and not _NOT_PLAIN.search(self.head) else None

    def origin(self) -> str:
        """Return the `Origin` in the head, as far as that has arrived; "" if there is none."""
        found = _ORIGIN.search(self.head.partition(_HEAD_END)[0] + b"\r\n")
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

        The socket must not block: a body that is announced and never sent must not hold a thread.
        """
        try:
            return bool(self.parser.finish_body(max_bytes=_MAX_DISCARDED_BYTES))
        except (OSError, ParseException, NoMoreData):
            return False

    def begin_sending(self) -> None:
        """Reset the measurements for a new response."""
        self.rate = None
        self.acknowledged_before = None
        self.acknowledged_in_window = 0

    def acknowledged(self) -> int:
        """Return how many bytes of the response the client's system has acknowledged.

        What the kernel has accepted for sending says nothing about the client: it buffers megabytes.
        """
        if self.exchange is None or self.exchange.sender is None:
            return 0
        try:
            queued = fcntl.ioctl(self.sock.fileno(), termios.TIOCOUTQ, bytes(4))
        except OSError:  # not every system counts them
            return self.exchange.sender.sent
        return self.exchange.sender.sent - int(struct.unpack("i", queued)[0])

    def measure_rate(self, seconds: float) -> None:
        """Set `rate`, in bytes per second, to the average over the `seconds` since the last call."""
        before, self.acknowledged_before = self.acknowledged_before, self.acknowledged()
        if before is not None:
            self.rate = (self.acknowledged_before - before) / seconds

    def rate_at(self, now: float) -> float:
        """Return the client's rate in bytes per second: as measured, else the average of this response.

        Clients that have just connected can't be told apart by age: the oldest may well be reading.
        """
        if self.rate is not None:
            return self.rate
        return max(_ASSUMED_BYTES_PER_SECOND, self.acknowledged() / max(1.0, now - self.active_at))

    def has_received(self, min_bytes: int) -> bool:
        """Return whether the client has received at least `min_bytes` since the last call."""
        before, self.acknowledged_in_window = self.acknowledged_in_window, self.acknowledged()
        return self.acknowledged_in_window - before >= min_bytes

    def close(self) -> None:
        """Close the socket and end the current exchange. The event loop calls it once."""
        exchange, self.exchange = self.exchange, None
        self.head.clear()
        try:
            self.sock.close()
        finally:
            if exchange is not None:
                exchange.end()


_MAX_SENDING_SHARE = 0.5
"""Share of the capacity for clients in the state SENDING. Beyond it the slowest of them are evicted first."""

_MAX_WORKING_SHARE = 0.75
"""Share of the capacity that may be with threads or wait for them. The rest can be evicted."""

_RANKING_SIZE = 64
"""Connections ranked for eviction at once: ranking all for each new connection would take too long."""

_RANKING_SECONDS = 0.25
"""How long a ranking is used."""


class ConnectionTable:
    """The open connections, at most `capacity`.

    A connection expires up to two seconds after its deadline. Deadlines are kept in sets, one for each
    second, so that changing one is cheap.
    """

    def __init__(self, capacity: int, now: float) -> None:
        self._capacity = capacity
        self._connections: set[Connection] = set()
        self._by_deadline: dict[int, set[Connection]] = {}
        self._next_deadline = int(now)
        self._ranked: list[tuple[Connection, State, float]] = []
        self._ranked_at = float("-inf")
        self.working = 0
        """The number of connections in the state WORKING."""

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
        """Return whether a connection must be evicted before another can be added."""
        return len(self._connections) >= self._capacity

    def may_work(self) -> bool:
        """Return whether one more request may be passed to the threads."""
        return self.working < max(1, int(self._capacity * _MAX_WORKING_SHARE))

    def set_deadline(self, conn: Connection, deadline: float) -> None:
        """Set when the connection expires, in monotonic seconds, in place of any earlier deadline."""
        second = max(int(deadline) + 1, self._next_deadline)
        if second != conn.deadline:
            self.cancel_deadline(conn)
            conn.deadline = second
            self._by_deadline.setdefault(second, set()).add(conn)

    def cancel_deadline(self, conn: Connection) -> None:
        """Remove the connection's deadline, if it has one."""
        expiring = self._by_deadline.get(conn.deadline)
        if expiring is not None:
            expiring.discard(conn)
            if not expiring:
                del self._by_deadline[conn.deadline]
        conn.deadline = 0

    def expired(self, now: float) -> list[Connection]:
        """Return the connections whose deadlines have passed, and remove those deadlines."""
        found: list[Connection] = []
        for second in range(self._next_deadline, int(now) + 1):
            found += self._by_deadline.pop(second, ())
        self._next_deadline = int(now) + 1
        for conn in found:
            conn.deadline = 0
        return found

    def measure_rates(self, seconds: float) -> None:
        """Measure how fast clients receive their responses; `seconds` have passed since the last call."""
        for conn in self._connections:
            if conn.state is State.SENDING:
                conn.measure_rate(seconds)

    def next_to_evict(self, now: float) -> Connection | None:
        """Return the connection to evict first; None if threads work on all of them.

        Lingering connections come first. Next come the slowest of the clients that are being sent responses,
        if these hold more than their share, and then those that have been silent the longest.
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
        sending = sum(conn.state is State.SENDING for conn in self._connections)
        excess = sending - int(self._capacity * _MAX_SENDING_SHARE)
        ranks = {State.LINGERING: 0, State.SENDING: 1 if excess > 0 else 3, State.HEAD: 2}
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
        first = heapq.nsmallest(min(_RANKING_SIZE, excess) if excess > 0 else _RANKING_SIZE, candidates)
        self._ranked = [(conn, conn.state, conn.active_at) for *_, conn in reversed(first)]
        self._ranked_at = now
