"""The directory in which workers share their counters. gunicorn's arbiter creates it.

Each worker has a number, and its files are named after the number. A worker that replaces a dead worker gets
the dead worker's number and continues its counters. So no counts are lost, and the number of files does not
grow. Gauges are not continued.
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
from prometheus_client.multiprocess import mark_process_dead

DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable in which prometheus_client expects the path of the directory."""

_PREFIX = "s3-image-server-metrics-"

_MIN_ABANDONED_SECONDS = 60
"""Minimum age at which an unlocked directory counts as abandoned. A younger directory may belong to a server
that is about to lock it."""


class SharedDirectory:
    """A new temporary directory for the counters. Its owner is the user that the workers run as.

    It is locked while the server is running. If a server is killed, its directory is no longer locked, and
    the next server to start removes it. Set `number` in each worker before the worker counts anything.
    """

    def __init__(self, uid: int, gid: int) -> None:
        self.number = -1
        """The number of this worker, or -1 in gunicorn's arbiter."""
        parent = Path(tempfile.gettempdir())
        _remove_abandoned(parent)
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        with suppress(OSError):  # if the file system has no locks, other servers can't remove the directory
            fcntl.flock(self._lock, fcntl.LOCK_EX)  # systemd-tmpfiles respects this lock, too
        if (uid, gid) != (os.geteuid(), os.getegid()):
            os.chown(self.path, uid, gid)
        os.environ[DIRECTORY] = str(self.path)
        # prometheus_client chooses this class when it is imported, depending on the environment, and names
        # files after process IDs. A different class can only be chosen by assigning it here.
        values.ValueClass = values.MultiProcessValue(lambda: self.number)  # type: ignore[no-untyped-call]

    def forget_state(self, number: int) -> None:
        """Remove the gauges of a worker that has ended, which say what the worker is doing now."""
        mark_process_dead(number, str(self.path))  # type: ignore[no-untyped-call]

    def remove(self) -> None:
        """Remove the directory with all counters, and release the lock."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def free_number(taken: Collection[int]) -> int:
    """Return the smallest number that is not in `taken`, the numbers of the living workers."""
    return next(number for number in range(len(taken) + 1) if number not in taken)


def _remove_abandoned(parent: Path) -> None:
    for path in parent.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # owned by a different user, locked, or already removed
            status = path.stat()
            if status.st_uid == os.geteuid() and time.time() - status.st_mtime > _MIN_ABANDONED_SECONDS:
                _remove_unlocked(path)


def _remove_unlocked(path: Path) -> None:
    """Remove the directory. Raise `OSError` if a server has locked it, or if the path is a symbolic link."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(descriptor)
