"""The cache as the service sees it: look up, fetch through, store, forget.

The bounded disk cache in front of the store, shared by all worker processes of one machine.
"""

import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from app.cache.eviction import Bounds, Removal, Space
from app.cache.fill import Fill
from app.cache.health import CACHE_ERRORS, Disorder, records_access_times
from app.cache.index import Index, Totals
from app.cache.invalidation import Epochs, keep_only
from app.cache.layout import Layout
from app.cache.lookup import CachedObject, CacheStatus, Found, Load, Lookup
from app.cache.rebuild import Check, Rebuild, Report
from app.cache.single_flight import KeyLocks, NegativeCache, SingleFlight
from app.cache.stats import Counts
from app.core.errors import CacheUnreadable, NotFound, StoreBusy, StoreError, StoreTimeout, StoreUnreachable
from app.core.limiters import Bulkhead
from app.core.object_keys import looks_immutable
from app.core.objects import ObjectFacts

_log = logging.getLogger(__name__)

_AWAY_SECONDS = 5.0
"""While the store is away, what is stale is served without asking again, so that no thread waits for it."""


class DiskCache:
    """An LRU of files below `root` that takes at most `max_bytes`, shared by the processes of one machine.

    Objects of more than `max_object_bytes` are not kept, but passed on;
    `ttl` is how many seconds a mutable object is served without asking the store again, `stale_if_error`
    for how many more while the store is away; `negative_ttl` for how many a missing one counts as missing;
    `patience` the most seconds that a request waits for another one's fill; `bulkhead` limits how
    many wait for the store.
    A cache that can't be read or written never fails a request: the store then answers alone.
    """

    def __init__(
        self,
        root: Path,
        max_bytes: int,
        *,
        max_object_bytes: int | None = None,
        ttl: float = 300.0,
        stale_if_error: float = 86_400.0,
        negative_ttl: float = 5.0,
        patience: float = 30.0,
        bulkhead: Bulkhead | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._layout = Layout(root)
        self._index = Index(self._layout, log_bytes=min(max(max_bytes // 16, 32 * 1024), 400 * 1024))
        self._epochs = Epochs(self._layout.epochs)
        self.counts = Counts(self._layout)
        bounds = Bounds(max_bytes, max_bytes if max_object_bytes is None else max_object_bytes)
        self._space = Space(self._layout, self._index, self._epochs, bounds, self.counts.evicted)
        self._lookup = Lookup(self._layout, self._index, ttl, clock)
        self._disorder = Disorder(self._start_again)
        self._bulkhead = bulkhead or Bulkhead()
        self._fill = Fill(self._space, self._disorder, self._bulkhead, clock)
        self._removal = Removal(self._layout, self._space, self._disorder)
        self._flights = SingleFlight(KeyLocks(self._layout.locks / "fills"), patience)
        self._negative = NegativeCache(negative_ttl, clock)
        self._rebuild = Rebuild(self._layout, self._index, self._space)
        self._stale_if_error = stale_if_error
        self._clock = clock
        self._store_away_until = 0.0
        self.max_bytes = max_bytes
        self._make_ready()

    def bind_to_store(self, origin: str) -> None:
        """Empty the directory where another store filled it. For servers: commands may look at any bucket."""
        with self._disorder.survived():
            keep_only(self._layout, origin)

    def lookup(self, key: str) -> CachedObject | None:
        """The object, where it is here whole and fresh: a hit. Takes no lock and writes no index."""
        return self._hit(self._lookup.find, key)

    def lookup_immutable(self, key: str) -> CachedObject | None:
        """Like `lookup`, but only for what is proven to be immutable: the index is not read either."""
        return self._hit(self._lookup.find_immutable, key)

    def _hit(self, find: Callable[[str], Found | None], key: str) -> CachedObject | None:
        try:
            found = find(key)
        except CACHE_ERRORS as exc:
            self._disorder.note(exc)
            return None
        if found is None:
            return None
        if found.fresh_until < self._clock():
            found.file.close()
            return None
        status = CacheStatus.STALE if found.is_stale else CacheStatus.HIT
        return CachedObject(found.facts, found.file, status)

    def fetch(self, key: str, load: Load) -> CachedObject:
        """The object from here, else from the store through `load`, which is called once however many ask.

        Raises what `load` raises, `StoreTimeout` if another request's fill takes too long, and `StoreBusy`.
        """
        found = self.lookup(key)
        if found is not None:
            return found
        with self._disorder.survived():
            if self._negative.holds(key, self._epochs.read):
                raise NotFound(detail="known to be missing")
            if self._bulkhead.is_silent() and (stale := self._stale(key, StoreBusy(detail="it is silent"))):
                return stale
            lead, follow = partial(self._lead, key, load), partial(self._follow, key, load)
            try:
                with self._bulkhead.waiting():
                    return self._flights.run(key, lead, follow)
            except StoreError as exc:
                if stale := self._stale(key, exc):
                    return stale
                raise
        return self._fill.straight(load)

    def epoch(self, key: str) -> int:
        """To be taken before the store is changed, and given to `store`."""
        with self._disorder.survived():
            return self._epochs.read(key)
        return -1

    def store(self, facts: ObjectFacts, data: bytes, epoch: int) -> None:
        """Keep what has just been put into the store, unless the key was changed since `epoch`.

        Raises `CacheStuck` where bytes that are not the store's any more can't be removed.
        """
        present = -1
        with self._disorder.survived():
            present = self._epochs.advance(facts.key)
        if not looks_immutable(facts.key) or self._removal.has_mutable(facts.key):
            self._removal.remove(facts.key)
        if present == epoch + 1:
            with self._disorder.survived():
                self._fill.from_upload(facts, data, present)

    def forget(self, key: str) -> bool:
        """Remove the object from here, for all processes, fills under way included; whether it was here.

        This holds also where the index is out of order: the file is what makes a hit.

        Raises `CacheStuck` where the file can't be removed.
        """
        with self._disorder.survived():
            self._epochs.advance(key)
        return self._removal.remove(key)

    def clear(self, progress: Callable[[int], None] = lambda done: None) -> int:
        """Remove every object; how many there were, which `progress` is told. Raises `CacheUnreadable`."""
        with self._at_rest():
            removed = self._space.clear(progress)
        self.check(fix=True)  # files that no row told of are removed, too
        return removed

    def is_writable(self) -> bool:
        """Whether the directory takes files, and has taken the last one that was to be kept."""
        return os.access(self._layout.tmp, os.W_OK | os.X_OK) and not self._disorder.is_present

    def totals(self) -> Totals:
        """What the cache holds. Raises `OSError` or `sqlite3.Error` where it can't be read."""
        return self._index.totals()

    def check(self, *, fix: bool = False, progress: Callable[[int], None] = lambda done: None) -> Report:
        """Compare rows, files and totals; with `fix` mend what differs, a damaged index included.

        `progress` is told how many rows have been looked at. Raises `CacheUnreadable`.
        """
        try:
            return self._compare(fix, progress)
        except CacheUnreadable as exc:
            if not (fix and isinstance(exc.__cause__, sqlite3.Error)):
                raise
            self._start_again(exc.__cause__)
        return self._compare(fix, progress)

    def close(self) -> None:
        """Let go of connections and claims."""
        self._rebuild.join()
        self.counts.close()
        self._space.close()
        self._index.close()

    def _compare(self, fix: bool, progress: Callable[[int], None]) -> Report:
        with self._at_rest():
            return Check(self._layout, self._index, self._space, fix=fix).run(progress)

    @contextmanager
    def _at_rest(self) -> Iterator[None]:
        """Begin once no rebuild is under way. Raises `CacheUnreadable`."""
        try:
            self._rebuild.wait()
            yield
        except CACHE_ERRORS as exc:
            raise CacheUnreadable(detail=f"{type(exc).__name__}: {exc}") from exc

    def _lead(self, key: str, load: Load) -> CachedObject:
        """Ask the store, as the only one to do so; another process may have been quicker."""
        found = self._lookup.find(key)
        if found is not None and found.fresh_until >= self._clock():
            return CachedObject(found.facts, found.file, CacheStatus.COLLAPSED)
        if found is not None and self._clock() < self._store_away_until:
            found.file.close()
            raise StoreUnreachable(detail="it was asked in vain a moment ago")
        epoch = self._epochs.read(key)
        try:
            if found is None:
                return self._fill_missing(load, epoch)
            return self._revalidate(key, load, found, epoch)
        except NotFound:
            if found is not None:
                self._removal.remove(key)
            self._negative.note(key, epoch)
            raise

    def _fill_missing(self, load: Load, epoch: int) -> CachedObject:
        filled = self._fill.from_store(load, None, epoch)
        assert filled is not None
        if filled.status is CacheStatus.BYPASS:
            self._rebuild.start_if_needed()
        return filled

    def _revalidate(self, key: str, load: Load, found: Found, epoch: int) -> CachedObject:
        try:
            changed = self._fill.from_store(load, found.facts.etag, epoch)
            if changed is None:
                self._space.renew(key, self._clock())
                return CachedObject(found.facts, found.file, CacheStatus.REVALIDATED)
        except BaseException:
            found.file.close()
            raise
        found.file.close()
        return changed

    def _follow(self, key: str, load: Load) -> CachedObject:
        """Serve what the leader brought; what can't be kept is asked for by each."""
        found = self._lookup.find(key)
        if found is None:
            return self._fill.straight(load)
        return CachedObject(found.facts, found.file, CacheStatus.COLLAPSED)

    def _stale(self, key: str, exc: StoreError) -> CachedObject | None:
        """What there is, while the store fails; for some seconds it then counts as fresh here."""
        found = self._lookup.find(key)
        if found is None:
            return None
        if found.fresh_until + self._stale_if_error < self._clock():
            found.file.close()
            return None
        self._lookup.postpone(key)
        if self._clock() >= self._store_away_until:
            _log.warning("Images are served stale: %s", exc)
        if isinstance(exc, StoreUnreachable | StoreTimeout):  # other errors may be this key's alone
            self._store_away_until = self._clock() + _AWAY_SECONDS
        return CachedObject(found.facts, found.file, CacheStatus.STALE)

    def _make_ready(self) -> None:
        """Leaves no connection open where it can: the process may yet fork."""
        with self._disorder.survived():
            self._prepare()
            if not records_access_times(self._layout.root):
                _log.warning(
                    "CACHE_DIR is mounted noatime: hits that a front server serves don't count as use."
                )
            if not self._rebuild.start_if_needed():
                self._index.close()

    def _prepare(self) -> None:
        self._layout.make()
        self._epochs.prepare()
        self.counts.prepare()
        self._space.reclaim()

    def _start_again(self, exc: Exception) -> None:
        """From what is left: a directory made anew, an index that can't be used removed.

        A full disk or a busy index need no new start, which would take away what others are writing.
        """
        damaged = isinstance(exc, sqlite3.DatabaseError) and not isinstance(exc, sqlite3.OperationalError)
        if not (damaged or isinstance(exc, FileNotFoundError) or not self._layout.is_there()):
            return
        try:
            self._space.close()
            self._index.close()
            if damaged:
                self._index.discard()
            self._prepare()
            self._rebuild.start_if_needed()
        except CACHE_ERRORS as again:
            _log.error("The cache could not be mended: %s", again)
