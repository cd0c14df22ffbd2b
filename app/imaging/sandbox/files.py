"""Unnamed files that pass an image's bytes from one process to another."""

import os
from pathlib import Path

from app.errors import UndecodableImage


def anonymous_file(data: bytes = b"") -> int:
    """Return the descriptor of a new file that holds `data`: in memory where the system can, else on disk."""
    try:
        descriptor = os.memfd_create("image")
    except (OSError, AttributeError):  # refused, or not Linux
        descriptor = _unlinked_file()
    try:
        write(descriptor, data)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def write(descriptor: int, data: bytes) -> None:
    """Write all of `data` at the file's position."""
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


def contents(descriptor: int, most: int) -> bytes:
    """Return all bytes of the file; raise UndecodableImage if there are more than `most`."""
    size = os.fstat(descriptor).st_size
    if size > most:
        raise UndecodableImage(detail=f"a file of {size} bytes")
    data = bytearray()
    while piece := os.pread(descriptor, size - len(data), len(data)):
        data += piece
    return bytes(data)


def _unlinked_file() -> int:
    """Do what `tempfile.TemporaryFile` does, without `random`, which each fork would seed again."""
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"s3-image-server-{os.urandom(16).hex()}"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    path.unlink()
    return descriptor
