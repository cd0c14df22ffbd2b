"""The interface of a store. Subclass `BaseStore` to keep images somewhere else.

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

    All threads of a worker process share one instance. It is created before the process serves its first
    request, possibly before a fork, so implementations must connect on first use and not in `__init__`.

    Keys are strings that `app.core.object_keys.check_readable` accepts. Besides the errors that are listed
    for each method, every method raises `StoreRefused` if the store denies the request, `StoreUnreachable` if
    the store can't be reached or is overloaded, and `StoreTimeout` if it does not respond in time. Never
    report an outage as `NotFound`.
    """

    @classmethod
    def from_config(cls, config: Config) -> Self:
        """Create the store from the settings. Override this to read your own settings."""
        return cls()

    def identity(self) -> str:
        """Return a string that distinguishes this store from others, for example its bucket or directory.

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
        """Store `data` under `key` atomically. The object must be durable when this returns.

        With `overwrite=False`, leave an existing object unchanged and return `created=False`. If several such
        puts run at once, exactly one of them creates the object. Return the facts of the bytes in `data`,
        even if others overwrite the object in the meantime. If nothing was created, return the facts of the
        existing object.

        `head` and `get` return `metadata`. The caller guarantees that its names consist of lower-case ASCII
        letters, digits and hyphens, that its values are printable ASCII without leading or trailing spaces,
        and that its total size is at most 2 KB, which is S3's limit.

        Raises `InvalidKey` for a key that this store does not support.
        """

    @abstractmethod
    def get(self, key: str, *, if_none_match: str | None = None) -> StoredObject | None:
        """Open the object for reading. Return None if its entity tag equals `if_none_match`.

        The facts and the body must belong to the same version, even if the object is overwritten in the
        meantime. Reading the body raises the errors that are listed for this class, and `StoreError` if the
        body ends before `facts.size` bytes.

        Raises `NotFound`.
        """

    @abstractmethod
    def head(self, key: str) -> ObjectFacts:
        """Return the object's facts without its bytes. Raises `NotFound`."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Delete the object. Do nothing if there is none."""

    @abstractmethod
    def list(self, prefix: str = "", *, limit: int = 100, cursor: str | None = None) -> ObjectPage:
        """Return at most `limit` objects whose keys begin with `prefix`, ordered by their keys' UTF-8 bytes.

        `cursor` is the cursor of the previous page. Only the store knows its meaning. A page may have a
        cursor but no objects. The content types may be inferred from the keys.

        Callers continue until a page has no cursor, so raise `StoreError` for a listing that does not
        advance.
        """

    def object_url(self, key: str) -> str | None:
        """Return the URL of the object in the store itself, or None if it has no URL."""
        return None

    def signed_url(self, key: str) -> str | None:
        """Return a URL in the store itself that any browser can read for a limited time, or None.

        None means that the store has no such URLs.
        """
        return None

    def is_public(self, key: str) -> bool:
        """Return whether it is known that any browser can read `object_url(key)`. The object must exist."""
        return False

    def exists(self, key: str) -> bool:
        """Return whether there is an object with this key."""
        try:
            self.head(key)
        except NotFound:
            return False
        return True


def holds_bytes(store: BaseStore, facts: ObjectFacts, data: bytes) -> bool:
    """Return whether the stored object with these facts has exactly the bytes `data`.

    Compare the sizes and the digests first, and read the object only if they are inconclusive. A
    content-addressed key proves nothing, since another program may have stored different bytes there. Raises
    the errors of `store.get`.
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
