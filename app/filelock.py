"""Locks of files among processes (flock(2)): the kernel lets go of them however a process ends."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SHARED, EXCLUSIVE = fcntl.LOCK_SH, fcntl.LOCK_EX


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """A descriptor of the file, which is made where it is missing. Raises `OSError`."""
    descriptor = _open(path)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path, kind: int = EXCLUSIVE) -> Iterator[int]:
    """Wait for the lock of the file at `path`, and hold it inside the block; the file's descriptor.

    Raises `OSError`.
    """
    with opened(path) as descriptor:
        fcntl.flock(descriptor, kind)
        yield descriptor


def lock_now(descriptor: int, kind: int = EXCLUSIVE) -> bool:
    """Take the lock, where nobody is in the way; it is held until the descriptor is closed."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def claim(path: Path) -> int | None:
    """A descriptor that holds the lock of the file at `path` until it is closed; None where another does.

    Raises `OSError`.
    """
    descriptor = _open(path)
    if lock_now(descriptor):
        return descriptor
    os.close(descriptor)
    return None


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
