"""The variant service, which makes smaller images and other formats from stored images.

A variant is made at the first request and then served from the cache. `app.services.variant_rules` decides
which variants clients may request.
"""

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

from app.cache.disk_cache import DiskCache
from app.cache.lookup import CachedObject
from app.core.errors import (
    Busy,
    NotFound,
    SourceTooLarge,
    StoreError,
    UndecodableImage,
    UnsupportedImage,
)
from app.core.object_keys import check_readable
from app.core.object_metadata import ImageInfo
from app.core.objects import FORMATS, ImageFormat, ObjectFacts, version_tag
from app.core.threads import DecodeLimiter, blocking
from app.core.variant_keys import INFO, LISTED, VariantPath, is_first_frame, variant_etag, variant_keys
from app.core.variant_specs import VariantSpec
from app.imaging.sandbox.client import describe_in_sandbox, make_in_sandbox
from app.imaging.survey import ImageLimits
from app.imaging.variants import VariantRequest
from app.services.images import ImageService

_MAX_PRESENT = 256
"""Maximum number of threads of a worker that make a variant or wait for one. Further requests get 503."""

_FORMAT_SECONDS = {name: seconds for seconds, name in enumerate(FORMATS)}
_EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)

Observer = Callable[[str, float, int], None]
"""Function that is called with the format, the seconds and the bytes of each variant that was made."""

LoadObserver = Callable[[int, int], None]
"""Function that is called with two changes: of the number of requests that wait for variants, and of the
number of images from which variants are being made."""


class _ForeignObject(Exception):
    """Other software has stored an object under the path of a variant. That object takes precedence."""


@dataclass(frozen=True, slots=True)
class ImageDescription:
    """The facts about a stored image, as `GET /api/images/<key>/info` returns them. `bytes` is its size.

    `is_immutable` is whether the facts under this key never change.
    """

    info: ImageInfo
    content_type: str
    bytes: int
    last_modified: datetime
    is_immutable: bool


def _ignore(*_: object) -> None:
    """Do nothing. This is the default of the observers."""


class VariantService:
    """Returns variants of stored images, and makes those that are not cached.

    `limits` apply to the source, and `max_pixels` to the variant. A source of more than `max_source_bytes` is
    refused. `decoding` limits how many variants are made at the same time. `on_made` is called for each
    variant that was made, and `on_load` when a request starts or stops waiting.
    """

    def __init__(
        self,
        images: ImageService,
        cache: DiskCache,
        limits: ImageLimits,
        decoding: DecodeLimiter,
        *,
        max_pixels: int,
        max_source_bytes: int,
        on_made: Observer = _ignore,
        on_load: LoadObserver = _ignore,
    ) -> None:
        self._images = images
        self._cache = cache
        self._limits = limits
        self._decoding = decoding
        self._max_pixels = max_pixels
        self._max_source_bytes = max_source_bytes
        self._stored = images.stored_variants
        self._on_made = on_made
        self._on_load = on_load
        self._lock = threading.Lock()
        self._present = 0

    def fetch(self, path: VariantPath, spec: VariantSpec, *, is_listed: bool) -> CachedObject:
        """Return the variant, or the object of other software that is stored under its path.

        `path` is canonical and has an extension. The caller must close the body. Raises `InvalidKey`,
        `NotFound` if there is no such image, `UndecodableImage` if no variant can be made of it, `Busy`, and
        the errors of stores.
        """
        check_readable(path.source)
        image_format = path.format
        assert image_format is not None
        keys = variant_keys(path, is_listed=is_listed)
        recipe = f"{spec} {self._max_pixels}"

        def recall() -> tuple[ObjectFacts, bytes] | None:
            return self._recall(path, keys, recipe, image_format)

        def make(source: CachedObject) -> tuple[ObjectFacts, bytes]:
            facts, data = self._make(source, keys, spec, image_format)
            is_first = is_first_frame(facts.key)
            self._stored.keep(path, recipe, source.facts, data, is_first_frame=is_first)
            return facts, data

        if hit := self._lookup(keys):
            return hit
        with self._admitted():
            try:
                return self._cache.derive(keys, lambda: self._open_source(path), make, recall)
            except _ForeignObject:
                with suppress(NotFound):  # deleted in the meantime
                    return self._images.fetch(str(path))
            return self._cache.derive(keys, lambda: self._images.fetch(path.source), make)

    def fallback_extension(self, source: str, *, still: bool) -> str:
        """Return the extension of the format for clients that accept neither AVIF nor WebP.

        This is PNG if the image has transparency or is animated, else JPEG. Raises what `describe` raises.
        """
        info = self.describe(source).info
        return "png" if info.has_alpha or (info.frames > 1 and not still) else "jpg"

    def describe(self, key: str) -> ImageDescription:
        """Return the facts about a stored image. Raises what `fetch` raises."""
        check_readable(key)
        path = VariantPath(key, INFO, "json")

        def make(source: CachedObject) -> tuple[ObjectFacts, bytes]:
            facts = source.facts
            description = ImageDescription(
                self._info(source), facts.content_type, facts.size, facts.last_modified, facts.is_immutable
            )
            data = json.dumps(asdict(description), default=str).encode()
            return _facts(facts, f"{LISTED}{path}", "application/json", len(data), 0), data

        keys = (f"{LISTED}{path}",)
        cached = self._lookup(keys)
        if cached is None:
            with self._admitted():
                cached = self._cache.derive(keys, lambda: self._images.fetch(key), make)
        return _read_description(cached)

    def known_info(self, key: str) -> ImageInfo | None:
        """Return the facts about a picture if they are cached, else None.

        This calls neither the store nor a decoder.
        """
        cached = self._lookup((f"{LISTED}{VariantPath(key, INFO, 'json')}",))
        return None if cached is None else _read_description(cached).info

    def _lookup(self, keys: Iterable[str]) -> CachedObject | None:
        """Return the variant if it is cached and fresh. However many requests wait, this is never refused."""
        return next(filter(None, map(self._cache.lookup, keys)), None)

    @contextmanager
    def _admitted(self) -> Iterator[None]:
        """Count the calling thread among those that wait for variants, during the block.

        Raises `Busy` if there are too many.
        """
        with self._lock:
            if self._present >= _MAX_PRESENT:
                raise Busy(detail=f"{self._present} requests are already waiting for variants")
            self._present += 1
        self._on_load(1, 0)
        try:
            with blocking():
                yield
        finally:
            self._on_load(-1, 0)
            with self._lock:
                self._present -= 1

    @contextmanager
    def _slot(self) -> Iterator[None]:
        """Hold a slot for decoding during the block. Raises `Busy` if no slot becomes free in time."""
        with self._decoding.slot():
            self._on_load(-1, 1)
            try:
                yield
            finally:
                self._on_load(1, -1)

    def _open_source(self, path: VariantPath) -> CachedObject:
        if self._images.is_foreign_object(str(path)):
            raise _ForeignObject
        return self._images.fetch(path.source)

    def _recall(
        self, path: VariantPath, keys: tuple[str, str], recipe: str, image_format: ImageFormat
    ) -> tuple[ObjectFacts, bytes] | None:
        """Return the variant if the store has it, and if it was made from the current version of the image.

        The variant of a missing image is not returned, even if it is still in the store.
        """
        if self._cache.is_known_missing(path.source) or not (found := self._stored.find(path, recipe)):
            return None
        source = self._images.current_facts(path.source, is_proven=found.is_of_immutable_image)
        if source is None or not found.is_made_from(source):
            return None
        key = keys[1] if found.is_first_frame else keys[0]
        return _variant_facts(source, key, image_format, len(found.data)), found.data

    def _make(
        self, source: CachedObject, keys: tuple[str, str], spec: VariantSpec, image_format: ImageFormat
    ) -> tuple[ObjectFacts, bytes]:
        request = VariantRequest(spec, image_format.name, self._max_pixels)
        with self._slot():
            started = time.perf_counter()
            with _known_format():
                made = make_in_sandbox(self._data(source), request, self._limits)
            self._on_made(image_format.name, time.perf_counter() - started, len(made.data))
        key = keys[1] if made.is_flattened else keys[0]
        return _variant_facts(source.facts, key, image_format, len(made.data)), made.data

    def _info(self, source: CachedObject) -> ImageInfo:
        """Return what the metadata of the image says, or else decode the image."""
        stored = self._images.stored_info(source.facts)
        if stored is not None:
            return stored
        with self._slot(), _known_format():
            return describe_in_sandbox(self._data(source), self._limits)

    def _data(self, source: CachedObject) -> bytes:
        """Return the bytes of the source. Raises `SourceTooLarge`, and `StoreError` if it is incomplete."""
        if source.facts.size > self._max_source_bytes:
            raise SourceTooLarge(detail=f"{source.facts.size} bytes")
        data = source.body.read()
        if len(data) != source.facts.size:
            raise StoreError(detail=f"a body that ended after {len(data)} of {source.facts.size} bytes")
        return data


def _variant_facts(source: ObjectFacts, key: str, image_format: ImageFormat, size: int) -> ObjectFacts:
    return _facts(source, key, image_format.content_type, size, _FORMAT_SECONDS[image_format.name])


@contextmanager
def _known_format() -> Iterator[None]:
    """Turn `UnsupportedImage`, which is about uploads, into `UndecodableImage`."""
    try:
        yield
    except UnsupportedImage as exc:
        message = "The image is damaged, or is in a format of which this server makes no variants."
        raise UndecodableImage(message, detail=str(exc)) from exc


def _read_description(cached: CachedObject) -> ImageDescription:
    """Return the description in a cached file, and close the file."""
    try:
        fields = json.loads(cached.body.read())
    finally:
        cached.body.close()
    info, modified = ImageInfo(**fields.pop("info")), datetime.fromisoformat(fields.pop("last_modified"))
    return ImageDescription(info, **fields, last_modified=modified)


def _facts(source: ObjectFacts, key: str, content_type: str, size: int, seconds: int) -> ObjectFacts:
    """Return the facts of a variant. It was last modified `seconds` before its source.

    Variants in different formats are served at the same URL if the format is negotiated. So that their entity
    tags differ, even if nginx makes them from the time and the size, each format has a different number of
    seconds.
    """
    modified = max(source.last_modified.replace(microsecond=0) - timedelta(seconds=seconds), _EARLIEST)
    if source.is_immutable:
        etag = version_tag(modified, size)
    else:
        etag = variant_etag(source.etag, size, key.rpartition(".")[2])
    return ObjectFacts(key, size, content_type, etag, modified, is_immutable=source.is_immutable)
