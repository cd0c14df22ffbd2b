"""Whether this server should get requests: by what the store says, and what the cache holds meanwhile."""

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

_PATIENCE = 0.8
"""Seconds for the store's answer: Kubernetes gives a probe one."""

_KEPT_SECONDS = 5.0
"""How long an answer counts: anybody may ask, and S3 takes money for each time that we do."""

_MOST_PROBES = 4
"""Under way at once, where the store never answers."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Readiness:
    """What was found.

    `store` is ok, refused (its answer is no), unreachable (there is none in time) or failing; `cache` is ok,
    unwritable or unreadable. `code` says why it is not ready, by the code of the error that requests get.
    """

    ready: bool
    store: str
    cache: str
    code: str = ""


class ReadinessCheck:
    """Asks `store` now and then, on a thread of its own, and looks at `cache`.

    Without the store it is ready where the cache holds images, since those are served. Where the store
    refuses us, it also must have answered well before: wrong credentials shall show when a server starts.
    """

    def __init__(
        self, store: BaseStore, cache: DiskCache, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._cache = cache
        self._clock = clock
        self._asking = threading.Lock()
        self._answer: Future[AppError | None] = Future()
        self._ask_again_at = float("-inf")
        self._probes = 0
        self._was_ok = False
        self._said = "ok"

    def look(self) -> Readiness:
        """The state of both, after `_PATIENCE` at the most."""
        error = self._error()
        code = error.code if error else ""
        store = _STATES.get(code, "failing")
        cache, entries = self._cache_state()
        self._say(store, error)
        if not code:
            self._was_ok = True
            return Readiness(True, store, cache)
        served = entries > 0 and (store != "refused" or self._was_ok)
        return Readiness(served, store, cache, code)

    def _error(self) -> AppError | None:
        """The store's latest error; None where it is well."""
        with self._asking:
            if self._clock() >= self._ask_again_at and self._probes < _MOST_PROBES:
                self._ask_again_at = self._clock() + _KEPT_SECONDS
                self._probes += 1
                self._answer = Future()
                threading.Thread(
                    target=self._ask, args=(self._answer,), daemon=True, name="readiness"
                ).start()
            answer = self._answer
        try:
            return answer.result(_PATIENCE)
        except TimeoutError:
            return StoreTimeout()

    def _ask(self, answer: Future[AppError | None]) -> None:
        error: AppError | None = None
        try:
            self._store.exists(_PROBE_KEY)
        except AppError as exc:
            error = exc
        except Exception:
            error = AppError()
            _log.exception("The store failed")
        answer.set_result(error)
        with self._asking:
            self._probes -= 1

    def _cache_state(self) -> tuple[str, int]:
        try:
            entries = self._cache.totals().entries
        except (OSError, sqlite3.Error):
            return "unreadable", 0
        return "ok" if self._cache.is_writable() else "unwritable", entries

    def _say(self, store: str, error: AppError | None) -> None:
        """Log each change once, with what to do about it: no request does, where a server is not ready."""
        if store != self._said:
            self._said = store
            level = logging.WARNING if error else logging.INFO
            _log.log(level, "The store is %s%s", store, f": {_cause(error)}" if error else " again")


def _cause(error: AppError) -> str:
    return f"{error.code} [{error.detail}]" if error.detail else error.code


_STATES = {
    "": "ok",
    StoreRefused.code: "refused",
    StoreUnreachable.code: "unreachable",
    StoreTimeout.code: "unreachable",
}
