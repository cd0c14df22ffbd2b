"""The connections of a worker: their number and deadlines, and which is dropped if there are too many."""

import heapq
from collections.abc import Iterator

from app.server.connections import Connection, State

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
