"""Variants in the store, so that other machines, and this one after a loss of its cache, need not make them.

    variants/<key>/<name>.<extension>

`<key>` is the key of the image from which the variant is made. The metadata of the object says from which
version of the image it was made, and how. A variant of a different version is ignored and then replaced.

A variant is put into the store in the background, after it was made. If the store fails, or if too much is
waiting to be put, nothing is stored, and the next machine makes the variant again.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from app.core.errors import AppError, NotFound, UnsupportedImage
from app.core.object_keys import cache_control, is_readable
from app.core.objects import ImageFormat, ObjectFacts, StoredObject
from app.core.threads import BackgroundTasks, Bulkhead
from app.core.variant_keys import (
    VariantPath,
    can_have_variants,
    stored_key,
    stored_prefix,
    stored_source_of,
    version_digits,
)
from app.imaging.sniff import sniff_format
from app.stores.base import BaseStore

MAX_VARIANT_BYTES = 16 * 1024 * 1024
"""Maximum size of a variant in the store. Each machine makes larger ones itself."""

_MAX_WAITING_BYTES = 2 * MAX_VARIANT_BYTES
"""Maximum total size of the variants of a process that wait to be put into the store."""

_PUT_THREADS = 2
_DELETE_THREADS = 8
_PAGE_SIZE = 1000
_CHUNK_BYTES = 256 * 1024

_PAUSE_SECONDS = 30.0
"""For how many seconds the store is not asked for variants after a read has failed, and is not given any
after a put has failed. Otherwise, each variant would wait for the timeout of the store before it is made."""

_ENCODING = "1"
"""Version of the way in which variants are made. Increase it if they would look different from now on."""

_IMMUTABLE = "immutable"
"""The version of all immutable images."""

_VERSION, _RECIPE, _DIGEST, _FIRST_FRAME = "variant-of", "variant-recipe", "variant-sha256", "first-frame"
"""The names of the metadata."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StoredVariant:
    """A variant from the store.

    `is_first_frame` is whether it is the first frame of an animation that was too large.
    """

    data: bytes
    is_first_frame: bool
    version: str

    @property
    def is_of_immutable_image(self) -> bool:
        """Whether the image was proven to be immutable when the variant was made."""
        return self.version == _IMMUTABLE

    def is_made_from(self, source: ObjectFacts) -> bool:
        """Return whether the variant was made from this version of the image."""
        return self.version == _version_of(source)


class StoredVariants:
    """Puts variants into the store, finds them there, and deletes them.

    If not `enabled`, the methods `find` and `keep` do nothing. `bulkhead` limits the calls to the store.
    `clock` returns seconds.
    """

    def __init__(
        self,
        store: BaseStore,
        bulkhead: Bulkhead,
        *,
        enabled: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.enabled = enabled
        self._store = store
        self._bulkhead = bulkhead
        self._clock = clock
        self._resume_reads_at = self._resume_puts_at = float("-inf")
        self._tasks = BackgroundTasks(_PUT_THREADS, _MAX_WAITING_BYTES)
        self._deleting = ThreadPoolExecutor(_DELETE_THREADS, "variants")  # starts no thread yet

    def find(self, path: VariantPath, recipe: str) -> StoredVariant | None:
        """Return the variant if the store has it and it is valid, else None.

        The caller must compare its version with that of the image. `recipe` says how the variant is made. It
        consists of printable ASCII characters.
        """
        key = stored_key(path)
        if not (self._is_usable(self._resume_reads_at) and is_readable(key)):
            return None
        try:
            with self._bulkhead.calling():
                stored = self._store.get(key)
                assert stored is not None  # only a conditional get returns None
                with stored:
                    return self._verified(stored, path.format, recipe)
        except NotFound:
            return None
        except AppError as exc:
            _log.warning("Not reading variants from the store for %.0f s: %s", _PAUSE_SECONDS, exc)
            self._resume_reads_at = self._clock() + _PAUSE_SECONDS
            return None

    def keep(
        self, path: VariantPath, recipe: str, source: ObjectFacts, data: bytes, *, is_first_frame: bool
    ) -> None:
        """Put a variant that was made from `source` into the store. This does not wait for the store."""
        if not self._is_usable(self._resume_puts_at) or len(data) > MAX_VARIANT_BYTES:
            return
        metadata = {
            _VERSION: _version_of(source),
            _RECIPE: _full_recipe(recipe),
            _DIGEST: hashlib.sha256(data).hexdigest(),
            **({_FIRST_FRAME: "yes"} if is_first_frame else {}),
        }
        immutable = source.is_immutable
        if not self._tasks.submit(lambda: self._put(path, data, metadata, immutable), len(data)):
            _log.info("A variant was not stored, because too many are waiting to be stored.")

    def delete_all(self, source: str) -> None:
        """Delete the variants of an image that is gone. If this fails, it is only logged.

        The variants of a missing image are never served.
        """
        if not can_have_variants(source):
            return
        try:
            with self._bulkhead.calling():
                failures = sum(self._deleting.map(self._fails_to_delete, self._keys_of(source)))
        except AppError as exc:
            level = logging.WARNING if self.enabled else logging.INFO
            _log.log(level, "The stored variants of %r could not be listed: %s", source, exc)
            return
        if failures:
            _log.warning("%d stored variants of %r could not be deleted.", failures, source)

    def delete_all_later(self, source: str) -> None:
        """Delete the variants of an image that was overwritten, without waiting for the store.

        They are never served, since they were made from a different version.
        """
        if self.enabled:
            self._tasks.submit(lambda: self.delete_all(source))

    def wait(self, timeout: float) -> bool:
        """Wait for the background calls to the store. Return whether they ended within the timeout."""
        return self._tasks.wait(timeout)

    def _is_usable(self, resume_at: float) -> bool:
        return self.enabled and self._clock() >= resume_at and not self._bulkhead.is_silent()

    def _verified(
        self, stored: StoredObject, image_format: ImageFormat | None, recipe: str
    ) -> StoredVariant | None:
        """Return the variant, or None unless the object is a complete file of this format and recipe."""
        facts = stored.facts
        metadata = facts.metadata
        if image_format is None or metadata.get(_RECIPE) != _full_recipe(recipe):
            return None
        data = self._read(stored) if facts.size <= MAX_VARIANT_BYTES else b""
        if (
            facts.content_type != image_format.content_type
            or facts.content_encoding
            or hashlib.sha256(data).hexdigest() != metadata.get(_DIGEST)
            or not _has_format(data, image_format)
        ):
            _log.warning("The stored variant %r is damaged. It will be replaced.", facts.key)
            return None
        return StoredVariant(data, metadata.get(_FIRST_FRAME) == "yes", metadata.get(_VERSION, ""))

    def _read(self, stored: StoredObject) -> bytes:
        data = b""
        while len(data) <= stored.facts.size and (chunk := stored.body.read(_CHUNK_BYTES)):
            self._bulkhead.note_progress()
            data += chunk
        return data

    def _put(self, path: VariantPath, data: bytes, metadata: dict[str, str], immutable: bool) -> None:
        """Put the variant, unless the store has failed a moment ago."""
        key, image_format = stored_key(path), path.format
        if image_format is None or not (self._is_usable(self._resume_puts_at) and is_readable(key)):
            return
        try:
            with self._bulkhead.calling():
                self._store.put(
                    key,
                    data,
                    content_type=image_format.content_type,
                    cache_control=cache_control(immutable=immutable),
                    metadata=metadata,
                )
                if not self._has_version(path.source, metadata[_VERSION]):
                    self._store.delete(key)
        except AppError as exc:
            _log.warning("Not storing variants for %.0f s: %s", _PAUSE_SECONDS, exc)
            self._resume_puts_at = self._clock() + _PAUSE_SECONDS

    def _has_version(self, source: str, version: str) -> bool:
        """Return whether the image still has this version.

        If this is checked after the put, no variant is left of an image that is deleted at the same time: the
        delete either finds the variant, or has already removed the image.
        """
        try:
            facts = self._store.head(source)
        except NotFound:
            return False
        return version in (_IMMUTABLE, _version_of(facts))

    def _keys_of(self, source: str) -> Iterator[str]:
        """Yield the keys of the stored variants of an image. Raises the errors of stores."""
        cursor: str | None = None
        while True:
            page = self._store.list(stored_prefix(source), limit=_PAGE_SIZE, cursor=cursor)
            yield from (facts.key for facts in page.objects if stored_source_of(facts.key) == source)
            if page.cursor in (None, cursor):
                return
            cursor = page.cursor

    def _fails_to_delete(self, key: str) -> bool:
        try:
            self._store.delete(key)
        except AppError as exc:
            _log.info("The stored variant %r could not be deleted: %s", key, exc)
            return True
        return False


def _version_of(source: ObjectFacts) -> str:
    return _IMMUTABLE if source.is_immutable else version_digits(source.etag)


def _full_recipe(recipe: str) -> str:
    return f"{_ENCODING} {recipe}"


def _has_format(data: bytes, image_format: ImageFormat) -> bool:
    try:
        sniff_format(data, (image_format.name,))
    except UnsupportedImage:
        return False
    return True
