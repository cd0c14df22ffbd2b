"""Making variants in advance, so that the first visitors of a page need not wait for them."""

import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from app.cache.lookup import CachedObject, CacheStatus
from app.core.errors import AppError, Busy, UndecodableImage, VariantNotPermitted
from app.core.variant_keys import VariantPath, split_variant_path
from app.core.variant_specs import VariantSpec
from app.services.stored_variants import StoredVariants
from app.services.variant_rules import VariantRules
from app.services.variants import VariantService

_NEGOTIABLE = ("avif", "webp")
"""The formats to make of a variant that is given without an extension. Most browsers accept both."""

_SEPARATOR = re.compile(r",(?!still\b)")
"""Matches the commas between variants, but not the comma in `w640,still`."""

_ATTEMPTS = 20
_RETRY_SECONDS = 1.0
_PUT_SECONDS = 60.0


class Warmed(StrEnum):
    """What happened to a variant: it was made or found in the store, was cached already, and so on."""

    MADE = "made"
    THERE = "there_already"
    WITHOUT_ROOM = "without_room"
    FAILED = "failed"


_OUTCOMES = {
    CacheStatus.MISS: Warmed.MADE,
    CacheStatus.BYPASS: Warmed.WITHOUT_ROOM,
    CacheStatus.STALE: Warmed.FAILED,
}
"""The outcomes by the status of the cache. With all other statuses, the variant was cached already."""


@dataclass(frozen=True, slots=True)
class WantedVariant:
    """A listed variant to make of each image."""

    name: str
    extension: str
    spec: VariantSpec


@dataclass(slots=True)
class WarmedImage:
    """The outcomes for the variants of one image. `error` is the last error, or None."""

    key: str
    counts: Counter[Warmed] = field(default_factory=Counter)
    error: AppError | None = None


def wanted_variants(rules: VariantRules, text: str) -> tuple[WantedVariant, ...]:
    """Return the variants that `text` names, such as `thumb,w640.webp`.

    A name without an extension stands for AVIF and WebP. Raises `InvalidVariant`, and `VariantNotPermitted`
    for variants that are not listed in the settings.
    """
    wanted: dict[WantedVariant, None] = {}
    for word in filter(None, map(str.strip, _SEPARATOR.split(text))):
        given = split_variant_path(f"image.png/{word}") or VariantPath("image.png", word, "")
        for extension in (given.extension,) if given.extension else _NEGOTIABLE:
            path, spec = rules.canonical(replace(given, extension=extension))
            if not rules.is_listed(path):
                raise VariantNotPermitted(
                    f"{word} is not permitted without a signature by VARIANTS, VARIANT_WIDTHS and "
                    "VARIANT_PRESETS. Only permitted variants can be made in advance."
                )
            wanted[WantedVariant(path.name, path.extension, spec)] = None
    return tuple(wanted)


class Warmer:
    """Makes the `wanted` variants of images. Threads can share an instance.

    The variants are put into the cache and, if that is enabled, into the store.
    """

    def __init__(
        self, variants: VariantService, stored: StoredVariants, wanted: Sequence[WantedVariant]
    ) -> None:
        self._variants = variants
        self._stored = stored
        self._wanted = wanted

    def warm(self, key: str) -> WarmedImage:
        """Make the variants of an image that are not cached. Errors are part of the result."""
        image = WarmedImage(key)
        for wanted in self._wanted:
            try:
                cached = self._fetch(key, wanted)
            except UndecodableImage as exc:  # another variant may be small enough
                image.error = exc
                image.counts[Warmed.FAILED] += 1
            except AppError as exc:
                image.error = exc
                image.counts[Warmed.FAILED] += len(self._wanted) - image.counts.total()
                break
            else:
                cached.body.close()
                image.counts[_OUTCOMES.get(cached.status, Warmed.THERE)] += 1
        self._stored.wait(_PUT_SECONDS)  # otherwise, variants might be made faster than they can be stored
        return image

    def _fetch(self, key: str, wanted: WantedVariant) -> CachedObject:
        """Return the variant. If other threads are making variants, wait for them."""
        path = VariantPath(key, wanted.name, wanted.extension)
        for _ in range(_ATTEMPTS - 1):
            try:
                return self._variants.fetch(path, wanted.spec, is_listed=True)
            except Busy:
                time.sleep(_RETRY_SECONDS)
        return self._variants.fetch(path, wanted.spec, is_listed=True)
