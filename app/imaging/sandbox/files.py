"""Files without a name, which carry an image's bytes from one process to another."""

import os
import stat
from pathlib import Path

from app.errors import UndecodableImage


def anonymous_file(data: bytes) -> int:
    """Return the descriptor of a new file that holds `data`: in memory where the system can, else on disk."""
    descriptor = os.memfd_create("image") if hasattr(os, "memfd_create") else _unlinked_file()
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(descriptor, left) :]
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def contents(descriptor: int, most: int) -> bytes:
    """Return all bytes of the file; raise UndecodableImage if it is over `most` or is no regular file."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_size > most:
        raise UndecodableImage(detail=f"a file of {status.st_size} bytes, mode {status.st_mode:o}")
    data = bytearray()
    while piece := os.pread(descriptor, status.st_size - len(data), len(data)):
        data += piece
    return bytes(data)


def _unlinked_file() -> int:
    """Do what `tempfile.TemporaryFile` does, without `random`, which each fork would seed again."""
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"s3-image-server-{os.urandom(16).hex()}"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    path.unlink()
    return descriptor
