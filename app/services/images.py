"""The image service, which uploads, fetches, lists and deletes images.

`app.services.generation` adds images that a model generates from a prompt.
"""

import hashlib
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
from app.core.errors import InvalidKey, NameTaken, NotFound, StoreError, StoreRefused, TooLarge
from app.core.object_keys import (
    cache_control,
    check_readable,
    digest_in,
    digest_metadata,
    is_plain_name,
    is_readable,
    key_of_digest,
    looks_immutable,
    named_key,
)
from app.core.object_metadata import (
    ImageInfo,
    PromptMetadata,
    matches_original_name,
    name_metadata,
    original_name,
    with_info,
)
from app.core.objects import FORMATS, NO_METADATA, ObjectFacts, PutResult, StoredObject
from app.core.threads import Bulkhead, DecodeLimiter
from app.core.variant_keys import stored_source_of
from app.imaging.check import CheckedImage
from app.imaging.encode import encode_image
from app.imaging.sandbox.client import check_in_sandbox
from app.imaging.survey import ImageLimits
from app.services.image_types import image_type, served_type
from app.services.stored_variants import StoredVariants
from app.services.urls import ImageUrls
from app.services.variant_urls import VariantUrls
from app.stores.base import BaseStore, holds_bytes

_DETAIL_THREADS = 16
"""Number of threads that fetch details of listed images. All listings of a process share the threads."""

_PAGE_SIZE = 1000
"""Number of keys to request per page of a listing. S3 returns at most 1000."""

_KEY_OCCUPIED = (
    "Another image is already stored under this key and was not replaced. "
    "Use another name, or store this image in another folder."
)


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image in the store.

    Width and height are in pixels, `size` is in bytes. `created` is False if the image was already stored.
    `info` has further facts about the picture. It is None if an older version of this software recorded the
    image.
    """

    key: str
    url: str
    content_type: str
    width: int
    height: int
    frames: int
    size: int
    created: bool
    info: ImageInfo | None = None


@dataclass(frozen=True, slots=True)
class ListedImage:
    """An image in a listing. `size` is in bytes.

    The last three fields are set only in listings with details: `prompt_metadata` for generated images,
    `original_name` for images that were uploaded with a name that is not allowed in keys, and `info` for
    images that this server stored, unless the store keeps no metadata.

    The URL is not included, since most callers don't need it, and building it may require a signature or
    a request to the store.
    """

    key: str
    content_type: str
    size: int
    last_modified: datetime
    prompt_metadata: PromptMetadata | None = None
    original_name: str | None = None
    info: ImageInfo | None = None


class ImageService:
    """Uploads, fetches, lists and deletes images. All threads of a worker process share one instance.

    `limits` and `max_upload_bytes` apply to uploads. `decoding` limits how many images are decoded at the
    same time. `bulkhead` limits how many threads wait for the store. The cache must use the same bulkhead.
    `urls` and `variant_urls` build the URLs that clients get. `stored_variants` has the variants that are in
    the store.
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
        variant_urls: VariantUrls,
        bulkhead: Bulkhead | None = None,
        stored_variants: StoredVariants | None = None,
    ) -> None:
        self._store = store
        self._cache = cache
        self._decoding = decoding
        self._bulkhead = bulkhead or Bulkhead()
        self.stored_variants = stored_variants or StoredVariants(store, self._bulkhead, enabled=False)
        self._detail_threads = ThreadPoolExecutor(_DETAIL_THREADS, "details")  # starts no thread yet
        self.limits = limits
        self.max_upload_bytes = max_upload_bytes
        self.urls = urls
        self.variant_urls = variant_urls

    def upload_image(
        self,
        source: str | os.PathLike[str] | BinaryIO | bytes,
        name: str | None = None,
        folder: str | None = None,
        *,
        overwrite: bool = True,
    ) -> StoredImage:
        """Check and store an image. `source` is a path, a binary file or the image's bytes.

        Without `name`, the object key is made from the image's bytes, so that the same image is stored only
        once. With `name`, the key is `<folder>/<name>`, and an image that is stored under this key is
        replaced unless `overwrite` is False. If the name has characters that are not allowed in keys, such as
        the space in "IMG 1.jpg", the key has a similar spelling and the name is stored with the image. Such
        an upload never replaces an image that has the same key but a different name.

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
        """Encode a Pillow image and store it like `upload_image`. `image_format` is a name in `FORMATS`."""
        with self._decoding.slot():
            encoded = check_in_sandbox(encode_image(image, FORMATS[image_format]), self.limits)
        return self._upload(encoded, name, folder, overwrite)

    def fetch(self, key: str) -> CachedObject:
        """Return the image from the cache. If it is not cached, the cache fetches it from the store.

        The caller must close the body. Raises `InvalidKey`, `NotFound` (including for objects that are not
        images), and the errors of stores.
        """
        _check_image_key(key)
        return self._cache.fetch(key, lambda etag: self._load(key, etag))

    def variant_url(self, key: str, name: str, extension: str = "", *, expires_at: int | None = None) -> str:
        """Return the URL of a variant of an image: an absolute URL, or a path on this server.

        `name` is a preset, such as `thumb`, or a spec, such as `w640` or `w128,h128,cover`. If the variant is
        not listed in the settings, the URL is signed. For the other arguments and the errors that this
        raises, see `VariantUrls.url_of`.
        """
        return self.variant_urls.url_of(key, name, extension, expires_at)

    def is_foreign_object(self, path: str) -> bool:
        """Return whether an image is stored under the path of a variant, or cached even if it is stale.

        Only other software can have stored it. Return False if the store can't tell, and for variants of
        images whose keys only this server creates, since other software stores nothing below such keys.

        This fetches the image into the cache, from which the response can then be sent. A request for its
        facts would not be cheaper: if the object is missing, the store sends two requests to find that out.
        """
        if looks_immutable(path.rpartition("/")[0]):
            return False
        try:
            self.fetch(path).body.close()
        except (InvalidKey, NotFound, StoreError):
            return False
        return True

    def stored_info(self, facts: ObjectFacts) -> ImageInfo | None:
        """Return the facts about the picture that are stored with this version of an image, or None."""
        try:
            with self._bulkhead.calling():
                stored = self._store.head(facts.key)
        except (NotFound, StoreError):
            return None
        if not facts.is_immutable and stored.etag != facts.etag:  # replaced in the meantime
            return None
        return ImageInfo.from_metadata(stored.metadata)

    def current_facts(self, key: str, *, is_proven: bool) -> ObjectFacts | None:
        """Return the facts about the current version of an image, without fetching the image.

        They come from the cache if they are fresh there, else from the store. In the latter case, `is_proven`
        tells whether an image whose key looks immutable has been proven to be. Return None if the image is
        missing or the store fails.
        """
        if cached := self._cache.lookup(key):
            cached.body.close()
            return cached.facts
        try:
            with self._bulkhead.calling():
                facts = self._store.head(key)
                content_type = served_type(facts)
        except (NotFound, StoreError):
            return None
        is_immutable = is_proven and looks_immutable(key)
        return replace(facts, content_type=content_type, is_immutable=is_immutable)

    def delete(self, key: str) -> None:
        """Remove the image from the store and from the cache, and its variants too.

        A failure to remove variants from the store is only logged.

        Raises `InvalidKey`, `NotFound` (including for objects that are not images), and the errors of stores.
        """
        _check_image_key(key)
        with self._bulkhead.calling():
            try:
                served_type(self._store.head(key))
            except NotFound:
                self._cache.forget(key)
                self.stored_variants.delete_all(key)  # a previous delete may have been killed
                raise
            # Forget the image both before and after deleting it from the store. If the process is killed
            # right after the deletion, the cache must not keep serving the image.
            self._cache.forget(key)
            try:
                self._store.delete(key)
            finally:
                self._cache.forget(key)
            self.stored_variants.delete_all(key)

    def list(
        self, prefix: str = "", *, limit: int = 100, cursor: str | None = None, details: bool = False
    ) -> tuple[list[ListedImage], str | None]:
        """Return a tuple: a page of the images whose keys begin with `prefix`, and the next page's cursor.

        The cursor is None on the last page. `details` costs one request to the store per image. The page
        includes images whose keys can't be used safely in a URL (see `app.core.object_keys.is_readable`).
        Callers should count such images but not show them. Stored variants are not images, so a page may be
        empty although there is a next page.
        """
        with self._bulkhead.calling():
            page = self._store.list(prefix, limit=limit, cursor=cursor)
            images = [
                ListedImage(facts.key, content_type, facts.size, facts.last_modified)
                for facts in page.objects
                if (content_type := image_type(facts)) and not stored_source_of(facts.key)
            ]
            if details:  # if one call fails, `map` cancels the calls that have not started
                images = list(self._detail_threads.map(self._with_details, images))
            return images, page.cursor

    def list_all(self, prefix: str = "") -> Iterator[ListedImage]:
        """Yield all images whose keys begin with `prefix`, page by page.

        Raises the errors of stores, and `StoreError` if the store repeats a cursor, since otherwise the
        listing would never end.
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
        digest: str = "",
    ) -> StoredImage:
        """Store a checked image under `key`, then add it to the cache.

        Without `overwrite`, an object that is already stored under `key` is not changed. `digest` is the
        hexadecimal SHA-256 of the image's bytes, if the caller has computed it.

        Raises `NameTaken` if `key` was made from the image's bytes but a different object is stored under it.
        """
        with self._bulkhead.calling():
            epoch = self._cache.epoch(key)
            result = self._put(key, image, overwrite, metadata)
            if result.created:  # cache an image only after the store has acknowledged it
                self._cache.store(result.facts, image.data, epoch, digest)
                if overwrite:
                    self.stored_variants.delete_all_later(key)
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
            info=_info_of(image),
        )

    def import_image(self, key: str, image: CheckedImage, metadata: Mapping[str, str]) -> bool:
        """Store a checked image under `key` for a bulk import. Return False if it was already stored.

        The image is not added to the cache, since an import would evict the images that clients request. The
        bulkhead does not apply, since the import limits its own concurrency.

        Raises `NameTaken` if a different image is stored under `key`, and the errors of stores.
        """
        result = self._put(key, image, False, metadata)
        if result.created:
            self._cache.forget(key)  # the cache may remember that the key was missing
        else:
            self._check_same_bytes(result.facts, image.data)
        return result.created

    def is_stored(self, key: str, data: bytes) -> bool:
        """Return whether `data` is already stored under `key`. A bulk import calls this.

        Return False even if the store denies access: without s3:ListBucket, S3 returns 403 for missing
        objects.

        Raises `NameTaken` if a different image is stored under `key`, and the errors of stores.
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
            raise TooLarge.for_image(limit)
        return data

    def _upload(
        self, image: CheckedImage, name: str | None, folder: str | None, overwrite: bool
    ) -> StoredImage:
        if name is None:
            digest = hashlib.sha256(image.data).hexdigest()
            return self.put(key_of_digest(digest, image.format, folder), image, digest=digest)
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
        metadata = {**metadata, **digest_metadata(key, image.data)}
        info = _info_of(image)
        return self._store.put(
            key,
            image.data,
            content_type=image.format.content_type,
            cache_control=cache_control(immutable=looks_immutable(key)),
            metadata=metadata if info is None else with_info(metadata, info),
            overwrite=overwrite,
        )

    def _check_same_bytes(self, facts: ObjectFacts, data: bytes) -> None:
        if not holds_bytes(self._store, facts, data):
            raise NameTaken(_KEY_OCCUPIED)

    def _check_same_name(self, key: str, name: str, data: bytes) -> None:
        """Raise `NameTaken` if the image under `key` was uploaded with a name other than `name`.

        If no name is stored with the image, it was uploaded with the name in the key, or the store does not
        keep metadata. In this case, raise `NameTaken` if the image's bytes differ from `data`.
        """
        try:
            facts = self._store.head(key)
            stored_name = original_name(facts.metadata)
            if stored_name is None and not holds_bytes(self._store, facts, data):
                raise NameTaken(
                    f"An image is already stored as {key}, the key for this name, without its original name. "
                    "To replace it, send the name exactly as in that key. Otherwise choose another name."
                )
        except NotFound:  # deleted in the meantime
            return
        name = unicodedata.normalize("NFC", name)
        if stored_name is not None and not matches_original_name(stored_name, name):
            raise NameTaken(
                f"An image with a different name is already stored as {key}, the key for this name. "
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
            info=ImageInfo.from_metadata(metadata),
        )

    def _load(self, key: str, etag: str | None) -> StoredObject | None:
        """Fetch the image from the store. Return None if its entity tag is still `etag`."""
        stored = self._store.get(key, if_none_match=etag)
        if stored is None:
            return None
        try:
            content_type = served_type(stored.facts)
        except NotFound:
            stored.body.close()
            raise
        return StoredObject(replace(stored.facts, content_type=content_type), stored.body)


def _check_image_key(key: str) -> None:
    """Raise `InvalidKey` if `key` is not safe in a URL, and `NotFound` if it is the key of a variant."""
    check_readable(key)
    if stored_source_of(key):
        raise NotFound(detail="a stored variant, which is not an image of its own")


def _info_of(image: CheckedImage) -> ImageInfo | None:
    """Return the facts about the picture, or None if an older version of this software checked the image."""
    return image.info if image.thumbhash else None
