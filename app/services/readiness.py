"""Determine from the state of the store and of the cache whether this server is ready for requests."""

import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from app.cache.disk_cache import DiskCache
from app.core.errors import AppError, StoreRefused, StoreTimeout, StoreUnreachable
from app.stores.base import BaseStore

_PROBE_KEY = "readyz/no-such-image.png"

_PROBE_TIMEOUT_SECONDS = 0.8
"""How many seconds to wait for a probe of the store. This is less than one second, the default timeout of
Kubernetes probes."""

_RESULT_LIFETIME_SECONDS = 5.0
"""For how many seconds the result of a probe is reused. Anyone can call /readyz, and S3 charges for each
probe."""

_MAX_PROBES = 4
"""Maximum number of concurrent probes. There is more than one only if the store does not respond."""

_STATES = {
    "": "ok",
    StoreRefused.code: "refused",
    StoreUnreachable.code: "unreachable",
    StoreTimeout.code: "unreachable",
}
"""Maps the code of the store's error to the state of the store. For other codes the state is `failing`."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Readiness:
    """The result of a check.

    `store` is `ok`, `refused` if the store denies access, `unreachable` if the store can't be reached or does
    not respond in time, or `failing` for other errors. `cache` is `ok`, `unwritable` or `unreadable`. `code`
    is the code of the store's error, or empty if the store is ok.
    """

    ready: bool
    store: str
    cache: str
    code: str = ""


class ReadinessCheck:
    """Checks the cache on each call, and the store every few seconds on a separate thread.

    If the store fails, the server is ready as long as the cache contains images that it can serve. If the
    store denies access, the server is ready only if the store has worked before, so that wrong credentials
    are noticed at startup.
    """

    def __init__(
        self, store: BaseStore, cache: DiskCache, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._cache = cache
        self._clock = clock
        self._lock = threading.Lock()
        self._probe: Future[AppError | None] = Future()
        self._next_probe_at = float("-inf")
        self._probes = 0
        self._was_ok = False
        self._logged_state = "ok"

    def check(self) -> Readiness:
        """Return the state of the store and of the cache. This takes at most about a second."""
        error = self._store_error()
        code = error.code if error else ""
        store = _STATES.get(code, "failing")
        cache, entries = self._cache_state()
        self._log_change(store, error)
        if not code:
            self._was_ok = True
            return Readiness(True, store, cache)
        can_serve = entries > 0 and (store != "refused" or self._was_ok)
        return Readiness(can_serve, store, cache, code)

    def _store_error(self) -> AppError | None:
        """Return the error of the latest probe, or None if the store is ok. Start a probe if one is due."""
        with self._lock:
            if self._clock() >= self._next_probe_at and self._probes < _MAX_PROBES:
                self._next_probe_at = self._clock() + _RESULT_LIFETIME_SECONDS
                self._probes += 1
                self._probe = Future()
                arguments = (self._probe,)
                threading.Thread(
                    target=self._run_probe, args=arguments, daemon=True, name="readiness"
                ).start()
            probe = self._probe
        try:
            return probe.result(_PROBE_TIMEOUT_SECONDS)
        except TimeoutError:
            return StoreTimeout()

    def _run_probe(self, probe: Future[AppError | None]) -> None:
        error: AppError | None = None
        try:
            self._store.exists(_PROBE_KEY)
        except AppError as exc:
            error = exc
        except Exception:
            error = AppError()
            _log.exception("The store failed")
        probe.set_result(error)
        with self._lock:
            self._probes -= 1

    def _cache_state(self) -> tuple[str, int]:
        try:
            entries = self._cache.totals().entries
        except (OSError, sqlite3.Error):
            return "unreadable", 0
        return "ok" if self._cache.is_writable() else "unwritable", entries

    def _log_change(self, store: str, error: AppError | None) -> None:
        """Log each change of the store's state once.

        Without this, the log might not show an outage, since a server that is not ready gets no requests.
        """
        if store == self._logged_state:
            return
        self._logged_state = store
        if error is None:
            _log.info("The store is ok again")
        else:
            detail = f" [{error.detail}]" if error.detail else ""
            _log.warning("The store is %s: %s%s", store, error.code, detail)
