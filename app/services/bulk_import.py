"""From a directory into the store."""

import errno
import mimetypes
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from app.cache.disk_cache import DiskCache
from app.config.settings import Config
from app.core.errors import AppError, NameTaken, NotFound, StoreRefused, TooLarge, UnsupportedImage
from app.core.object_keys import (
    cache_control,
    content_addressed_key,
    is_plain_name,
    kept,
    looks_immutable,
    proof_for,
)
from app.core.object_metadata import name_metadata
from app.core.objects import FORMATS, ImageFormat, ObjectFacts
from app.imaging.check import CleanedImage, clean_image, decode_image
from app.imaging.sniff import sniff_format
from app.imaging.survey import ImageLimits
from app.services import bulk as sidecars
from app.services.bulk import Outcome, Result, failure
from app.stores.base import BaseStore, holds_bytes

_TYPES = mimetypes.MimeTypes()
"""Media types by extension, the same on all systems."""

_HEAD_BYTES = 4096
"""Bytes of a file that is too large, to see whether it is an image at all."""


class Importer:
    """Puts the images of `root` into the store, held to the limits of uploads. It never replaces one.

    Their keys are made from their bytes; with `keep_names` they are their paths below `root`, spelled as
    `app.core.object_keys.named_key` spells them. `folder` comes before either. Metadata that an export
    wrote beside an image
    is stored with it. Files that are no images are skipped; with `strict` they fail.

    What is there already is found out without decoding it again, so that an import that was broken off is
    cheap to repeat. The cache stays as it is: a million imported images would only drive out those that are
    asked for.

    Raises `InvalidKey` where `folder` can't be used.
    """

    def __init__(
        self,
        config: Config,
        store: BaseStore,
        cache: DiskCache,
        root: Path,
        *,
        folder: str | None = None,
        keep_names: bool = False,
        strict: bool = False,
    ) -> None:
        content_addressed_key(b"", FORMATS["png"], folder)  # a bad folder shows at once, not with each file
        self._limits = ImageLimits.from_config(config)
        self._max_bytes = config.max_upload_bytes
        self._store = store
        self._cache = cache
        self._root = root
        self._folder = folder
        self._keep_names = keep_names
        self._strict = strict

    def bring(self, path: str) -> Result:
        """Store the image in the file at `path` below the root."""
        try:
            return self._bring(path)
        except UnsupportedImage as exc:
            if self._strict or _is_called_an_image(path):
                return failure(path, exc)
            return Result(path, Outcome.SKIPPED, exc.message)
        except (AppError, OSError) as exc:
            return failure(path, exc)

    def _bring(self, path: str) -> Result:
        data = self._read(path)
        cleaned = clean_image(data, self._limits)
        key = self._key(path, cleaned.data, cleaned.format)
        there = self._facts(key)
        if there is not None:
            return Result(path, self._compare(there, cleaned.data))
        metadata, remark = self._metadata(path, data)
        return Result(path, self._put(key, cleaned, metadata), remark)

    def _metadata(self, path: str, data: bytes) -> tuple[Mapping[str, str], str]:
        """Return what to keep with the image, and a remark if something of it can't be kept."""
        renamed = {} if not self._keep_names or is_plain_name(path) else name_metadata(path)
        try:
            return {**renamed, **sidecars.load(self._root, path, data)}, ""
        except sidecars.UnusableMetadata as exc:
            return renamed, f"stored without its exported metadata, which {exc}"

    def _put(self, key: str, cleaned: CleanedImage, metadata: Mapping[str, str]) -> Outcome:
        checked = decode_image(cleaned, self._limits)
        result = self._store.put(
            key,
            checked.data,
            content_type=checked.format.content_type,
            cache_control=cache_control(immutable=looks_immutable(key)),
            metadata={**metadata, **proof_for(key, checked.data)},
            overwrite=False,
        )
        if not result.created:
            return self._compare(result.facts, checked.data)
        self._cache.forget(key)  # that it is missing may be remembered
        return Outcome.DONE

    def _key(self, path: str, data: bytes, image_format: ImageFormat) -> str:
        if self._keep_names:
            return kept(path, data, image_format, self._folder)
        return content_addressed_key(data, image_format, self._folder)

    def _read(self, path: str) -> bytes:
        with open(self._root / path, "rb", opener=_opened) as file:
            size = os.fstat(file.fileno()).st_size
            data = file.read(self._max_bytes + 1 if size <= self._max_bytes else _HEAD_BYTES)
        if max(size, len(data)) > self._max_bytes:
            sniff_format(data, self._limits.formats)
            raise TooLarge(f"The image is larger than the {self._max_bytes} bytes allowed.")
        return data

    def _facts(self, key: str) -> ObjectFacts | None:
        """None also where the store won't say: one that may not be listed may refuse; the put will tell."""
        try:
            return self._store.head(key)
        except (NotFound, StoreRefused):
            return None

    def _compare(self, there: ObjectFacts, data: bytes) -> Outcome:
        if not holds_bytes(self._store, there, data):
            raise NameTaken("Another image is stored under this name. It was left as it is.")
        return Outcome.THERE


def _is_called_an_image(path: str) -> bool:
    """Return whether people expect an image in the file, by its name."""
    media_type = _TYPES.guess_type(path, strict=False)[0] or ""
    return media_type.startswith("image/") or path.lower().endswith(
        (".avif", ".heic", ".heif", ".jxl", ".webp")
    )


def _opened(path: str, flags: int) -> int:
    """Open a regular file and nothing else, also where it was exchanged since it was found."""
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "This is not a regular file.")
    return descriptor
