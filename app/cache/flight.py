"""Single flight: of all who miss the same key at once, one asks the store and the others wait for it."""

import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from app.cache.layout import slot_of
from app.errors import StoreTimeout

T = TypeVar("T")

_FIRST_POLL, _LAST_POLL = 0.001, 0.01
"""Seconds between looks at a lock that another process holds: `flock` has no deadline of its own."""


class _Flight:
    """What a leader leaves for those who wait."""

    def __init__(self) -> None:
        self.landed = threading.Event()
        self.error: BaseException | None = None


class SingleFlight:
    """Leaders by key: one thread of a process, and, by a lock file, one process of the machine.

    Nobody waits longer than `patience` seconds.
    """

    def __init__(self, locks: Path, patience: float) -> None:
        self._locks = locks
        self._patience = patience
        self._mutex = threading.Lock()
        self._under_way: dict[str, _Flight] = {}

    def run(self, key: str, lead: Callable[[], T], follow: Callable[[], T]) -> T:
        """`lead()` where nobody else leads; otherwise `follow()` once the leader is done, or its error.

        Raises `StoreTimeout` when patience ends.
        """
        with self._mutex:
            flight = self._under_way.get(key)
            if leads := flight is None:
                flight = self._under_way[key] = _Flight()
        assert flight is not None
        return self._lead(key, flight, lead) if leads else self._follow(flight, follow)

    def _lead(self, key: str, flight: _Flight, lead: Callable[[], T]) -> T:
        try:
            with self._among_processes(slot_of(key)):
                return lead()
        except BaseException as exc:
            flight.error = exc
            raise
        finally:
            with self._mutex:
                del self._under_way[key]
            flight.landed.set()

    def _follow(self, flight: _Flight, follow: Callable[[], T]) -> T:
        if not flight.landed.wait(self._patience):
            raise StoreTimeout(detail="waited for another request's fill")
        if flight.error is not None:
            raise flight.error
        return follow()

    @contextmanager
    def _among_processes(self, slot: int) -> Iterator[None]:
        descriptor = os.open(self._locks / str(slot), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._wait_for(descriptor)
            yield
        finally:
            os.close(descriptor)

    def _wait_for(self, descriptor: int) -> None:
        deadline = time.monotonic() + self._patience
        pause = _FIRST_POLL
        while not _try_lock(descriptor):
            if time.monotonic() > deadline:
                raise StoreTimeout(detail="waited for another process's fill")
            time.sleep(pause)
            pause = min(2 * pause, _LAST_POLL)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
