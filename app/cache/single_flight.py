"""Single flight: of all requests that miss the same key at once, one calls the store and the others wait.

Threads of one process wait for an event, and processes for a lock on one byte of a file that stands for the
key. A lock file for each key would cost a miss more than everything else: creating files is slow on ext4.
"""

import copy
import fcntl
import hashlib
import os
import struct
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.core.errors import NotFound, StoreRefused, StoreTimeout
from app.core.system import UNLOCKABLE, warn_unlockable

_SET_LOCK: int | None = getattr(fcntl, "F_OFD_SETLK", None) if sys.platform == "linux" else None
"""Locks an open file, so that threads of one process exclude each other (fcntl(2), Linux 3.15)."""

_FLOCK = "hhqqi"
"""`struct flock` of Linux: type, whence, start, length, process."""

_MIN_POLL_SECONDS, _MAX_POLL_SECONDS = 0.001, 0.01
"""Pauses between attempts to get a lock: fcntl(2) can wait, but has no timeout."""

_MAX_ATTEMPTS = 2
"""Leaders that fail, one after the other, before all that wait for them fail too."""

_FINAL_ERRORS = (NotFound, StoreRefused)
"""Errors that another attempt would only repeat."""


class SingleFlight:
    """Chooses a leader for each key: one thread of a process and, through `locks`, one process of the
    machine.

    A thread waits for a leader for at most `timeout` seconds.
    """

    def __init__(self, locks: "KeyLocks", timeout: float) -> None:
        self._locks = locks
        self._timeout = timeout
        self._mutex = threading.Lock()
        self._in_flight: dict[str, _Flight] = {}

    @contextmanager
    def turn(self, key: str) -> Iterator[bool]:
        """Yield True in the leader, which has to call the store, and False in others once it has succeeded.

        If the leader's block fails, one of the threads that wait becomes the leader. If the error is final,
        or the second leader has failed, all raise the error. Raises `StoreTimeout` when the timeout ends.
        """
        deadline = time.monotonic() + self._timeout
        attempt = 1
        while True:
            flight, leads = self._join(key, attempt)
            if leads:
                break
            if not flight.landed.wait(deadline - time.monotonic()):
                raise StoreTimeout(detail="waited for another request to fetch the same object")
            if flight.error is None:
                yield False
                return
            if flight.is_final():
                raise copy.copy(flight.error)
            attempt = flight.attempt + 1
        try:
            with self._locks.held(key, deadline):
                yield True
        except Exception as exc:
            flight.error = exc
            raise
        except BaseException:
            flight.error = StoreTimeout(detail="the thread that fetched the object was stopped")
            raise
        finally:
            with self._mutex:
                del self._in_flight[key]
            flight.landed.set()

    def _join(self, key: str, attempt: int) -> "tuple[_Flight, bool]":
        """Return the flight in progress for `key`, or a new one, and whether the caller leads it."""
        with self._mutex:
            flight = self._in_flight.get(key)
            if flight is not None:
                return flight, False
            self._in_flight[key] = flight = _Flight(attempt)
            return flight, True


class KeyLocks:
    """Locks by key, in the file at `path`. On systems without such locks all callers enter."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def held(self, key: str, deadline: float) -> Iterator[None]:
        """Hold the lock of `key` inside the block. The kernel releases it however the process ends.

        Raises `StoreTimeout` if another process holds the lock until `deadline` (seconds of
        `time.monotonic`), and `OSError` if the file can't be opened.
        """
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                _lock_byte(descriptor, _offset_of(key), deadline)
            except OSError as exc:
                if exc.errno not in UNLOCKABLE:
                    raise
                warn_unlockable(self._path, descriptor, exc)  # each process then calls the store itself
            yield
        finally:
            os.close(descriptor)


class _Flight:
    """One leader's attempt, and its result for those who wait."""

    def __init__(self, attempt: int) -> None:
        self.attempt = attempt
        self.landed = threading.Event()
        self.error: Exception | None = None

    def is_final(self) -> bool:
        """Return whether the error is that of all requests, and not the leader's alone."""
        return self.attempt >= _MAX_ATTEMPTS or isinstance(self.error, _FINAL_ERRORS)


def _offset_of(key: str) -> int:
    """Return the byte to lock. Two keys share one with a probability of 2**-62, and then only wait."""
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8]) >> 2


def _lock_byte(descriptor: int, offset: int, deadline: float) -> None:
    if _SET_LOCK is None:
        return
    request = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, offset, 1, 0)
    pause = _MIN_POLL_SECONDS
    while True:
        try:
            fcntl.fcntl(descriptor, _SET_LOCK, request)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise StoreTimeout(detail="waited for another process to fetch the same object") from None
            time.sleep(pause)
            pause = min(2 * pause, _MAX_POLL_SECONDS)
