"""The bounded disk cache in front of the store, shared by all worker processes on one machine."""

import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from io import BytesIO
from pathlib import Path

from app.cache.derivation import Derivation, Make, Recall
from app.cache.eviction import Space
from app.cache.fill import Fill
from app.cache.health import CACHE_ERRORS, Health
from app.cache.index import Index, Totals
from app.cache.invalidation import Epochs, ListedVariants, NegativeCache, bind_directory
from app.cache.layout import Layout
from app.cache.lookup import CachedObject, CacheStatus, Found, Load, Lookup
from app.cache.rebuild import CheckReport, ConsistencyCheck, Rebuild
from app.cache.single_flight import KeyLocks, SingleFlight
from app.cache.stats import Counts
from app.core.errors import (
    CacheUnreadable,
    NotFound,
    StoreBusy,
    StoreError,
    StoreTimeout,
    StoreUnreachable,
)
from app.core.object_keys import looks_immutable
from app.core.objects import ObjectFacts
from app.core.system import records_access_times
from app.core.threads import Bulkhead
from app.core.variant_keys import variant_name

_log = logging.getLogger(__name__)

_STORE_RETRY_SECONDS = 5.0
"""For how many seconds stale objects are served without calling the store, after the store was unreachable.
In that time, requests for these objects don't wait for the store."""


class DiskCache:
    """An LRU cache of files in the directory `root`, which takes at most `max_bytes` on disk.

    - `max_object_bytes`: maximum size of a cached object (default: `max_bytes`). Larger objects are streamed
      from the store.
    - `ttl`: for how many seconds a mutable object is served without revalidation.
    - `stale_if_error`: for how many seconds after the `ttl` the object is still served if the store fails.
    - `negative_ttl`: for how many seconds the cache remembers that an object is missing from the store.
    - `fill_timeout`: maximum number of seconds that a request waits while another request fetches the object.
    - `bulkhead`: limits the number of threads that call the store or wait for it.
    - `clock`: returns the Unix time in seconds.

    If the cache directory can't be read or written, objects are served from the store, and no request for an
    object fails for this reason. `counts` counts the responses.
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
        fill_timeout: float = 30.0,
        bulkhead: Bulkhead | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.max_bytes = max_bytes
        self._clock = clock
        self._stale_if_error = stale_if_error
        self._store_away_until = 0.0
        self._bulkhead = bulkhead or Bulkhead()
        self._layout = Layout(root)
        self._index = Index(self._layout, log_bytes=min(max(max_bytes // 16, 32 * 1024), 400 * 1024))
        self._epochs = Epochs(self._layout.epochs)
        self._negative = NegativeCache(self._epochs, negative_ttl, clock)
        self._listed = ListedVariants(self._layout)
        self._health = Health(self._repair)
        self.counts = Counts(self._layout)
        self._space = Space(
            self._layout,
            self._index,
            self._epochs,
            self._health,
            max_bytes=max_bytes,
            max_object_bytes=max_bytes if max_object_bytes is None else max_object_bytes,
            on_eviction=self.counts.evicted,
        )
        self._lookup = Lookup(self._layout, self._index, ttl, clock)
        self._fill = Fill(self._space, self._health, self._bulkhead, clock)
        self._derivation = Derivation(
            self._lookup,
            self._index,
            self._space,
            self._fill,
            self._epochs,
            self._listed,
            NegativeCache(self._epochs, negative_ttl, clock),
            self._health,
            clock,
        )
        self._flights = SingleFlight(KeyLocks(self._layout.locks / "fills"), fill_timeout)
        self._rebuild = Rebuild(self._layout, self._index, self._space)
        with self._health.tolerated():
            self._start()

    def lookup(self, key: str) -> CachedObject | None:
        """Return the object if it is cached and fresh (a hit), else None.

        This takes no lock and doesn't write to the index.
        """
        return self._hit(self._lookup.find, key)

    def lookup_immutable(self, key: str) -> CachedObject | None:
        """Like `lookup`, but only for objects that are proven to be immutable. Doesn't read the index."""
        return self._hit(self._lookup.find_immutable, key)

    def fetch(self, key: str, load: Load) -> CachedObject:
        """Return the object from the cache, or from the store by calling `load`.

        If many requests ask for the same key at once, only one of them calls `load`, unless the object can't
        be cached. If the store fails and the cache contains a stale object, return the stale object. Raises
        what `load` raises, `StoreTimeout` if another request takes too long to fetch the object, and
        `StoreBusy` if too many threads are waiting for the store.
        """
        found = self._hit(self._lookup.find, key)
        if found is not None:
            return found
        try:
            return self._fetch_through(key, load)
        except CACHE_ERRORS as exc:
            self._health.report(exc)
        return self._fill.fetch_uncached(load)

    def derive(
        self,
        keys: Sequence[str],
        open_source: Callable[[], CachedObject],
        make: Make,
        recall: Recall = lambda: None,
    ) -> CachedObject:
        """Return a variant from the cache, or make it.

        `keys` are the cache keys under which the variant may be cached; `make` decides which of them it is.
        `open_source` returns the current version of the image from which the variant is made. A variant of a
        mutable image is served without calling it for as long as the image would be served without
        revalidation.

        If many requests ask for the same variant at once, only one of them calls `recall` and, if this
        returns None, `make`. If `make` raises `UndecodableImage`, the error is remembered for `negative_ttl`
        seconds for all variants of the image; `TooManyPixels` for this variant.
        Raises what the two functions raise, and `StoreTimeout` if another request takes too long to make the
        variant.
        """
        for key in keys:
            if hit := self._hit(self._lookup.find, key):
                return hit
        began_at = self._clock()
        try:
            with self._flights.lead_or_wait(keys[0]):
                return self._derivation.fetch(keys, open_source, make, recall, since=began_at)
        except StoreError as exc:
            for key in keys:
                if stale := self._serve_stale(key, exc):
                    return stale
            raise
        except CACHE_ERRORS as exc:
            self._health.report(exc)
        facts, data = recall() or _make_uncached(open_source, make)
        return CachedObject(facts, BytesIO(data), CacheStatus.BYPASS)

    def is_known_missing(self, key: str) -> bool:
        """Return whether the store was asked for the object a moment ago and does not have it."""
        with self._health.tolerated():
            return self._negative.get(key) is not None
        return False

    def epoch(self, key: str) -> int:
        """Return the epoch to pass to `store`. Call this before you change the object in the store."""
        try:
            return self._epochs.read(key)
        except CACHE_ERRORS as exc:
            self._health.report(exc)
            return -1

    def store(self, facts: ObjectFacts, data: bytes, epoch: int, digest: str = "") -> None:
        """Cache an object that was just put into the store.

        `digest` is the hexadecimal SHA-256 of `data`, if the caller has computed it.

        Don't cache it if another request has changed the key since the caller read `epoch`. Raises
        `CacheStuck` if an older version of the object can't be removed from the cache.
        """
        current = -1
        try:
            current = self._epochs.advance(facts.key)
        except CACHE_ERRORS as exc:
            self._health.report(exc)
        is_latest = current == epoch + 1
        if not looks_immutable(facts.key) or os.path.lexists(self._layout.mutable_path(facts.key)):
            self._space.remove(facts.key)
            latest = self._remove_late_variants(facts.key)
            is_latest, current = is_latest and latest == current + 1, latest
        if is_latest:
            try:
                self._fill.from_upload(facts, data, current, digest)
            except CACHE_ERRORS as exc:
                self._health.report(exc)

    def forget(self, key: str) -> bool:
        """Remove the object from the cache of all processes, and return whether it was cached.

        Requests that are fetching the object now don't cache it again. This works even if the index can't be
        used, since an object without a file is never a hit. Raises `CacheStuck` if the file can't be removed.
        """
        with self._health.tolerated():
            self._epochs.advance(key)
        was_cached = self._space.remove(key)
        self._remove_late_variants(key)
        return was_cached

    def clear(self, progress: Callable[[int], None] = lambda removed: None) -> int:
        """Remove all objects, and return how many there were.

        Calls `progress` with the number of objects removed so far. Raises `CacheUnreadable` if the directory
        or the index can't be used.
        """
        with self._after_rebuild():
            removed = self._space.clear(progress)
        self.check(fix=True)  # removes files that have no row in the index
        return removed

    def check(
        self, *, fix: bool = False, progress: Callable[[int], None] = lambda checked: None
    ) -> CheckReport:
        """Compare the rows and the totals in the index with the files. With `fix`, repair the differences.

        With `fix`, a damaged index is rebuilt first. Calls `progress` with the number of rows checked so far.
        Raises `CacheUnreadable` if the directory or the index can't be used.
        """
        try:
            return self._compare(fix, progress)
        except CacheUnreadable as exc:
            if not (fix and isinstance(exc.__cause__, sqlite3.Error)):
                raise
            self._repair(exc.__cause__)
        return self._compare(fix, progress)

    def bind_to_store(self, identity: str) -> None:
        """Empty the directory if it was filled from a store with a different identity.

        Only servers call this. The operator commands don't, so that they can use a different bucket without
        emptying the cache.
        """
        with self._health.tolerated():
            bind_directory(self._layout, identity)

    def bind_to_variants(self, listed: Mapping[str, str]) -> None:
        """Remove the variants that are not listed any more, or whose preset has changed.

        `listed` maps the names of the listed variants to their specs. Only servers call this, before the
        first request.
        """
        with self._health.tolerated(), self._listed.changed(listed) as changed:
            if changed:
                _log.info("Removing variants, since the settings of variants have changed.")
                if self._index.is_rebuilding():
                    self._layout.remove_variants(changed)  # before they get rows
                else:
                    self._space.remove_variants(lambda key: variant_name(key) in changed)

    def is_writable(self) -> bool:
        """Return whether the directory is writable and the latest write succeeded."""
        return os.access(self._layout.tmp, os.W_OK | os.X_OK) and not self._health.is_degraded

    def totals(self) -> Totals:
        """Return the number and size of the cached objects. Raises `OSError` and `sqlite3.Error`."""
        return self._index.totals()

    def variant_totals(self) -> Totals:
        """Like `totals`, but only for what was made from images. This takes longer."""
        return self._index.variant_totals()

    def close(self) -> None:
        """Stop the rebuild, close the index, and release this process's locks and files."""
        self._rebuild.stop()
        self.counts.close()
        self._space.close()
        self._index.close()

    def _remove_late_variants(self, key: str) -> int:
        """Remove the variants that were made of an image while it was being removed.

        A request may have read the new epoch, and then have opened the image before its file was removed. In
        the next epoch, it can't publish a variant any more. Return the number of that epoch, or -1.
        """
        epoch = -1
        with self._health.tolerated():
            epoch = self._epochs.advance(key)
        if self._layout.has_variants(key):
            self._space.remove(key)
        return epoch

    def _hit(self, find: Callable[[str], Found | None], key: str) -> CachedObject | None:
        try:
            found = find(key)
        except CACHE_ERRORS as exc:
            self._health.report(exc)
            return None
        if found is None:
            return None
        if found.fresh_until < self._clock():
            found.file.close()
            return None
        status = CacheStatus.STALE if found.is_stale else CacheStatus.HIT
        return CachedObject(found.facts, found.file, status)

    def _fetch_through(self, key: str, load: Load) -> CachedObject:
        """Fetch the object, or wait for another request to fetch it.

        Raises what `fetch` raises, and `CACHE_ERRORS`.
        """
        if error := self._negative.get(key):
            raise error
        if self._bulkhead.is_silent():
            silence = StoreBusy(detail="the store has stopped responding")
            if stale := self._serve_stale(key, silence):
                return stale
        began_at = self._clock()
        try:
            with self._bulkhead.waiting(), self._flights.lead_or_wait(key) as leads:
                if leads:
                    return self._fetch_as_leader(key, load)
                return self._fetch_as_follower(key, load, began_at)
        except StoreError as exc:
            if stale := self._serve_stale(key, exc):
                return stale
            raise

    def _fetch_as_leader(self, key: str, load: Load) -> CachedObject:
        """Call the store, unless another process has fetched the object in the meantime."""
        found = self._lookup.find(key)
        if found is not None and found.fresh_until >= self._clock():
            return CachedObject(found.facts, found.file, CacheStatus.COLLAPSED)
        if found is not None and self._clock() < self._store_away_until:
            found.file.close()
            raise StoreUnreachable(detail="the store could not be reached a moment ago")
        epoch = self._epochs.read(key)
        try:
            if found is not None:
                return self._revalidate(key, load, found, epoch)
            filled = self._fill.from_store(load, None, epoch)
        except NotFound as exc:
            if found is not None or self._layout.has_variants(key):
                self._space.remove(key)
            self._negative.add(key, epoch, exc)
            raise
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

    def _fetch_as_follower(self, key: str, load: Load, began_at: float) -> CachedObject:
        """Return the object that the leader fetched. If it was not cached, call the store as well.

        The request began to wait at the Unix time `began_at`.
        """
        found = self._lookup.find(key)
        if found is not None and self._lookup.is_valid(found, began_at):
            return CachedObject(found.facts, found.file, CacheStatus.COLLAPSED)
        if found is not None:
            found.file.close()
        return self._fill.fetch_uncached(load)

    def _serve_stale(self, key: str, exc: StoreError) -> CachedObject | None:
        """Return the stale object, or None if there is none or it must not be served.

        The object then counts as fresh for a few seconds.
        """
        found = self._lookup.find(key)
        if found is None:
            return None
        if found.fresh_until + self._stale_if_error < self._clock():
            found.file.close()
            return None
        self._lookup.extend_freshness(key)
        if self._clock() >= self._store_away_until:
            _log.warning("Serving stale images because the store failed: %s", exc)
        if isinstance(exc, StoreUnreachable | StoreTimeout):  # other errors may affect only this key
            self._store_away_until = self._clock() + _STORE_RETRY_SECONDS
        return CachedObject(found.facts, found.file, CacheStatus.STALE)

    def _compare(self, fix: bool, progress: Callable[[int], None]) -> CheckReport:
        with self._after_rebuild():
            return ConsistencyCheck(self._layout, self._index, self._space, fix=fix).run(progress)

    @contextmanager
    def _after_rebuild(self) -> Iterator[None]:
        """Wait until no rebuild is needed, then run the block. Turn `CACHE_ERRORS` into `CacheUnreadable`."""
        try:
            self._rebuild.wait()
            yield
        except CACHE_ERRORS as exc:
            raise CacheUnreadable(detail=f"{type(exc).__name__}: {exc}") from exc

    def _start(self) -> None:
        self._prepare()
        if not records_access_times(self._layout.root):
            _log.warning("CACHE_DIR is mounted noatime, so hits served by a front server don't count as use.")
        if not self._rebuild.start_if_needed():
            self._index.close()  # the process may fork, and SQLite connections must not be inherited

    def _prepare(self) -> None:
        self._layout.create()
        self._epochs.prepare()
        self.counts.prepare()
        self._space.reclaim()

    def _repair(self, exc: Exception) -> None:
        """Create a missing directory again, and remove an index that can't be used.

        A full disk or a busy index needs no repair, and a repair would remove files that other threads are
        writing.
        """
        is_damaged = isinstance(exc, sqlite3.DatabaseError) and not isinstance(exc, sqlite3.OperationalError)
        if not (is_damaged or isinstance(exc, FileNotFoundError) or not self._layout.exists()):
            return
        try:
            self._space.close()
            self._index.close()
            if is_damaged:
                self._index.discard_if_unusable()
            self._prepare()
            self._rebuild.start_if_needed()
        except CACHE_ERRORS as again:
            _log.error("The cache could not be repaired: %s", again)


def _make_uncached(open_source: Callable[[], CachedObject], make: Make) -> tuple[ObjectFacts, bytes]:
    source = open_source()
    with closing(source.body):
        return make(source)
