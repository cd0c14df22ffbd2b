"""The cache as the service sees it: look up, fetch through, store, forget."""

import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from app.cache.answers import CachedObject, CacheStatus, Load
from app.cache.fill import Fill
from app.cache.flight import SingleFlight
from app.cache.index import Index, Totals
from app.cache.layout import Layout
from app.cache.lookup import Found, Lookup
from app.cache.space import Space
from app.errors import NotFound, StoreTimeout, StoreUnreachable
from app.keys import is_immutable
from app.objects import ObjectFacts

_log = logging.getLogger(__name__)

_OUT_OF_ORDER = (OSError, sqlite3.Error)
"""What a full, read-only, vanished or corrupt cache directory raises."""


class DiskCache:
    """An LRU of files below `root` that takes at most `max_bytes`, shared by the processes of one machine.

    `ttl` is how many seconds a mutable object is served without asking the store again;
    `stale_if_error` for how many more it is served while the store can't be reached;
    `patience` the most seconds that a request waits for another one's fill.
    A cache that can't be read or written never fails a request: the store then answers alone.
    """

    def __init__(
        self,
        root: Path,
        max_bytes: int,
        *,
        ttl: float = 300.0,
        stale_if_error: float = 86_400.0,
        patience: float = 30.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._layout = Layout(root)
        self._index = Index(self._layout.index)
        self._space = Space(self._layout, self._index, max_bytes)
        self._lookup = Lookup(self._layout, self._index, ttl, clock)
        self._fill = Fill(self._space, clock)
        self._flights = SingleFlight(self._layout.locks, patience)
        self._stale_if_error = stale_if_error
        self._clock = clock
        self._complained = False
        with self._complaining():
            self._layout.make()
            self._space.bury_dead_owners()

    def lookup(self, key: str) -> CachedObject | None:
        """The object, where it is here whole and fresh: a hit. Takes no lock and writes no index."""
        found = None
        with self._complaining():
            found = self._lookup.find(key)
        if found is None:
            return None
        if found.fresh_until < self._clock():
            found.file.close()
            return None
        return CachedObject(found.facts, found.file, CacheStatus.HIT)

    def fetch(self, key: str, load: Load) -> CachedObject:
        """The object from here, else from the store through `load`, which is called once however many ask.

        Raises what `load` raises, and `StoreTimeout` where another request's fill takes too long.
        """
        found = self.lookup(key)
        if found is not None:
            return found
        with self._complaining():
            return self._flights.run(key, partial(self._lead, key, load), partial(self._follow, key, load))
        return _straight(load)

    def epoch(self, key: str) -> int:
        """To be taken before the store is changed, and given to `store`."""
        with self._complaining():
            return self._space.epoch(key)
        return -1

    def store(self, facts: ObjectFacts, data: bytes, epoch: int) -> None:
        """Keep what has just been put into the store, unless the key was changed since `epoch`."""
        with self._complaining():
            if not is_immutable(facts.key):
                unchanged = self._space.epoch(facts.key) == epoch
                self._space.forget(facts.key)
                epoch = epoch + 1 if unchanged else -1
            self._fill.from_upload(facts, data, epoch)

    def forget(self, key: str) -> None:
        """Remove the object from here, for all processes, fills under way included."""
        with self._complaining():
            self._space.forget(key)

    def is_writable(self) -> bool:
        """Whether the directory takes files at all."""
        return os.access(self._layout.tmp, os.W_OK | os.X_OK)

    def totals(self) -> Totals:
        """What the cache holds."""
        return self._index.totals()

    def close(self) -> None:
        """Let go of connections and claims."""
        self._space.close()
        self._index.close()

    def _lead(self, key: str, load: Load) -> CachedObject:
        """Ask the store, as the only one to do so; another process may have been quicker."""
        found = self._lookup.find(key)
        if found is None:
            filled = self._fill.from_store(key, load, None)
            assert filled is not None
            return filled
        if found.fresh_until >= self._clock():
            return CachedObject(found.facts, found.file, CacheStatus.COLLAPSED)
        return self._revalidate(key, load, found)

    def _revalidate(self, key: str, load: Load, found: Found) -> CachedObject:
        status = CacheStatus.REVALIDATED
        try:
            changed = self._fill.from_store(key, load, found.facts.etag)
            if changed is not None:
                found.file.close()
                return changed
            self._space.renew(key, self._clock())
        except (StoreUnreachable, StoreTimeout):
            status = CacheStatus.STALE
            if found.fresh_until + self._stale_if_error < self._clock():
                found.file.close()
                raise
        except BaseException as exc:
            found.file.close()
            if isinstance(exc, NotFound):
                self.forget(key)
            raise
        return CachedObject(found.facts, found.file, status)

    def _follow(self, key: str, load: Load) -> CachedObject:
        """Serve what the leader brought; what can't be kept is asked for by each."""
        found = self._lookup.find(key)
        if found is None:
            return _straight(load)
        return CachedObject(found.facts, found.file, CacheStatus.COLLAPSED)

    @contextmanager
    def _complaining(self) -> Iterator[None]:
        """Go on without the cache where it is out of order; say so once in the log."""
        try:
            yield
        except _OUT_OF_ORDER as exc:
            if not self._complained:
                self._complained = True
                _log.error("The cache is out of order, the store is asked instead: %s", exc)


def _straight(load: Load) -> CachedObject:
    stored = load(None)
    assert stored is not None
    return CachedObject(stored.facts, stored.body, CacheStatus.BYPASS)
