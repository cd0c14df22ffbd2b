"""Making variants, which are derived from cached images, and keeping them in the cache.

A variant of a mutable image belongs to the version of the image from which it was made, and it is fresh for
as long as the image. The entity tag of the variant says which version that is.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from io import BytesIO

from app.cache.eviction import Space
from app.cache.fill import Fill
from app.cache.health import CACHE_ERRORS, Health
from app.cache.index import Index
from app.cache.invalidation import Epochs, ListedVariants, NegativeCache
from app.cache.lookup import CachedObject, CacheStatus, Lookup
from app.core.errors import TooManyPixels, UndecodableImage, VariantFailed
from app.core.objects import ObjectFacts
from app.core.variant_keys import is_variant_of, source_of

Make = Callable[[CachedObject], tuple[ObjectFacts, bytes]]
"""Function that makes a variant from its source, and returns the facts and the bytes of the variant."""

Recall = Callable[[], tuple[ObjectFacts, bytes] | None]
"""Function that returns the current version of a variant if another machine has made it, else None."""

_CONFIRMED = (CacheStatus.MISS, CacheStatus.REVALIDATED, CacheStatus.BYPASS)
"""The statuses of objects whose version the store has just confirmed."""


class Derivation:
    """Makes variants, unless they are cached and their image has not changed.

    `failures` remembers images of which no variant can be made, and variants that can't be made. `clock`
    returns the Unix time in seconds. Methods raise `CACHE_ERRORS` if the cache directory can't be used.
    """

    def __init__(
        self,
        lookup: Lookup,
        index: Index,
        space: Space,
        fill: Fill,
        epochs: Epochs,
        listed: ListedVariants,
        failures: NegativeCache,
        health: Health,
        clock: Callable[[], float],
    ) -> None:
        self._lookup = lookup
        self._index = index
        self._space = space
        self._fill = fill
        self._epochs = epochs
        self._listed = listed
        self._failures = failures
        self._health = health
        self._clock = clock

    def fetch(
        self,
        keys: Sequence[str],
        open_source: Callable[[], CachedObject],
        make: Make,
        recall: Recall,
        *,
        since: float,
    ) -> CachedObject:
        """Return the variant if its source has not changed, or else recall or make it.

        If another request has made it after the Unix time `since`, return it without opening the source.
        Raises what the three functions raise, and `CACHE_ERRORS`.
        """
        found = next(filter(None, map(self._lookup.find, keys)), None)
        if found is not None and self._lookup.is_valid(found, since):
            return CachedObject(found.facts, found.file, CacheStatus.COLLAPSED)
        source_key = source_of(keys[0])
        with ExitStack() as files:
            if found is not None:
                files.callback(found.file.close)
            epoch = self._epochs.read(source_key)
            if error := self._failures.get(source_key) or self._failures.get(keys[0]):
                raise error
            began_at = self._clock()
            if found is None and (recalled := recall()):
                return self._keep(*recalled, epoch, self._recalled_at(source_key, recalled[0], began_at))
            source = open_source()
            files.callback(source.body.close)
            if found is not None and is_variant_of(found.facts.etag, source.facts.etag):
                status = self._renew(found.facts.key, source, began_at)
                files.pop_all()
                source.body.close()
                return CachedObject(found.facts, found.file, status)
            try:
                facts, data = (recall() if found else None) or make(source)
            except UndecodableImage as exc:
                is_of_variant = isinstance(exc, TooManyPixels | VariantFailed)
                self._failures.add(keys[0] if is_of_variant else source_key, epoch, exc)
                raise
            validated_at = self._validated_at(source, began_at)
        return self._keep(facts, data, epoch, validated_at)

    def _keep(self, facts: ObjectFacts, data: bytes, epoch: int, validated_at: float) -> CachedObject:
        """Cache a variant, unless its image or the settings have been changed, and return it."""
        try:
            with self._listed.held(facts.key) as is_current:
                if is_current:
                    return self._fill.from_variant(facts, data, epoch, validated_at)
        except CACHE_ERRORS as exc:
            self._health.report(exc)
        return CachedObject(facts, BytesIO(data), CacheStatus.BYPASS)

    def _renew(self, key: str, source: CachedObject, began_at: float) -> CacheStatus:
        """Let a variant be fresh for as long as its source, and return the status of the response."""
        if source.status is CacheStatus.STALE:
            self._lookup.extend_freshness(key)
            return CacheStatus.STALE
        self._space.renew(key, self._validated_at(source, began_at))
        return CacheStatus.REVALIDATED

    def _validated_at(self, source: CachedObject, began_at: float) -> float:
        """Return the Unix time when the store last confirmed this version of a source.

        The source was opened after `began_at`. If the time is unknown, because the source was evicted or
        replaced in the meantime, return 0, so that its variants are not fresh.
        """
        entry = self._index.get(source.facts.key)
        if entry is not None and entry.facts.etag == source.facts.etag:
            return entry.validated_at
        return began_at if source.status in _CONFIRMED else 0.0

    def _recalled_at(self, source_key: str, variant: ObjectFacts, began_at: float) -> float:
        """Return the Unix time when the store last confirmed the version from which a variant was made.

        The variant was recalled after `began_at`. If that version of the image is cached, its time counts.
        """
        entry = self._index.get(source_key)
        is_cached = entry is not None and is_variant_of(variant.etag, entry.facts.etag)
        return entry.validated_at if entry is not None and is_cached else began_at
