"""Objects whose bytes do not match the digest in their key."""

import hashlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from io import BytesIO

import pytest

from app.cache.disk_cache import DiskCache
from app.core.errors import StoreError
from app.core.objects import ObjectFacts, StoredObject
from tests.cache.conftest import read

RIGHT, WRONG, WORSE = b"the image", b"not image", b"no images"
MODIFIED = datetime(2026, 11, 22, tzinfo=UTC)


def _key(digest: str) -> str:
    return f"images/{digest[:2]}/{digest[2:32]}.png"


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


OURS = _key(hashlib.sha256(RIGHT).hexdigest())


class Store:
    """A store that returns these bodies one after another. The entity tag does not depend on the body."""

    def __init__(
        self, key: str, *bodies: bytes, etag: str = "d41d8cd98f00b204e9800998ecf8427e", sha256: str = ""
    ) -> None:
        self._key = key
        self._bodies: Iterator[bytes] = iter(bodies)
        self._etag = f'"{etag}"'
        self._sha256 = sha256
        self.calls = 0

    def load(self, _: str | None) -> StoredObject:
        """Return the next body."""
        self.calls += 1
        data = next(self._bodies)
        return StoredObject(
            ObjectFacts(self._key, len(data), "image/png", self._etag, MODIFIED, sha256=self._sha256),
            BytesIO(data),
        )


def test_bytes_that_do_not_match_the_key_are_fetched_again(cache: DiskCache) -> None:
    store = Store(OURS, WRONG, RIGHT)
    assert read(cache.fetch(OURS, store.load)) == RIGHT
    found = cache.lookup(OURS)
    assert found is not None
    assert read(found) == RIGHT
    assert store.calls == 2


def test_two_different_bodies_that_do_not_match_the_key_are_an_error(cache: DiskCache) -> None:
    with pytest.raises(StoreError):
        cache.fetch(OURS, Store(OURS, WRONG, WORSE).load)
    assert cache.lookup(OURS) is None
    assert cache.check().is_clean


FOREIGN: dict[str, Callable[[], Store]] = {
    "an MD5 in the key": lambda: Store(_key(_md5(RIGHT)), RIGHT),
    "the MD5 as entity tag": lambda: Store(_key("0" * 32), RIGHT, etag=_md5(RIGHT)),
    "neither, but the same again": lambda: Store(_key("0" * 32), RIGHT, RIGHT),
    "the store's own SHA-256": lambda: Store(_key("0" * 32), RIGHT, sha256=hashlib.sha256(RIGHT).hexdigest()),
}


@pytest.mark.parametrize(("what", "calls"), list(zip(FOREIGN, (1, 1, 2, 1), strict=True)))
def test_foreign_objects_with_such_keys_are_served_as_mutable(
    cache: DiskCache, what: str, calls: int
) -> None:
    store = FOREIGN[what]()
    assert read(cache.fetch(store._key, store.load)) == RIGHT
    found = cache.lookup(store._key)
    assert found is not None
    assert not found.facts.is_immutable
    assert read(found) == RIGHT
    assert store.calls == calls
