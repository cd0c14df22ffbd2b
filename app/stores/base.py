"""The interface that every store implements. To keep images in a different system, subclass `BaseStore`.

`tests/contracts.py` contains the test suite that every store must pass, including custom ones.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import partial
from typing import Self

from app.config.settings import Config
from app.core.errors import NotFound
from app.core.objects import NO_METADATA, ObjectFacts, ObjectPage, PutResult, StoredObject


class BaseStore(ABC):
    """Stores objects under keys. An object consists of bytes, a content type and metadata.

    All threads of a worker process share one instance. The instance is created before the process serves its
    first request, possibly before a fork. So implementations must not connect in `__init__`, but on first
    use.

    Keys are strings that `app.core.object_keys.check_readable` accepts. Every method may raise `StoreRefused`
    if the store denies the request, `StoreUnreachable` if the store can't be reached or is overloaded, and
    `StoreTimeout` if the store does not respond in time. Some methods raise additional errors, which their
    docstrings list. Never report an outage as `NotFound`.
    """

    @classmethod
    def from_config(cls, config: Config) -> Self:
        """Create the store from the settings. Override this to read your own settings."""
        return cls()

    def identity(self) -> str:
        """Return a string that distinguishes this store from all other stores, such as a bucket's name.

        The cache is emptied if it was filled from a store with a different identity. Don't include
        credentials.
        """
        return f"{type(self).__module__}.{type(self).__qualname__}"

    @abstractmethod
    def put(
        self,
        key: str,
        data: bytes,
        *,
        content_type: str,
        cache_control: str = "",
        metadata: Mapping[str, str] = NO_METADATA,
        overwrite: bool = True,
    ) -> PutResult:
        """Store `data` under `key` atomically. The object must be durable when this method returns.

        With `overwrite=False`, leave an existing object unchanged and return `created=False`. If several puts
        with `overwrite=False` run at once, exactly one of them creates the object. The result contains the
        `ObjectFacts` of `data`, even if another put replaces the object in the meantime. If nothing was
        created, the result contains the `ObjectFacts` of the existing object.

        Keep `metadata` with the object, so that `head` and `get` can return it. The caller guarantees that
        the names consist of lower-case ASCII letters, digits and hyphens, that the values are printable ASCII
        without leading or trailing spaces, and that the total size is at most 2 KB, which is S3's limit.

        Raises `InvalidKey` for a key that this store does not support.
        """

    @abstractmethod
    def get(self, key: str, *, if_none_match: str | None = None) -> StoredObject | None:
        """Open the object for reading. Return None if its entity tag equals `if_none_match`.

        The `ObjectFacts` and the body must belong to the same version of the object, even if the object is
        overwritten in the meantime. Reading the body may raise the errors that the docstring of this class
        lists, and raises `StoreError` if the body has fewer than `facts.size` bytes.

        Raises `NotFound` if the object does not exist.
        """

    @abstractmethod
    def head(self, key: str) -> ObjectFacts:
        """Return the `ObjectFacts` of the object. Raises `NotFound` if the object does not exist."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Delete the object. Do nothing if it does not exist."""

    @abstractmethod
    def list(self, prefix: str = "", *, limit: int = 100, cursor: str | None = None) -> ObjectPage:
        """Return at most `limit` objects whose keys begin with `prefix`, ordered by their keys' UTF-8 bytes.

        `cursor` is the cursor of the previous page, or None for the first page. Callers don't interpret
        cursors. A page may have a cursor but no objects. The content types may be inferred from the keys.

        Callers request pages until a page has no cursor. So raise `StoreError` if the listing does not
        advance; otherwise it would never end.
        """

    def object_url(self, key: str) -> str | None:
        """Return the URL at which the store itself serves the object, or None if there is no such URL."""
        return None

    def signed_url(self, key: str) -> str | None:
        """Return a URL at which the store itself serves the object to any browser for a limited time.

        Return None if the store does not support such URLs.
        """
        return None

    def is_public(self, key: str) -> bool:
        """Return True only if it is known that any browser can read `object_url(key)`.

        The object must exist.
        """
        return False

    def exists(self, key: str) -> bool:
        """Return whether there is an object with this key."""
        try:
            self.head(key)
        except NotFound:
            return False
        return True


def holds_bytes(store: BaseStore, facts: ObjectFacts, data: bytes) -> bool:
    """Return whether the stored object that `facts` describes consists of exactly the bytes `data`.

    Compare the sizes and the digests first, and read the object only if they are inconclusive. Even a
    content-addressed key proves nothing, since another program may have stored different bytes under it.
    Raises the errors of `store.get`.
    """
    if facts.size != len(data) or facts.content_encoding:
        return False
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()  # the entity tag of most objects in S3
    if facts.etag.strip('"') == md5 or facts.sha256 == hashlib.sha256(data).hexdigest():
        return True
    stored = store.get(facts.key)
    assert stored is not None  # only a conditional get returns None
    with stored:
        return b"".join(iter(partial(stored.body.read, len(data) + 1), b"")) == data
