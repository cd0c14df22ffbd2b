"""A cache under a clock that tests move, and an origin that counts."""

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
    """Seconds since the epoch, moved by hand."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        """The time."""
        return self.now


class Origin:
    """A store's reading side: objects by key, each call counted; `error` is raised in its stead."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.calls: list[tuple[str, str | None]] = []
        self.error: Exception | None = None
        self.delay = 0.0
        self._lock = threading.Lock()

    def load(self, key: str) -> Callable[[str | None], StoredObject | None]:
        """What `DiskCache.fetch` takes."""

        def ask(etag: str | None) -> StoredObject | None:
            with self._lock:
                self.calls.append((key, etag))
            time.sleep(self.delay)
            if self.error is not None:
                raise self.error
            if key not in self.objects:
                raise NotFound
            stored = facts(key, self.objects[key])
            return None if stored.etag == etag else StoredObject(stored, BytesIO(self.objects[key]))

        return ask


def facts(key: str, data: bytes) -> ObjectFacts:
    """Facts of an object as S3 gives them: the entity tag is the MD5 of the bytes, as it mostly is."""
    modified = datetime(2026, 11, 22, 8, 0, 0, tzinfo=UTC)
    etag = f'"{hashlib.md5(data).hexdigest()}"'
    return ObjectFacts(key, len(data), "image/png", etag, modified, digest_metadata(key, data))


def read(cached: CachedObject) -> bytes:
    """The whole body; closes it."""
    try:
        return cached.body.read()
    finally:
        cached.body.close()


def immutable_key(number: int) -> str:
    """A key of the generated shape: `facts` proves that any bytes belong to it."""
    return f"generated/2026/{number % 100:02}/20261122_080000_{number:024x}.png"


@pytest.fixture
def origin() -> Origin:
    """An empty origin."""
    return Origin()


@pytest.fixture
def clock() -> Clock:
    """A clock at the present time."""
    return Clock()


MakeCache = Callable[..., DiskCache]


@pytest.fixture
def make_cache(tmp_path: Path, clock: Clock) -> Iterator[MakeCache]:
    """Makes caches on one directory, as several processes would."""
    made: list[DiskCache] = []

    def make(max_bytes: int = 100 * 1024 * 1024, **options: Any) -> DiskCache:
        made.append(DiskCache(tmp_path / "cache", max_bytes, clock=clock, **options))
        return made[-1]

    yield make
    for cache in made:
        cache.close()


@pytest.fixture
def cache(make_cache: MakeCache) -> DiskCache:
    """A roomy cache."""
    return make_cache()
