"""A file open for reading, and nothing else, at half the price of `open`."""

import os


class OpenFile:
    """The file at `path`, from its first byte; raises `OSError` as `open` does."""

    __slots__ = ("_descriptor",)

    def __init__(self, path: str) -> None:
        self._descriptor = -1
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def fileno(self) -> int:
        """The descriptor, for `sendfile`."""
        return self._descriptor

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes, all that is left where negative."""
        if size >= 0:
            return os.read(self._descriptor, size)
        chunks = []
        while chunk := os.read(self._descriptor, 1024 * 1024):
            chunks.append(chunk)
        return b"".join(chunks)

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to a byte."""
        return os.lseek(self._descriptor, offset, whence)

    def close(self) -> None:
        """Give the descriptor back; a second time does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        self.close()
