"""What the product does, without HTTP: upload, fetch, list and delete images; `app.generation` draws."""

import os
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from app.cache.disk_cache import DiskCache
from app.cache.lookup import CachedObject
from app.core.errors import NameTaken, NotFound, StoreError, TooLarge
from app.core.limiters import Bulkhead, DecodeLimiter
from app.core.object_keys import (
    cache_control,
    check_readable,
    content_addressed_key,
    digest_in,
    is_plain_name,
    is_readable,
    looks_immutable,
    named_key,
    proof_for,
)
from app.core.object_metadata import PromptMetadata, may_be_name, name_metadata, original_name
from app.core.objects import CONTENT_TYPES, FORMATS, NO_METADATA, ObjectFacts, StoredObject
from app.imaging.check import CheckedImage
from app.imaging.encode import encode_image
from app.imaging.sandbox.client import check_in_sandbox
from app.imaging.survey import ImageLimits
from app.stores.base import BaseStore, holds_bytes

_ASKERS = 16
"""Threads that fetch details, for all listings of a process together."""

_PAGE = 1000
"""The most keys that S3 gives in one answer."""

_UNTYPED = {"", "application/octet-stream", "binary/octet-stream"}
"""Types of what was put without one: in listings, by servers and tools, and by S3 itself
(https://docs.aws.amazon.com/sdkfornet1/latest/apidocs/html/P_Amazon_S3_Model_CopyObjectRequest_ContentType.htm)."""

_OTHER_NAMES = {"image/jpg": "image/jpeg", "image/pjpeg": "image/jpeg", "image/x-png": "image/png"}
"""Never registered, and in wide use."""


_OCCUPIED = (
    "Another image is stored under the key that these bytes have here. It was left as it is. "
    "Send the image with a name, or into another folder."
)


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image in the store. `size` is in bytes; `created` is False where it was stored already."""

    key: str
    url: str
    content_type: str
    width: int
    height: int
    frames: int
    size: int
    created: bool


@dataclass(frozen=True, slots=True)
class ListedImage:
    """A line of a listing.

    `asked` and `original_name` are given only with details: the first for images that were generated, the
    second if the key could not hold the name that the image was uploaded under.

    It has no URL: most who list need none, and one may cost a signature or a request to the store.
    """

    key: str
    content_type: str
    size: int
    last_modified: datetime
    asked: PromptMetadata | None = None
    original_name: str | None = None


class ImageService:
    """Uploads, fetches, lists and deletes images; one instance serves all threads of a worker process.

    `decoding` limits how many images are decoded at once, each of which takes memory by its pixels, and
    `bulkhead` how many threads wait for the store; pass the cache the same one.
    `url_of` gives the URL that clients are told for a key; `max_upload_bytes` bounds what is read of a
    source.
    """

    def __init__(
        self,
        store: BaseStore,
        cache: DiskCache,
        limits: ImageLimits,
        decoding: DecodeLimiter,
        *,
        max_upload_bytes: int,
        url_of: Callable[[str], str],
        bulkhead: Bulkhead | None = None,
    ) -> None:
        self._store = store
        self._cache = cache
        self._limits = limits
        self._decoding = decoding
        self._max_upload_bytes = max_upload_bytes
        self.url_of = url_of
        self._bulkhead = bulkhead or Bulkhead()
        self._askers = ThreadPoolExecutor(_ASKERS, "details")  # its threads start with the first listing

    def upload_image(
        self,
        source: str | os.PathLike[str] | BinaryIO | bytes,
        name: str | None = None,
        folder: str | None = None,
        *,
        overwrite: bool = True,
    ) -> StoredImage:
        """Check the image in a file (path or object) or in bytes, and store it.

        Without `name` its key is made from its bytes, so that the same image is stored once; with `name`
        the key is `<folder>/<name>`, and what was there before is replaced, unless `overwrite` is False.
        A name that keys can't hold, such as "IMG 1.jpg", is kept with the image, whose key is spelled alike;
        it never replaces an image of another name with the same key.

        Raises `TooLarge`, `UnsupportedImage`, `UndecodableImage`, `Busy`, `InvalidKey`, `NameTaken`, and
        what stores raise.
        """
        data = self._read(source)
        with self._decoding.passed():
            checked = check_in_sandbox(data, self._limits)
        return self._keep(checked, name, folder, overwrite)

    def upload_pil_image(
        self,
        image: Image.Image,
        name: str | None = None,
        folder: str | None = None,
        *,
        image_format: str = "png",
        overwrite: bool = True,
    ) -> StoredImage:
        """Encode a Pillow image and store it like `upload_image`; `image_format` is a name in `FORMATS`."""
        with self._decoding.passed():
            checked = check_in_sandbox(encode_image(image, FORMATS[image_format]), self._limits)
        return self._keep(checked, name, folder, overwrite)

    def fetch(self, key: str) -> CachedObject:
        """The image's bytes, from the cache or, once, from the store. The caller closes the body.

        Raises `InvalidKey`, `NotFound`, and what stores raise.
        """
        check_readable(key)
        return self._cache.fetch(key, partial(self._load, key))

    def delete(self, key: str) -> None:
        """Remove the image from the store and from the cache.

        Raises `InvalidKey`, `NotFound` (also for an object that is no image), and what stores raise.
        """
        check_readable(key)
        with self._bulkhead.calling():
            try:
                _served_type(self._store.head(key))
            except NotFound:
                self._cache.forget(key)
                raise
            # Before as well: killed after the store's delete, we would serve it for ever.
            self._cache.forget(key)
            try:
                self._store.delete(key)
            finally:
                self._cache.forget(key)

    def exists(self, key: str) -> bool:
        """Whether the store has the image."""
        with self._bulkhead.calling():
            return self._store.exists(key)

    def list(
        self, prefix: str = "", *, limit: int = 100, cursor: str | None = None, details: bool = False
    ) -> tuple[list[ListedImage], str | None]:
        """Return a page of the images whose keys begin with `prefix`, and the next page's cursor, if any.

        With `details` the store is asked for each image, what it was drawn from. Images whose keys no URL can
        name safely (see `app.core.object_keys.is_readable`) are among them: don't show them, but count them.
        """
        with self._bulkhead.calling():
            page = self._store.list(prefix, limit=limit, cursor=cursor)
            images = [
                ListedImage(facts.key, content_type, facts.size, facts.last_modified)
                for facts in page.objects
                if (content_type := _image_type(facts))
            ]
            if details:  # after an error the calls not begun yet are cancelled
                images = list(self._askers.map(self._with_details, images))
            return images, page.cursor

    def list_all(self, prefix: str = "") -> Iterator[ListedImage]:
        """Yield all images whose keys begin with `prefix`, page by page.

        Raises what stores raise, and `StoreError` if a page leads back to one before, which would never end.
        """
        cursor: str | None = None
        seen: set[str | None] = set()
        while cursor not in seen:
            seen.add(cursor)
            images, cursor = self.list(prefix, limit=_PAGE, cursor=cursor)
            yield from images
            if cursor is None:
                return
        raise StoreError(detail="a listing that leads back to a page that it gave before")

    def _with_details(self, image: ListedImage) -> ListedImage:
        if not is_readable(image.key):
            return image
        try:
            metadata = self._store.head(image.key).metadata
        except NotFound:  # deleted since it was listed
            return image
        return replace(
            image, asked=PromptMetadata.from_metadata(metadata), original_name=original_name(metadata)
        )

    def _read(self, source: str | os.PathLike[str] | BinaryIO | bytes) -> bytes:
        most = self._max_upload_bytes
        if isinstance(source, bytes):
            data = source
        elif isinstance(source, str | os.PathLike):
            with Path(source).open("rb") as file:
                data = file.read(most + 1)
        else:
            data = source.read(most + 1)
        if len(data) > most:
            raise TooLarge(f"The image is larger than the {most} bytes allowed.")
        return data

    def _keep(
        self, checked: CheckedImage, name: str | None, folder: str | None, overwrite: bool
    ) -> StoredImage:
        if name is None:
            return self.put(
                content_addressed_key(checked.data, checked.format, folder), checked, overwrite=False
            )
        key = named_key(name, checked.format, folder)
        plain = is_plain_name(name)
        metadata = NO_METADATA if plain else name_metadata(name)
        stored = self.put(key, checked, overwrite=overwrite and plain, metadata=metadata)
        if stored.created:
            return stored
        if not overwrite:
            raise NameTaken
        with self._bulkhead.calling():
            self._refuse_another_name(key, name, checked.data)
        return self.put(key, checked, overwrite=True, metadata=metadata)

    def _refuse_another_name(self, key: str, name: str, data: bytes) -> None:
        """Raise `NameTaken` if the image at `key` was uploaded under another name than `name`.

        If no name was kept, it was uploaded under the key's own, or the store keeps no metadata.
        """
        try:
            there = self._store.head(key)
            kept = original_name(there.metadata)
            if kept is None and not holds_bytes(self._store, there, data):
                raise NameTaken(
                    f"An image is stored as {key}, which this name would give too, and no name was kept with "
                    "it. To replace it, send the name as it is in that key; or choose another name."
                )
        except NotFound:  # deleted meanwhile
            return
        if kept is not None and not may_be_name(kept, unicodedata.normalize("NFC", name)):
            raise NameTaken(
                f"An image of another name is stored as {key}, which this name would give too. "
                "Choose another name."
            )

    def put(
        self,
        key: str,
        checked: CheckedImage,
        *,
        overwrite: bool,
        metadata: Mapping[str, str] = NO_METADATA,
    ) -> StoredImage:
        """Store under `key` what is checked already.

        To the store first: what it has not acknowledged is neither cached nor answered.

        Raises `NameTaken` if somebody else's object is stored under a key made from these bytes.
        """
        content_type = checked.format.content_type
        with self._bulkhead.calling():
            epoch = self._cache.epoch(key)
            result = self._store.put(
                key,
                checked.data,
                content_type=content_type,
                cache_control=cache_control(immutable=looks_immutable(key)),
                metadata={**metadata, **proof_for(key, checked.data)},
                overwrite=overwrite,
            )
            if result.created:
                self._cache.store(result.facts, checked.data, epoch)
            elif digest_in(key) and not holds_bytes(self._store, result.facts, checked.data):
                raise NameTaken(_OCCUPIED, detail=key)
            url = self.url_of(key)
        return StoredImage(
            key=key,
            url=url,
            content_type=content_type,
            width=checked.width,
            height=checked.height,
            frames=checked.frames,
            size=len(checked.data),
            created=result.created,
        )

    def _load(self, key: str, etag: str | None) -> StoredObject | None:
        """The object, where it is an image: whatever else lies in the bucket is not ours to show."""
        stored = self._store.get(key, if_none_match=etag)
        if stored is None:
            return None
        facts = stored.facts
        try:
            content_type = _served_type(facts)
        except NotFound:
            stored.body.close()
            raise
        return StoredObject(replace(facts, content_type=content_type), stored.body)


def _served_type(facts: ObjectFacts) -> str:
    """The media type to serve; raises `NotFound` for what is no image."""
    content_type = _image_type(facts)
    if content_type is None:
        raise NotFound(detail=f"not an image but {facts.content_type}")
    return content_type


def _image_type(facts: ObjectFacts) -> str | None:
    """The store's type where it is one of ours, None where it is another.

    What the key says counts only for objects that were put there without a type.
    """
    told = facts.content_type.partition(";")[0].strip().lower()
    told = _OTHER_NAMES.get(told, told)
    if told in _UNTYPED:
        return CONTENT_TYPES.get(facts.key.rpartition(".")[2].lower())
    return told if told in CONTENT_TYPES.values() else None
