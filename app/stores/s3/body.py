"""An object's body: its reading raises our errors, and goes on where a connection broke off."""

from collections.abc import Callable

from botocore.response import StreamingBody

from app.errors import StoreError, StoreTimeout
from app.stores.s3.errors import errors_mapped

Resume = Callable[[int], StreamingBody]
"""The same version's bytes from an offset on. Raises our errors."""


class Body:
    """A body of `size` bytes. Resumes once after a broken connection, but not after a timeout."""

    def __init__(self, body: StreamingBody, size: int, resume: Resume) -> None:
        self._body = body
        self._size = size
        self._resume: Resume | None = resume
        self._done = 0

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes, all where negative; raises `StoreError` where they end too early."""
        try:
            chunk = self._read(size)
        except StoreTimeout:
            raise
        except StoreError:
            if self._resume is None or self._done >= self._size:
                raise
            self._go_on(self._resume)
            chunk = self._read(size)
        self._done += len(chunk)
        if self._done > self._size:
            raise StoreError(detail=f"GetObject: a body of more than the {self._size} bytes announced")
        return chunk

    def close(self) -> None:
        """Give the connection back."""
        self._body.close()

    def _read(self, size: int) -> bytes:
        with errors_mapped("GetObject body"):
            return bytes(self._body.read(None if size < 0 else size))

    def _go_on(self, resume: Resume) -> None:
        self._resume = None
        self._body.close()
        self._body = resume(self._done)
