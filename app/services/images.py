"""The image service: upload, fetch, list and delete images, without HTTP.

`app.services.generation` adds images that a model draws from a prompt.
"""

import os
import unicodedata
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from app.cache.disk_cache import DiskCache
from app.cache.lookup import CachedObject
from app.core.errors import NameTaken, NotFound, StoreError, StoreRefused, TooLarge
from app.core.object_keys import (
    cache_control,
    check_readable,
    content_addressed_key,
    digest_in,
    digest_metadata,
    is_plain_name,
    is_readable,
    looks_immutable,
    named_key,
)
from app.core.object_metadata import PromptMetadata, matches_original_name, name_metadata, original_name
from app.core.objects import CONTENT_TYPES, FORMATS, NO_METADATA, ObjectFacts, PutResult, StoredObject
from app.core.threads import Bulkhead, DecodeLimiter
from app.imaging.check import CheckedImage
from app.imaging.encode import encode_image
from app.imaging.sandbox.client import check_in_sandbox
from app.imaging.survey import ImageLimits
from app.services.urls import ImageUrls
from app.stores.base import BaseStore, holds_bytes

_DETAIL_THREADS = 16
"""Threads that fetch the details of listed images, shared by all listings of a process."""

_PAGE_SIZE = 1000
"""The largest page of keys that S3 returns."""

_UNSPECIFIC_TYPES = {"", "application/octet-stream", "binary/octet-stream"}
"""Content types of objects that were put without one: in listings, and as servers, tools and S3 set them
(https://docs.aws.amazon.com/sdkfornet1/latest/apidocs/html/P_Amazon_S3_Model_CopyObjectRequest_ContentType.htm)."""

_TYPE_ALIASES = {"image/jpg": "image/jpeg", "image/pjpeg": "image/jpeg", "image/x-png": "image/png"}
"""Content types that were never registered but are in wide use."""

_KEY_OCCUPIED = (
    "Another image is already stored under this key and was not replaced. "
    "Use another name, or store this image in another folder."
)


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image in the store.

    Width and height are in pixels, `size` is in bytes. `created` is False if the image was already stored.
    """

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
    """An image as a listing returns it; `size` is in bytes.

    Only listings with details set the last two fields: `prompt_metadata` for generated images, and
    `original_name` if the object key could not hold the name under which the image was uploaded.

    There is no URL: most callers need none, and making one may cost a signature or a request to the store.
    """

    key: str
    content_type: str
    size: int
    last_modified: datetime
    prompt_metadata: PromptMetadata | None = None
    original_name: str | None = None


class ImageService:
    """Uploads, fetches, lists and deletes images. One instance serves all threads of a worker process.

    `limits` and `max_upload_bytes` apply to uploads. `decoding` limits how many images are decoded at the
    same time, and `bulkhead` how many threads wait for the store; the cache must have the same bulkhead.
    `urls` makes the URLs that clients get.
    """

    def __init__(
        self,
        store: BaseStore,
        cache: DiskCache,
        limits: ImageLimits,
        decoding: DecodeLimiter,
        *,
        max_upload_bytes: int,
        urls: ImageUrls,
        bulkhead: Bulkhead | None = None,
    ) -> None:
        self._store = store
        self._cache = cache
        self._decoding = decoding
        self._bulkhead = bulkhead or Bulkhead()
        self._detail_threads = ThreadPoolExecutor(_DETAIL_THREADS, "details")  # start with the first listing
        self.limits = limits
        self.max_upload_bytes = max_upload_bytes
        self.urls = urls

    def upload_image(
        self,
        source: str | os.PathLike[str] | BinaryIO | bytes,
        name: str | None = None,
        folder: str | None = None,
        *,
        overwrite: bool = True,
    ) -> StoredImage:
        """Check and store an image, given as a path, a binary file or bytes.

        Without `name` the object key is made from the image's bytes, so the same image is stored only once.
        With `name` the key is `<folder>/<name>`, and an image stored there is replaced unless `overwrite` is
        False. If keys can't hold the name, such as "IMG 1.jpg", the key has a similar spelling and the name
        is stored with the image. Such an upload never replaces an image of another name with the same key.

        Raises `TooLarge`, `UnsupportedImage`, `UndecodableImage`, `Busy`, `InvalidKey`, `NameTaken`, and the
        errors of stores.
        """
        data = self._read(source)
        with self._decoding.slot():
            image = check_in_sandbox(data, self.limits)
        return self._upload(image, name, folder, overwrite)

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
        with self._decoding.slot():
            encoded = check_in_sandbox(encode_image(image, FORMATS[image_format]), self.limits)
        return self._upload(encoded, name, folder, overwrite)

    def fetch(self, key: str) -> CachedObject:
        """Return the image from the cache, which fetches it from the store once. The caller closes the body.

        Raises `InvalidKey`, `NotFound` (also for an object that is not an image), and the errors of stores.
        """
        check_readable(key)
        return self._cache.fetch(key, lambda etag: self._load(key, etag))

    def delete(self, key: str) -> None:
        """Remove the image from the store and from the cache.

        Raises `InvalidKey`, `NotFound` (also for an object that is not an image), and the errors of stores.
        """
        check_readable(key)
        with self._bulkhead.calling():
            try:
                _served_type(self._store.head(key))
            except NotFound:
                self._cache.forget(key)
                raise
            # Forget it before the store's delete too: a process killed after that would serve it forever.
            self._cache.forget(key)
            try:
                self._store.delete(key)
            finally:
                self._cache.forget(key)

    def list(
        self, prefix: str = "", *, limit: int = 100, cursor: str | None = None, details: bool = False
    ) -> tuple[list[ListedImage], str | None]:
        """Return a page of the images whose keys begin with `prefix`, and the next page's cursor or None.

        `details` costs one request to the store per image. The page includes images whose keys no URL can
        name safely (see `app.core.object_keys.is_readable`): callers should count them but not show them.
        """
        with self._bulkhead.calling():
            page = self._store.list(prefix, limit=limit, cursor=cursor)
            images = [
                ListedImage(facts.key, content_type, facts.size, facts.last_modified)
                for facts in page.objects
                if (content_type := _image_type(facts))
            ]
            if details:  # an error cancels the calls that have not started
                images = list(self._detail_threads.map(self._with_details, images))
            return images, page.cursor

    def list_all(self, prefix: str = "") -> Iterator[ListedImage]:
        """Yield all images whose keys begin with `prefix`, page by page.

        Raises the errors of stores, and `StoreError` if a cursor is repeated, which would never end.
        """
        cursor: str | None = None
        seen: set[str | None] = set()
        while cursor not in seen:
            seen.add(cursor)
            images, cursor = self.list(prefix, limit=_PAGE_SIZE, cursor=cursor)
            yield from images
            if cursor is None:
                return
        raise StoreError(detail="the listing returned the same cursor twice")

    def put(
        self,
        key: str,
        image: CheckedImage,
        *,
        overwrite: bool = False,
        metadata: Mapping[str, str] = NO_METADATA,
    ) -> StoredImage:
        """Store a checked image under `key`, then in the cache.

        Without `overwrite`, an object that is already stored there stays as it is.

        Raises `NameTaken` if `key` is made from these bytes but another object is stored there.
        """
        with self._bulkhead.calling():
            epoch = self._cache.epoch(key)
            result = self._put(key, image, overwrite, metadata)
            if result.created:  # only what the store has acknowledged may be cached
                self._cache.store(result.facts, image.data, epoch)
            elif digest_in(key):
                self._check_same_bytes(result.facts, image.data)
            url = self.urls.url_of(key)
        return StoredImage(
            key=key,
            url=url,
            content_type=image.format.content_type,
            width=image.width,
            height=image.height,
            frames=image.frames,
            size=len(image.data),
            created=result.created,
        )

    def import_image(self, key: str, image: CheckedImage, metadata: Mapping[str, str]) -> bool:
        """Store a checked image under `key` for a bulk import; return False if it is already stored there.

        The cache is not filled, since an import would evict the images that clients request. The bulkhead
        does not apply, since the import has a concurrency of its own.

        Raises `NameTaken` if another image is stored under `key`, and the errors of stores.
        """
        result = self._put(key, image, False, metadata)
        if result.created:
            self._cache.forget(key)  # the cache may remember that the key was missing
        else:
            self._check_same_bytes(result.facts, image.data)
        return result.created

    def is_stored(self, key: str, data: bytes) -> bool:
        """Return whether `data` is stored under `key`, for a bulk import.

        False also if the store refuses to say: S3 answers 403 for missing objects without s3:ListBucket.

        Raises `NameTaken` if another image is stored under `key`, and the errors of stores.
        """
        try:
            facts = self._store.head(key)
        except (NotFound, StoreRefused):
            return False
        self._check_same_bytes(facts, data)
        return True

    def _read(self, source: str | os.PathLike[str] | BinaryIO | bytes) -> bytes:
        limit = self.max_upload_bytes
        if isinstance(source, bytes):
            data = source
        elif isinstance(source, str | os.PathLike):
            with Path(source).open("rb") as file:
                data = file.read(limit + 1)
        else:
            data = source.read(limit + 1)
        if len(data) > limit:
            raise TooLarge(f"The image is larger than the {limit} bytes allowed.")
        return data

    def _upload(
        self, image: CheckedImage, name: str | None, folder: str | None, overwrite: bool
    ) -> StoredImage:
        if name is None:
            return self.put(content_addressed_key(image.data, image.format, folder), image)
        key = named_key(name, image.format, folder)
        if is_plain_name(name):
            stored = self.put(key, image, overwrite=overwrite)
        else:
            metadata = name_metadata(name)
            stored = self.put(key, image, metadata=metadata)
            if overwrite and not stored.created:
                with self._bulkhead.calling():
                    self._check_same_name(key, name, image.data)
                stored = self.put(key, image, overwrite=True, metadata=metadata)
        if not (stored.created or overwrite):
            raise NameTaken
        return stored

    def _put(self, key: str, image: CheckedImage, overwrite: bool, metadata: Mapping[str, str]) -> PutResult:
        return self._store.put(
            key,
            image.data,
            content_type=image.format.content_type,
            cache_control=cache_control(immutable=looks_immutable(key)),
            metadata={**metadata, **digest_metadata(key, image.data)},
            overwrite=overwrite,
        )

    def _check_same_bytes(self, facts: ObjectFacts, data: bytes) -> None:
        if not holds_bytes(self._store, facts, data):
            raise NameTaken(_KEY_OCCUPIED)

    def _check_same_name(self, key: str, name: str, data: bytes) -> None:
        """Raise `NameTaken` if the image under `key` was uploaded under another name than `name`.

        If it has no stored name, it was uploaded under the name in the key, or the store keeps no metadata.
        """
        try:
            facts = self._store.head(key)
            stored_name = original_name(facts.metadata)
            if stored_name is None and not holds_bytes(self._store, facts, data):
                raise NameTaken(
                    f"An image is already stored as {key}, the key for this name, without its original name. "
                    "To replace it, send the name as it is in that key. Otherwise choose another name."
                )
        except NotFound:  # deleted in the meantime
            return
        name = unicodedata.normalize("NFC", name)
        if stored_name is not None and not matches_original_name(stored_name, name):
            raise NameTaken(
                f"An image of another name is already stored as {key}, the key for this name. "
                "Choose another name."
            )

    def _with_details(self, image: ListedImage) -> ListedImage:
        if not is_readable(image.key):
            return image
        try:
            metadata = self._store.head(image.key).metadata
        except NotFound:  # deleted since it was listed
            return image
        return replace(
            image,
            prompt_metadata=PromptMetadata.from_metadata(metadata),
            original_name=original_name(metadata),
        )

    def _load(self, key: str, etag: str | None) -> StoredObject | None:
        """Fetch the image from the store; return None if its entity tag is still `etag`."""
        stored = self._store.get(key, if_none_match=etag)
        if stored is None:
            return None
        try:
            content_type = _served_type(stored.facts)
        except NotFound:
            stored.body.close()
            raise
        return StoredObject(replace(stored.facts, content_type=content_type), stored.body)


def _served_type(facts: ObjectFacts) -> str:
    """Return the content type to serve. Raise `NotFound` unless the object is an image."""
    content_type = _image_type(facts)
    if content_type is None:  # other objects in the bucket must not be shown
        raise NotFound(detail=f"not an image but {facts.content_type}")
    return content_type


def _image_type(facts: ObjectFacts) -> str | None:
    """Return the object's content type if it is that of a supported image format, else None.

    The key's extension counts only for objects that were stored without a specific content type.
    """
    content_type = facts.content_type.partition(";")[0].strip().lower()
    content_type = _TYPE_ALIASES.get(content_type, content_type)
    if content_type in _UNSPECIFIC_TYPES:
        return CONTENT_TYPES.get(facts.key.rpartition(".")[2].lower())
    return content_type if content_type in CONTENT_TYPES.values() else None
