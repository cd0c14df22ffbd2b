"""What is out of order with the cache directory: said once, mended where it can be, and lived with."""

import logging
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

OUT_OF_ORDER = (OSError, sqlite3.Error)
"""What a full, read-only, vanished or corrupt cache directory raises."""

_MEND_SECONDS = 10.0
_REMEMBERED_SECONDS = 60.0
_QUIET_SECONDS = 600.0

_log = logging.getLogger(__name__)


class Disorder:
    """Notes what fails; `mend` is called with the error, once in a while."""

    def __init__(self, mend: Callable[[Exception], None]) -> None:
        self._mend = mend
        self._failed_at = self._said_at = self._mended_at = float("-inf")

    @property
    def is_present(self) -> bool:
        """Whether something failed in the last minute, and nothing of the kind has succeeded since."""
        return time.monotonic() < self._failed_at + _REMEMBERED_SECONDS

    @contextmanager
    def survived(self) -> Iterator[None]:
        """Go on without the cache where it is out of order."""
        try:
            yield
        except OUT_OF_ORDER as exc:
            self.note(exc)

    def note(self, exc: Exception) -> None:
        """Say what is out of order, where that is new, and try to mend it."""
        now = time.monotonic()
        if now >= self._said_at + _QUIET_SECONDS:
            self._said_at = now
            _log.error(
                "The cache is out of order, the store is asked instead: %s: %s", type(exc).__name__, exc
            )
        self._failed_at = now
        if now >= self._mended_at + _MEND_SECONDS:
            self._mended_at = now
            self._mend(exc)

    def over(self) -> None:
        """Something was written."""
        self._failed_at = float("-inf")
