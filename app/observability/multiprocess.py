"""How the workers share their counters: files in one directory, which the server's first process makes.

Each worker has a number, and its files are named by it; one that replaces a dead worker gets the number and
counts on. So nothing is lost with a worker, and there are never more files than there were workers at once.
"""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from prometheus_client import values

DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
"""The variable by which prometheus_client knows the directory."""

_PREFIX = "s3-image-server-metrics-"

_SETTLED_SECONDS = 60
"""A younger directory may belong to a server that is about to lock it."""

_number = -1
"""This process's number; the server's first process has none."""


class SharedDirectory:
    """A new directory that is locked as long as the server lives; what killed servers left is removed."""

    def __init__(self, uid: int, gid: int) -> None:
        parent = Path(tempfile.gettempdir())
        _remove_abandoned(parent)
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        with suppress(OSError):  # where nobody can lock it, nobody takes it for abandoned
            fcntl.flock(self._lock, fcntl.LOCK_EX)  # keeps systemd-tmpfiles away, too
        if (uid, gid) != (os.geteuid(), os.getegid()):
            os.chown(self.path, uid, gid)
        os.environ[DIRECTORY] = str(self.path)
        values.ValueClass = values.MultiProcessValue(lambda: _number)  # type: ignore[no-untyped-call]

    def remove(self) -> None:
        """Remove it with all counters."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def free_number(taken: Collection[int]) -> int:
    """The smallest number that no living worker has."""
    return next(number for number in range(len(taken) + 1) if number not in taken)


def take_number(number: int) -> None:
    """Count under this number in this process."""
    global _number
    _number = number


def _remove_abandoned(parent: Path) -> None:
    for path in parent.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # somebody else's, or gone meanwhile
            if path.stat().st_uid == os.geteuid() and time.time() - path.stat().st_mtime > _SETTLED_SECONDS:
                _remove_unlocked(path)


def _remove_unlocked(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(descriptor)
