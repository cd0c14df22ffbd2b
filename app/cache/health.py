"""The health of the cache directory. Failures are logged and repaired if possible."""

import logging
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

CACHE_ERRORS = (OSError, sqlite3.Error)
"""Errors that occur if the cache directory is full, read-only, missing or corrupt."""

_DEGRADED_SECONDS = 60.0
"""How long the cache counts as degraded after a failure, unless a write succeeds earlier."""

_REPAIR_INTERVAL_SECONDS = 10.0
_LOG_INTERVAL_SECONDS = 600.0

_log = logging.getLogger(__name__)


class Health:
    """Records failures of the cache directory. Calls `repair` with the error, at most every ten seconds.

    `has_failed` is True from a failure until the next successful write.
    """

    def __init__(self, repair: Callable[[Exception], None]) -> None:
        self._repair = repair
        self.has_failed = False
        self._failed_at = self._logged_at = self._repaired_at = float("-inf")

    @property
    def is_degraded(self) -> bool:
        """Whether a failure was reported in the last minute, and no write has succeeded since."""
        return self.has_failed and time.monotonic() < self._failed_at + _DEGRADED_SECONDS

    def report(self, exc: Exception) -> None:
        """Record a failure. Also log it and attempt a repair, unless this was done recently."""
        now = time.monotonic()
        if now >= self._logged_at + _LOG_INTERVAL_SECONDS:
            self._logged_at = now
            _log.error("The cache is degraded. Serving from the store: %s: %s", type(exc).__name__, exc)
        self.has_failed, self._failed_at = True, now
        if now >= self._repaired_at + _REPAIR_INTERVAL_SECONDS:
            self._repaired_at = now
            self._repair(exc)

    @contextmanager
    def tolerated(self) -> Iterator[None]:
        """Report any of `CACHE_ERRORS` raised in the block, and continue after the block."""
        try:
            yield
        except CACHE_ERRORS as exc:
            self.report(exc)
