"""Whether a store already holds certain bytes, found out as cheaply as it lets us.

What a store is: the class to extend for keeping images somewhere else.

`tests/contracts.py` holds the suite that every store passes, one's own too.
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
    """Keeps objects, that is bytes with a content type, under keys.

    One instance serves all threads of a worker process. It is made before the process serves its first
    request, and may be made before a fork: connections are opened at the first use, not into `__init__`.

    Keys are strings that `app.core.object_keys.check_readable` accepts. Every method raises, besides
    what it names:
    `StoreRefused` where the store says no, `StoreUnreachable` where it can't be reached or is overloaded,
    `StoreTimeout` where it does not answer in time. An outage is never reported as `NotFound`.
    """

    @classmethod
    def from_config(cls, config: Config) -> Self:
        """Make the store from the settings; a store with settings of its own reads them here."""
        return cls()

    def identity(self) -> str:
        """What tells this store from others of its kind: its bucket or directory, never a credential.

        A cache that was filled from another one is emptied.
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
        """Store `data` under `key`, whole or not at all, durable when this returns.

        With `overwrite=False` an object that is there already stays as it is, and the result says
        `created=False`; of several such puts at once exactly one creates. The facts are those of these bytes,
        also while others overwrite them, or where nothing was created, those of the object that is there.

        `metadata` stays with the object: `head` and `get` give it back. The caller sees to it that names are
        lower-case ASCII letters, digits and hyphens, values printable ASCII without spaces at their ends, and
        that all of it takes at most 2 KB, S3's limit.

        Raises `InvalidKey` for a key that this store can't hold.
        """

    @abstractmethod
    def get(self, key: str, *, if_none_match: str | None = None) -> StoredObject | None:
        """Open the object for reading; None where its entity tag still is `if_none_match`.

        Facts and body belong to the same version, also while the key is overwritten. Reading the body
        raises the errors of this class, and `StoreError` where it ends before `facts.size` bytes.

        Raises `NotFound`.
        """

    @abstractmethod
    def head(self, key: str) -> ObjectFacts:
        """The object's facts without its bytes.

        Raises `NotFound`.
        """

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove the object; one that is not there is no error."""

    @abstractmethod
    def list(self, prefix: str = "", *, limit: int = 100, cursor: str | None = None) -> ObjectPage:
        """At most `limit` objects whose keys begin with `prefix`, in the order of their keys' UTF-8 bytes.

        `cursor` is that of the page before; only the store knows what it means. A page may have a cursor and
        no objects. The content type may be inferred from the key.

        Raises `StoreError` for a listing that does not advance: callers go on until a page has no cursor.
        """

    def object_url(self, key: str) -> str | None:
        """The object's URL at the store itself; None where it has none."""
        return None

    def signed_url(self, key: str) -> str | None:
        """A URL at the store itself that any browser can read for a while; None where there are none such."""
        return None

    def is_public(self, key: str) -> bool:
        """Whether it is known that any browser can read `object_url` of `key`, which exists, unsigned."""
        return False

    def exists(self, key: str) -> bool:
        """Whether there is an object under `key`."""
        try:
            self.head(key)
        except NotFound:
            return False
        return True


def holds_bytes(store: BaseStore, there: ObjectFacts, data: bytes) -> bool:
    """Return whether the object `there` has the bytes `data`. A key made from bytes proves nothing.

    Asks the store for the object only if neither its size nor its digests tell. Raises what stores raise.
    """
    if there.size != len(data) or there.content_encoding:
        return False
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()  # the entity tag of most objects in S3
    if there.etag.strip('"') == md5 or there.sha256 == hashlib.sha256(data).hexdigest():
        return True
    stored = store.get(there.key)
    assert stored is not None
    with stored:
        return b"".join(iter(partial(stored.body.read, len(data) + 1), b"")) == data
