"""The connections of a worker, each of which is a state machine, and a table with their deadlines.

`TRANSITIONS` defines the state machine. It lists which events can happen in each state, and which states can
follow. An event that is not listed is stale. For example, one event may close a connection before a later
event of the same batch is handled. The event loop skips stale events, so any event may safely arrive in any
state.
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
    """The state of a connection."""

    HEAD = 0
    """The loop is waiting for a request head. On an idle connection, no byte of the head has arrived."""
    WORKING = 1
    """A thread is answering the request, or the request waits for a thread. The loop ignores the socket."""
    SENDING = 2
    """The loop is waiting until the client can receive more of the response."""
    LINGERING = 3
    """The last response was sent. Input is discarded until the client disconnects (RFC 9112, 9.6)."""
    CLOSED = 4


class Event(IntEnum):
    """An event that can happen to a connection."""

    READABLE = 0
    WRITABLE = 1
    FINISHED = 2
    """The thread has finished its work on the request."""
    EXPIRED = 3
    """The connection's deadline has passed."""
    EVICTED = 4
    """The worker has too many connections, so it drops this one."""


_OPEN = frozenset({State.HEAD, State.WORKING, State.SENDING, State.LINGERING})
_ANY = _OPEN | {State.CLOSED}
_CLOSED = frozenset({State.CLOSED})

TRANSITIONS: Mapping[State, Mapping[Event, frozenset[State]]] = {
    State.HEAD: {
        # After the response to a pipelined request, the next request may begin immediately.
        Event.READABLE: _ANY,
        Event.EXPIRED: _CLOSED,
        Event.EVICTED: _CLOSED,
    },
    State.WORKING: {
        # There is no deadline and no eviction: the thread uses the socket, and its work may cost money.
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
"""Maximum size of a request head. Longer heads are rejected."""

_MAX_DISCARDED_BYTES = 64 * 1024
"""Maximum number of bytes of an unread body that are discarded so that the connection can be reused."""

_HEAD_END = b"\r\n\r\n"

_BARE_LF = re.compile(rb"(?<!\r)\n")
"""A line feed without a carriage return. A head that contains one is invalid."""

_PLAIN_GET = re.compile(rb"(?:GET|HEAD) (/[A-Za-z0-9/._,-]+) HTTP/1\.1\r\n")

_NOT_PLAIN = re.compile(rb"\r\n(?:content-length|transfer-encoding|range|expect|upgrade)[ \t]*:", re.I)
"""Headers of requests that only threads answer, since these have a body, a range or a protocol upgrade."""

_ORIGIN = re.compile(rb"\r\norigin:[ \t]*([!-~]{1,300})[ \t]*\r\n", re.I)
"""The `Origin` header. White space before the colon is not allowed (RFC 9110, 5.1)."""

_ACCEPT = re.compile(rb"\r\naccept:[ \t]*([ -~]*?)[ \t]*\r\n", re.I)

_IPV4_MAPPED = "::ffff:"

_UNIX_SOCKET_ADDRESS = ("localhost", 80)
"""The server name and port for a Unix socket. gunicorn would derive them from the path of the socket."""

_ASSUMED_BYTES_PER_SECOND = 32 * 1024.0
"""Minimum rate that is assumed for a client until its rate has been measured. A client that was measured and
reads nothing is therefore evicted earlier."""


class Connection:
    """The connection of a client. Only the event loop changes `state`.

    - `mask`: the events for which the poller watches the socket.
    - `deadline`: the monotonic second in which the connection expires, or 0 if it has no deadline.
    - `active_at`: the monotonic time in seconds at which the state last changed or a request began.
    - `keep_alive`: whether the connection can be used for another request.
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
        # With HOST=::, IPv4 clients have mapped addresses (RFC 4291, 2.5.5.2).
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
        """Read the bytes of the next head that have arrived.

        Raise `OSError` if the client has disconnected.
        """
        try:
            data = self.sock.recv(_MAX_HEAD_BYTES)
        except BlockingIOError:
            return
        if not data:
            raise ConnectionError("the client has closed the connection")
        self.head += data

    def receive_read_ahead(self) -> None:
        """Move bytes of the next request from the parser's buffer into `head`.

        The poller does not report these bytes, since they have already been read from the socket.
        """
        if self.parser is not None:
            self.head += self.parser.unreader.take_buffered()

    def can_be_parsed(self) -> bool:
        """Return whether the head is complete, or is invalid no matter what follows."""
        if self.head.find(_HEAD_END, self.searched) >= 0 or _BARE_LF.search(self.head, self.searched):
            return True
        self.searched = max(0, len(self.head) - 3)
        return False

    def is_head_too_long(self) -> bool:
        """Return whether the head, though still incomplete, is already longer than allowed."""
        return len(self.head) >= _MAX_HEAD_BYTES

    def plain_path(self) -> str | None:
        """Return the path of a single GET or HEAD request without a body, range or upgrade, or else None."""
        match = _PLAIN_GET.match(self.head)
        single = match and self.head.find(_HEAD_END) == len(self.head) - len(_HEAD_END)
        return match[1].decode("ascii") if match and single and not _NOT_PLAIN.search(self.head) else None

    def origin(self) -> str:
        """Return the `Origin` in the part of the head that has arrived, or "" if there is none."""
        found = _ORIGIN.search(self.head.partition(_HEAD_END)[0] + b"\r\n")
        return found[1].decode("ascii") if found else ""

    def accept(self) -> str:
        """Return the `Accept` header of the request in `head`, or "" if it is missing or was sent twice."""
        values = _ACCEPT.findall(self.head)
        return values[0].decode("ascii") if len(values) == 1 else ""

    def begin_request(self, cfg: Any) -> bytes:
        """Pass the head to gunicorn's parser, and return the bytes of the head."""
        head = bytes(self.head)
        if self.parser is None:
            self.parser = get_parser(cfg, self.sock, self.client)
        self.parser.unreader.unread(head)
        self.head.clear()
        self.searched = 0
        return head

    def discard_body(self) -> bool:
        """Discard the part of the body that the application did not read.

        Return whether the whole body had arrived. The socket must be non-blocking, so that a body that is
        never sent does not occupy a thread.
        """
        try:
            return bool(self.parser.finish_body(max_bytes=_MAX_DISCARDED_BYTES))
        except (OSError, ParseException, NoMoreData):
            return False

    def begin_sending(self) -> None:
        """Reset the measurements of the client's speed. Call this before a new response is sent."""
        self.rate = None
        self.acknowledged_before = None
        self.acknowledged_in_window = 0

    def acknowledged(self) -> int:
        """Return how many bytes of the response the client's operating system has acknowledged.

        The number of bytes that our kernel accepted would say little about the client, since the kernel
        buffers megabytes.
        """
        if self.exchange is None or self.exchange.sender is None:
            return 0
        try:
            queued = fcntl.ioctl(self.sock.fileno(), termios.TIOCOUTQ, bytes(4))
        except OSError:  # not every system supports this
            return self.exchange.sender.sent
        return self.exchange.sender.sent - int(struct.unpack("i", queued)[0])

    def measure_rate(self, seconds: float) -> None:
        """Set `rate` to the average in bytes per second since the last call, which was `seconds` ago."""
        before, self.acknowledged_before = self.acknowledged_before, self.acknowledged()
        if before is not None:
            self.rate = (self.acknowledged_before - before) / seconds

    def rate_at(self, now: float) -> float:
        """Return the measured rate of the client in bytes per second, or else the average for this response.

        Clients that have not been measured are ranked by this average. They are not ranked by age, since the
        oldest client may well be reading.
        """
        if self.rate is not None:
            return self.rate
        return max(_ASSUMED_BYTES_PER_SECOND, self.acknowledged() / max(1.0, now - self.active_at))

    def has_received(self, min_bytes: int) -> bool:
        """Return whether the client has received at least `min_bytes` since this method was last called."""
        before, self.acknowledged_in_window = self.acknowledged_in_window, self.acknowledged()
        return self.acknowledged_in_window - before >= min_bytes

    def close(self) -> None:
        """Close the socket and end the current exchange. The event loop calls this once."""
        exchange, self.exchange = self.exchange, None
        self.head.clear()
        try:
            self.sock.close()
        finally:
            if exchange is not None:
                exchange.end()


_MAX_SENDING_SHARE = 0.5
"""If more than this share of the capacity is in the state SENDING, the slowest of these connections are
evicted first."""

_MAX_WORKING_SHARE = 0.75
"""Maximum share of the capacity in the state WORKING, so that there are always connections to evict."""

_RANKING_SIZE = 64
"""How many candidates for eviction are chosen at once, since ranking all connections for each new one would
take too long."""

_RANKING_SECONDS = 0.25
"""How long a ranking is valid."""


class ConnectionTable:
    """The open connections, of which there are at most `capacity`.

    A connection expires up to two seconds after its deadline. Connections whose deadlines fall into the same
    second are kept in one set, so that changing a deadline is cheap.
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
        """Remove a connection from the table, and cancel its deadline."""
        self._connections.discard(conn)
        self.cancel_deadline(conn)

    def is_full(self) -> bool:
        """Return whether a connection must be evicted before a new one can be added."""
        return len(self._connections) >= self._capacity

    def can_work(self) -> bool:
        """Return whether one more request can be passed to the threads."""
        return self.working < max(1, int(self._capacity * _MAX_WORKING_SHARE))

    def set_deadline(self, conn: Connection, deadline: float) -> None:
        """Set or replace the deadline of a connection, in monotonic seconds."""
        second = max(int(deadline) + 1, self._next_deadline)
        if second != conn.deadline:
            self.cancel_deadline(conn)
            conn.deadline = second
            self._by_deadline.setdefault(second, set()).add(conn)

    def cancel_deadline(self, conn: Connection) -> None:
        """Cancel the deadline of a connection, if it has one."""
        expiring = self._by_deadline.get(conn.deadline)
        if expiring is not None:
            expiring.discard(conn)
            if not expiring:
                del self._by_deadline[conn.deadline]
        conn.deadline = 0

    def expired(self, now: float) -> list[Connection]:
        """Return the connections whose deadlines have passed, and cancel these deadlines."""
        found: list[Connection] = []
        for second in range(self._next_deadline, int(now) + 1):
            found += self._by_deadline.pop(second, ())
        self._next_deadline = int(now) + 1
        for conn in found:
            conn.deadline = 0
        return found

    def measure_rates(self, seconds: float) -> None:
        """Measure how fast clients receive their responses. The last call was `seconds` ago."""
        for conn in self._connections:
            if conn.state is State.SENDING:
                conn.measure_rate(seconds)

    def next_to_evict(self, now: float) -> Connection | None:
        """Return the next connection to evict, or None if threads are working on all of them.

        Lingering connections are evicted first. The slowest connections in the state SENDING are next, if
        such connections exceed their share of the capacity. Then come the connections that have been inactive
        for the longest time.
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
