"""Single flight: of all who miss the same key at once, one asks the store and the others wait for it."""

import copy
import fcntl
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from app.errors import NotFound, StoreRefused, StoreTimeout

T = TypeVar("T")

_FIRST_POLL, _LAST_POLL = 0.001, 0.01
"""Seconds between looks at a lock that another process holds: `flock` has no deadline of its own."""

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
    """Leaders by key: one thread of a process, and, by a lock file, one process of the machine.

    Nobody waits longer than `patience` seconds.
    """

    def __init__(self, locks: Path, patience: float) -> None:
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

    def sweep(self) -> None:
        """Remove the lock files of processes that were killed in a flight: those that nobody holds."""
        for path in self._locks.glob("[0-9a-f]" * 64):
            with suppress(OSError):
                _remove_if_free(path)

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
            with self._among_processes(key, deadline):
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

    @contextmanager
    def _among_processes(self, key: str, deadline: float) -> Iterator[None]:
        """Hold the key's lock file; it is removed at the end, so that there are never more than flights."""
        path = self._locks / hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
        descriptor = _lock(path, deadline)
        try:
            yield
        finally:
            with suppress(OSError):
                path.unlink()
            os.close(descriptor)


def _lock(path: Path, deadline: float) -> int:
    """The descriptor of the locked file at `path`, made where it is missing."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _wait_for(descriptor, deadline)
            if os.fstat(descriptor).st_nlink:
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its last holder removed it while we waited


def _remove_if_free(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        if _try_lock(descriptor):
            path.unlink()
    finally:
        os.close(descriptor)


def _wait_for(descriptor: int, deadline: float) -> None:
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
