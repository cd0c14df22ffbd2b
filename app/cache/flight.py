"""Single flight: of all who miss the same key at once, one asks the store and the others wait for it."""

import copy
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from app.cache.keylock import KeyLocks
from app.errors import NotFound, StoreRefused, StoreTimeout

T = TypeVar("T")

_TRIES = 2
"""Leaders that those who wait live through; the second one's failure is theirs, too."""

_VERDICTS = (NotFound, StoreRefused)
"""What the store would only say again."""


class _Flight:
    """One leader's try, and what it leaves for those who wait."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.landed = threading.Event()
        self.error: BaseException | None = None

    def is_final(self) -> bool:
        """Whether the failure is everybody's, and not the leader's alone."""
        return self.number >= _TRIES or isinstance(self.error, _VERDICTS)


class SingleFlight:
    """Leaders by key: one thread of a process, and, by `locks`, one process of the machine.

    Nobody waits longer than `patience` seconds.
    """

    def __init__(self, locks: KeyLocks, patience: float) -> None:
        self._locks = locks
        self._patience = patience
        self._mutex = threading.Lock()
        self._under_way: dict[str, _Flight] = {}

    def run(self, key: str, lead: Callable[[], T], follow: Callable[[], T]) -> T:
        """`lead()` where nobody else leads; otherwise `follow()` once the leader is done.

        A leader that fails hands over to one of those who wait. Where the store has given its verdict, or the
        second leader has failed as well, the error is raised for all.

        Raises `StoreTimeout` when patience ends.
        """
        deadline = time.monotonic() + self._patience
        number = 1
        while True:
            flight, leads = self._join(key, number)
            if leads:
                return self._lead(key, flight, lead, deadline)
            if not flight.landed.wait(deadline - time.monotonic()):
                raise StoreTimeout(detail="waited for another request's fill")
            if flight.error is None:
                return follow()
            if flight.is_final():
                raise copy.copy(flight.error)
            number = flight.number + 1

    def _join(self, key: str, number: int) -> tuple[_Flight, bool]:
        """The flight under way for `key`, or a new one, and whether it is ours to lead."""
        with self._mutex:
            flight = self._under_way.get(key)
            if flight is not None:
                return flight, False
            self._under_way[key] = flight = _Flight(number)
            return flight, True

    def _lead(self, key: str, flight: _Flight, lead: Callable[[], T], deadline: float) -> T:
        try:
            with self._locks.held(key, deadline):
                return lead()
        except BaseException as exc:
            flight.error = (
                exc if isinstance(exc, Exception) else StoreTimeout(detail="the leader was stopped")
            )
            raise
        finally:
            with self._mutex:
                del self._under_way[key]
            flight.landed.set()
