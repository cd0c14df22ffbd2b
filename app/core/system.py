"""Locks of files among processes (flock(2)): the kernel lets go of them however a process ends.

System calls that some systems refuse: seccomp filters, containers, file systems that lack them.
"""

import errno
import fcntl
import logging
import os
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

UNSUPPORTED = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP})
"""Errors that say that the system or the file system has no such call."""

REFUSED = UNSUPPORTED | {errno.EPERM, errno.EACCES}
"""Errors of calls that need no right of their own, if a filter refuses them."""


def usable_cores() -> list[int]:
    """Return the numbers of the cores that this process may run on; none if the system doesn't say."""
    try:
        return sorted(os.sched_getaffinity(0))
    except (OSError, AttributeError):  # refused, or not Linux
        return []


def sync(descriptor: int) -> None:
    """Have a file or directory written to its disk, if the file system can do so. Raises `OSError` otherwise.

    Some network file systems can't for directories (fsync(2): EINVAL); what they do by themselves must do.
    """
    try:
        os.fsync(descriptor)
    except OSError as exc:
        if exc.errno not in UNSUPPORTED:
            raise


SHARED, EXCLUSIVE = fcntl.LOCK_SH, fcntl.LOCK_EX

_log = logging.getLogger(__name__)

UNLOCKABLE = UNSUPPORTED | {errno.ENOLCK, errno.EPERM}
"""Errors that say that the file system has no such locks, or that a filter of system calls refuses them."""

_RECORD_LOCKS = {SHARED: fcntl.F_RDLCK, EXCLUSIVE: fcntl.F_WRLCK}

_said: set[int] = set()
"""The devices (stat(2)) whose files can't be locked, as has been logged."""


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """A descriptor of the file, which is made where it is missing. Raises `OSError`."""
    descriptor = _open(path)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path, kind: int = EXCLUSIVE, *, required: bool = True) -> Iterator[int]:
    """Wait for the lock of the file at `path`, and hold it inside the block; the file's descriptor.

    Raises `OSError`. If the lock is not `required` and the file system has none, warns once and goes on
    without.
    """
    with opened(path) as descriptor:
        try:
            lock(descriptor, kind)
        except OSError as exc:
            if required or exc.errno not in UNLOCKABLE:
                raise
            warn_unlockable(path, descriptor, exc)
        yield descriptor


def lock(descriptor: int, kind: int = EXCLUSIVE, *, wait: bool = True) -> None:
    """Lock the file until `descriptor` is closed. Raises `OSError`; `BlockingIOError` instead of waiting.

    A file system that has no flock(2) may have locks of an open file (fcntl(2), Linux), which are as good.
    """
    try:
        fcntl.flock(descriptor, kind if wait else kind | fcntl.LOCK_NB)
    except OSError as exc:
        if exc.errno not in UNLOCKABLE or sys.platform != "linux":
            raise
        command = fcntl.F_OFD_SETLKW if wait else fcntl.F_OFD_SETLK
        fcntl.fcntl(descriptor, command, struct.pack("hhqqi", _RECORD_LOCKS[kind], os.SEEK_SET, 0, 0, 0))


def lock_now(descriptor: int, kind: int = EXCLUSIVE) -> bool:
    """Take the lock, where nobody is in the way; it is held until the descriptor is closed."""
    try:
        lock(descriptor, kind, wait=False)
    except BlockingIOError:
        return False
    return True


def claim(path: Path) -> int | None:
    """A descriptor that holds the lock of the file at `path` until it is closed; None where another does.

    Raises `OSError`.
    """
    descriptor = _open(path)
    try:
        if lock_now(descriptor):
            return descriptor
    except OSError:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def warn_unlockable(path: Path, descriptor: int, exc: OSError) -> None:
    """Say once for each device that a file of it, open as `descriptor`, is used without a lock."""
    device = os.fstat(descriptor).st_dev
    if device not in _said:
        _said.add(device)
        _log.warning("Files in %s can't be locked, which is done without: %s", path.parent, exc.strerror)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
