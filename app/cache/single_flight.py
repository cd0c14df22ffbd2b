"""Single flight: if several requests miss the same key at once, one calls the store and the others wait.

Threads in the same process wait for an event. Processes wait for a lock on one byte of a shared file. The
offset of the byte is derived from the key. Creating a lock file for each key would take longer than the rest
of a miss, since creating files is slow on ext4.
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

from app.core.errors import Busy, NotFound, StoreRefused, StoreTimeout, UndecodableImage
from app.core.system import UNLOCKABLE, warn_unlockable

_SET_LOCK: int | None = getattr(fcntl, "F_OFD_SETLK", None) if sys.platform == "linux" else None
"""Command of fcntl(2) for locks that belong to an open file description, so that they also exclude other
threads of the same process (Linux 3.15). None if the system has no such locks."""

_FLOCK = "hhqqi"
"""Format of `struct flock` on Linux: type, whence, start, length, process ID."""

_MIN_POLL_SECONDS, _MAX_POLL_SECONDS = 0.001, 0.01
"""Shortest and longest pause between two attempts to get a lock. fcntl(2) can wait, but has no timeout."""

_MAX_ATTEMPTS = 2
"""Maximum number of leaders that try one after another. If the last one fails, all waiting requests fail."""

_FINAL_ERRORS = (NotFound, StoreRefused, UndecodableImage, Busy)
"""Errors that would only occur again in a further attempt, or for which a further wait would be too long."""


class SingleFlight:
    """Chooses a leader for each key: one thread per process and, through `locks`, one process per machine.

    A thread waits for a leader for at most `timeout` seconds.
    """

    def __init__(self, locks: "KeyLocks", timeout: float) -> None:
        self._locks = locks
        self._timeout = timeout
        self._mutex = threading.Lock()
        self._in_flight: dict[str, _Flight] = {}

    @contextmanager
    def lead_or_wait(self, key: str) -> Iterator[bool]:
        """Yield whether the caller is the leader, which must call the store.

        The other threads wait, and get False once the leader has succeeded. If the leader's block
        fails, one of the waiting threads becomes the leader. If the error is final, or if the second leader
        fails as well, all threads raise the error. Raises `StoreTimeout` if the wait exceeds the timeout.
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
            flight.error = StoreTimeout(detail="the thread that was fetching the object was stopped")
            raise
        finally:
            with self._mutex:
                del self._in_flight[key]
            flight.landed.set()

    def _join(self, key: str, attempt: int) -> "tuple[_Flight, bool]":
        """Return a pair: the flight for `key`, which may be a new one, and whether the caller leads it."""
        with self._mutex:
            flight = self._in_flight.get(key)
            if flight is not None:
                return flight, False
            self._in_flight[key] = flight = _Flight(attempt)
            return flight, True


class KeyLocks:
    """A lock for each key, in the file at `path`. On systems without such locks, no caller has to wait."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def held(self, key: str, deadline: float) -> Iterator[None]:
        """Hold the lock of `key` during the block. The kernel releases it even if the process is killed.

        Raises `StoreTimeout` if another process holds the lock until `deadline` (in seconds, as returned by
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
    """One leader's attempt, and its result for the waiting threads."""

    def __init__(self, attempt: int) -> None:
        self.attempt = attempt
        self.landed = threading.Event()
        self.error: Exception | None = None

    def is_final(self) -> bool:
        """Return whether the error applies to all requests, not only to the leader's request."""
        return self.attempt >= _MAX_ATTEMPTS or isinstance(self.error, _FINAL_ERRORS)


def _offset_of(key: str) -> int:
    """Return the offset of the byte to lock.

    Two keys share a byte with a probability of 2**-62. If they do, requests for one key merely wait for
    requests for the other.
    """
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
