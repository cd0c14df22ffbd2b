"""A cache with a clock that tests can set, and a store that counts calls."""

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from app.cache.disk_cache import DiskCache
from app.cache.lookup import CachedObject
from app.core.errors import NotFound
from app.core.object_keys import digest_metadata
from app.core.objects import ObjectFacts, StoredObject


class Clock:
    """A clock that only moves when a test sets `now`."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        """Return the time in seconds since the epoch."""
        return self.now


class Origin:
    """A store to read from, with objects by key. It records each call, and raises `error` if that is set."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.calls: list[tuple[str, str | None]] = []
        self.error: Exception | None = None
        self.delay = 0.0
        self._lock = threading.Lock()

    def load(self, key: str) -> Callable[[str | None], StoredObject | None]:
        """Return the function to pass to `DiskCache.fetch`."""

        def call(etag: str | None) -> StoredObject | None:
            with self._lock:
                self.calls.append((key, etag))
            time.sleep(self.delay)
            if self.error is not None:
                raise self.error
            if key not in self.objects:
                raise NotFound
            stored = facts(key, self.objects[key])
            return None if stored.etag == etag else StoredObject(stored, BytesIO(self.objects[key]))

        return call


def facts(key: str, data: bytes) -> ObjectFacts:
    """Return the facts of an object as S3 reports them.

    The entity tag is the MD5 of the bytes, as for most objects in S3.
    """
    modified = datetime(2026, 11, 22, 8, 0, 0, tzinfo=UTC)
    etag = f'"{hashlib.md5(data).hexdigest()}"'
    return ObjectFacts(key, len(data), "image/png", etag, modified, digest_metadata(key, data))


def read(cached: CachedObject) -> bytes:
    """Return the whole body and close it."""
    try:
        return cached.body.read()
    finally:
        cached.body.close()


def immutable_key(number: int) -> str:
    """Return a key of generated shape. With this key, `facts` makes any bytes immutable."""
    return f"generated/2026/{number % 100:02}/20261122_080000_{number:024x}.png"


@pytest.fixture
def origin() -> Origin:
    """A store without objects."""
    return Origin()


@pytest.fixture
def clock() -> Clock:
    """A clock that shows the current time."""
    return Clock()


MakeCache = Callable[..., DiskCache]


@pytest.fixture
def make_cache(tmp_path: Path, clock: Clock) -> Iterator[MakeCache]:
    """Return a function that opens caches in the same directory, as several processes would."""
    made: list[DiskCache] = []

    def make(max_bytes: int = 100 * 1024 * 1024, **options: Any) -> DiskCache:
        made.append(DiskCache(tmp_path / "cache", max_bytes, clock=clock, **options))
        return made[-1]

    yield make
    for cache in made:
        cache.close()


@pytest.fixture
def cache(make_cache: MakeCache) -> DiskCache:
    """A cache with room for all objects that a test uses."""
    return make_cache()
