"""Keys that the store has said are not there: remembered for a short time, in bounded memory.

Locks by key among the processes of a machine: each is one byte of a file, so that none has to be made.

A lock file for each key would cost a miss more than all else: ext4 looks for a long time for an inode that
was not in use a moment ago.

Single flight: of all who miss the same key at once, one asks the store and the others wait for it.
"""

import copy
import fcntl
import hashlib
import os
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from app.core.errors import NotFound, StoreRefused, StoreTimeout
from app.core.system import UNLOCKABLE, warn_unlockable

_SET_LOCK: int | None = getattr(fcntl, "F_OFD_SETLK", None) if sys.platform == "linux" else None
"""Locks of an open file, which other threads of the process don't share (fcntl(2), Linux 3.15)."""

_FLOCK = "hhqqi"
"""`struct flock` of Linux: type, whence, start, length, process."""

_FIRST_POLL, _LAST_POLL = 0.001, 0.01
"""Seconds between looks at a lock that another process holds: waiting in the kernel has no deadline."""


class KeyLocks:
    """The locks in the file at `path`. Where there are none, as on other systems, nobody is shut out."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def held(self, key: str, deadline: float) -> Iterator[None]:
        """Hold the lock of `key`, which the kernel frees however the process ends.

        Raises `OSError` where the file can't be opened, and `StoreTimeout` where another process holds the
        lock until `deadline` (monotonic seconds).
        """
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                _wait_for(descriptor, _place_of(key), deadline)
            except OSError as exc:
                if exc.errno not in UNLOCKABLE:
                    raise
                warn_unlockable(self._path, descriptor, exc)  # each process then asks the store itself
            yield
        finally:
            os.close(descriptor)


def _place_of(key: str) -> int:
    """Where in the file: two keys meet by a chance of 2 to the power of -62, and then only wait."""
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8]) >> 2


def _wait_for(descriptor: int, place: int, deadline: float) -> None:
    pause = _FIRST_POLL
    while not _try_lock(descriptor, place):
        if time.monotonic() > deadline:
            raise StoreTimeout(detail="waited for another process's fill")
        time.sleep(pause)
        pause = min(2 * pause, _LAST_POLL)


def _try_lock(descriptor: int, place: int) -> bool:
    if _SET_LOCK is None:
        return True
    try:
        fcntl.fcntl(descriptor, _SET_LOCK, struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, place, 1, 0))
    except BlockingIOError:
        return False
    return True


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


_REMEMBERED = 10_000


class NegativeCache:
    """Keys known to be missing for `ttl` seconds, unless they are changed through any worker of this machine.

    What was changed is told by the key's epoch, which all processes share.
    """

    def __init__(self, ttl: float, clock: Callable[[], float]) -> None:
        self._ttl = ttl
        self._clock = clock
        self._missing: dict[str, tuple[float, int]] = {}

    def note(self, key: str, epoch: int) -> None:
        """The store has no such object; `epoch` is from before it was asked."""
        if len(self._missing) >= _REMEMBERED:
            self._missing.clear()
        self._missing[key] = (self._clock() + self._ttl, epoch)

    def holds(self, key: str, epoch: Callable[[str], int]) -> bool:
        """Whether `key` is known to be missing still; `epoch` tells the present one."""
        noted = self._missing.get(key)
        if noted is None:
            return False
        until, then = noted
        if self._clock() < until and epoch(key) == then:
            return True
        self._missing.pop(key, None)
        return False
