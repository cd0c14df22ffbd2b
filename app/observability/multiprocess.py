"""How workers share their counters: as files in one directory, which gunicorn's first process creates.

Each worker has a number, and its files are named after it. A worker that replaces a dead one gets the same
number and continues its counters, so none are lost, and there are never more files than workers at one time.
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
"""The environment variable that names the directory to prometheus_client."""

_PREFIX = "s3-image-server-metrics-"

_MIN_ABANDONED_SECONDS = 60
"""A directory younger than this may belong to a server that is about to lock it."""


class SharedDirectory:
    """A new temporary directory for the counters, owned by the user that workers run as.

    It is locked while the server lives. Directories that killed servers left behind have no lock, and the
    next server removes them. Set `number` in each worker before it counts anything.
    """

    def __init__(self, uid: int, gid: int) -> None:
        self.number = -1
        """The number of the worker that this process is; -1 in gunicorn's first process."""
        parent = Path(tempfile.gettempdir())
        _remove_abandoned(parent)
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        with suppress(OSError):  # without locks on this file system no server finds it abandoned either
            fcntl.flock(self._lock, fcntl.LOCK_EX)  # also keeps systemd-tmpfiles away
        if (uid, gid) != (os.geteuid(), os.getegid()):
            os.chown(self.path, uid, gid)
        os.environ[DIRECTORY] = str(self.path)
        # prometheus_client chooses this class on import, by the environment at that moment, and names files
        # after process ids. Another class can only be chosen by assigning it here.
        values.ValueClass = values.MultiProcessValue(lambda: self.number)  # type: ignore[no-untyped-call]

    def remove(self) -> None:
        """Remove the directory with all counters, and release its lock."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def free_number(taken: Collection[int]) -> int:
    """Return the smallest number that no living worker has."""
    return next(number for number in range(len(taken) + 1) if number not in taken)


def _remove_abandoned(parent: Path) -> None:
    for path in parent.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # another user's, locked, or gone by now
            status = path.stat()
            if status.st_uid == os.geteuid() and time.time() - status.st_mtime > _MIN_ABANDONED_SECONDS:
                _remove_unlocked(path)


def _remove_unlocked(path: Path) -> None:
    """Remove the directory. Raise `OSError` if a server holds its lock, or if it is a symbolic link."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(descriptor)
