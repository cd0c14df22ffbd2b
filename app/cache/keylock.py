"""Locks by key among the processes of a machine: each is one byte of a file, so that none has to be made.

A lock file for each key would cost a miss more than all else: ext4 looks for a long time for an inode that
was not in use a moment ago.
"""

import fcntl
import hashlib
import os
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.errors import StoreTimeout
from app.filelock import UNLOCKABLE, warn_unlockable

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
