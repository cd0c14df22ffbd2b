"""Features of the operating system, with fallbacks for systems that lack or refuse these features.

- File locks between processes (flock(2)). The kernel releases them when a process ends, even if it is killed.
- Properties of the file system that contains a directory.
- Calls that seccomp filters, containers and some file systems refuse.
"""

import errno
import fcntl
import logging
import os
import re
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_log = logging.getLogger(__name__)

UNSUPPORTED = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP})
"""Error numbers that mean that the system or the file system does not support the call."""

REFUSED = UNSUPPORTED | {errno.EPERM, errno.EACCES}
"""Error numbers that mean that the call is unsupported, or that a seccomp filter refuses it. Use this set
only for calls that need no privileges."""

UNLOCKABLE = UNSUPPORTED | {errno.ENOLCK, errno.EPERM}
"""Error numbers that mean that the file system does not support locks, or that a seccomp filter refuses
them."""

SHARED, EXCLUSIVE = fcntl.LOCK_SH, fcntl.LOCK_EX

_RECORD_LOCKS = {SHARED: fcntl.F_RDLCK, EXCLUSIVE: fcntl.F_WRLCK}

_warned_devices: set[int] = set()
"""Devices (`st_dev` in stat(2)) for which `warn_unlockable` has already logged its warning."""

MOUNT_TABLE = "/proc/self/mountinfo"
"""The list of mounted file systems (https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html)."""


@contextmanager
def locked(path: Path, kind: int = EXCLUSIVE, *, required: bool = True) -> Iterator[int]:
    """Wait for the lock on the file at `path`, hold it during the block, and yield the file's descriptor.

    The file is created if it is missing. If the file system does not support locks and the lock is not
    `required`, this logs a warning and enters the block without the lock. Raises `OSError`.
    """
    with opened(path) as descriptor:
        try:
            lock(descriptor, kind)
        except OSError as exc:
            if required or exc.errno not in UNLOCKABLE:
                raise
            warn_unlockable(path, descriptor, exc)
        yield descriptor


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """Open the file at `path` for reading and writing, and yield its descriptor.

    The file is created if it is missing. Raises `OSError`.
    """
    descriptor = _open(path)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def open_locked(path: Path, kind: int = EXCLUSIVE) -> int:
    """Open the file at `path`, wait for the lock on it, and return the descriptor.

    Closing the descriptor releases the lock. This is a few microseconds faster than `locked`. Raises
    `OSError`.
    """
    descriptor = _open(path)
    try:
        lock(descriptor, kind)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def claim(path: Path) -> int | None:
    """Lock the file at `path` without waiting. Return a descriptor, which holds the lock until it is closed.

    Return None if another process holds the lock, or if this process holds it through another descriptor.
    Raises `OSError`.
    """
    descriptor = _open(path)
    try:
        if try_lock(descriptor):
            return descriptor
    except OSError:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def try_lock(descriptor: int, kind: int = EXCLUSIVE) -> bool:
    """Try to lock the file without waiting. Return whether that succeeded. Raises `OSError`."""
    try:
        lock(descriptor, kind, wait=False)
    except BlockingIOError:
        return False
    return True


def lock(descriptor: int, kind: int = EXCLUSIVE, *, wait: bool = True) -> None:
    """Lock the file until `descriptor` is closed.

    On a file system that does not support flock(2), this uses open file description locks (fcntl(2), Linux),
    which work in the same way. If the lock is held through another descriptor, wait for it; with
    `wait=False`, raise `BlockingIOError` instead. Raises `OSError`.
    """
    try:
        fcntl.flock(descriptor, kind if wait else kind | fcntl.LOCK_NB)
    except OSError as exc:
        if exc.errno not in UNLOCKABLE or sys.platform != "linux":
            raise
        command = fcntl.F_OFD_SETLKW if wait else fcntl.F_OFD_SETLK
        fcntl.fcntl(descriptor, command, struct.pack("hhqqi", _RECORD_LOCKS[kind], os.SEEK_SET, 0, 0, 0))


def warn_unlockable(path: Path, descriptor: int, exc: OSError) -> None:
    """Log that the file at `path`, open as `descriptor`, is used without a lock. Logs once per device."""
    device = os.fstat(descriptor).st_dev
    if device not in _warned_devices:
        _warned_devices.add(device)
        _log.warning("Files in %s can't be locked; continuing without locks: %s", path.parent, exc.strerror)


def sync(descriptor: int) -> None:
    """Flush a file or a directory to disk. Do nothing on file systems that do not support this.

    Some network file systems can't flush directories (fsync(2): EINVAL). Raises `OSError`.
    """
    try:
        os.fsync(descriptor)
    except OSError as exc:
        if exc.errno not in UNSUPPORTED:
            raise


def usable_cores() -> list[int]:
    """Return the numbers of the CPU cores that this process may use, or an empty list if they are unknown."""
    try:
        return sorted(os.sched_getaffinity(0))
    except (OSError, AttributeError):  # refused, or not Linux
        return []


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted file system: the directory that it is mounted on, and its type, such as `ext4`."""

    point: str
    kind: str


def mount_of(directory: str | os.PathLike[str]) -> Mount | None:
    """Return the mount that contains `directory`, or None if the system has no mount table."""
    path = os.path.realpath(directory)
    try:
        with open(MOUNT_TABLE, encoding="utf-8", errors="surrogateescape") as table:
            mounts = [_parse_mount(line) for line in table]
    except OSError:
        return None
    holding = [mount for mount in mounts if os.path.commonpath((path, mount.point)) == mount.point]
    # A later mount hides an earlier one on the same directory.
    return max(reversed(holding), key=lambda mount: len(mount.point), default=None)


def records_access_times(directory: str | os.PathLike[str]) -> bool:
    """Return whether reading files in `directory` can update their atime.

    It can't if the file system is mounted with noatime.
    """
    return not os.statvfs(directory).f_flag & getattr(os, "ST_NOATIME", 0)


def _parse_mount(line: str) -> Mount:
    before, _, after = line.partition(" - ")
    point = re.sub(r"\\([0-7]{3})", lambda escape: chr(int(escape[1], 8)), before.split(" ")[4])
    return Mount(point, after.split(" ")[0])


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
