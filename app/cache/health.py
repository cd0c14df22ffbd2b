"""Whether the cache directory works: failures are logged once, repaired if possible, and survived."""

import logging
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

CACHE_ERRORS = (OSError, sqlite3.Error)
"""What a full, read-only, missing or corrupt cache directory raises."""

_DEGRADED_SECONDS = 60.0
"""How long the cache counts as degraded after a failure, unless a write succeeds before."""

_REPAIR_INTERVAL_SECONDS = 10.0
_LOG_INTERVAL_SECONDS = 600.0

_log = logging.getLogger(__name__)


class Health:
    """Records the failures of the cache directory. `repair` is called with the error, but not too often.

    `has_failed` is True from a failure to the next write that succeeds.
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
        """Log a failure if the last log entry is old, and try to repair the directory."""
        now = time.monotonic()
        if now >= self._logged_at + _LOG_INTERVAL_SECONDS:
            self._logged_at = now
            _log.error("The cache is degraded; images come from the store: %s: %s", type(exc).__name__, exc)
        self.has_failed, self._failed_at = True, now
        if now >= self._repaired_at + _REPAIR_INTERVAL_SECONDS:
            self._repaired_at = now
            self._repair(exc)

    @contextmanager
    def tolerated(self) -> Iterator[None]:
        """Report `CACHE_ERRORS` that are raised inside the block, and continue after it."""
        try:
            yield
        except CACHE_ERRORS as exc:
            self.report(exc)
