"""The cache while the store is silent or the bulkhead is full, and bodies that are not cached."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from shutil import rmtree

import pytest

from app.cache.lookup import CacheStatus
from app.core.errors import StoreBusy, StoreError
from app.core.objects import Body, StoredObject
from app.core.threads import Bulkhead
from tests.cache.conftest import Clock, MakeCache, Origin, facts, immutable_key, read
from tests.waiting import wait_until

KEY, NAMED = immutable_key(1), "named.png"
DATA = bytes(range(256)) * 4000


@pytest.fixture
def bulkhead() -> Bulkhead:
    """A bulkhead for one call and two waiting threads."""
    return Bulkhead(1, max_waiting=2, silence=0.1)


@contextmanager
def _silent(bulkhead: Bulkhead) -> Iterator[None]:
    """Keep a call in progress to which the store does not respond."""
    begun, release = threading.Event(), threading.Event()

    def call() -> None:
        with bulkhead.calling():
            begun.set()
            assert release.wait(60)

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(call)
        assert begun.wait(30)
        wait_until(bulkhead.is_silent)
        try:
            yield
        finally:
            release.set()
            waiting.result()


def test_hits_need_no_slot(make_cache: MakeCache, origin: Origin, bulkhead: Bulkhead) -> None:
    cache = make_cache(bulkhead=bulkhead)
    origin.objects |= {KEY: b"image", NAMED: b"named"}
    for key in (KEY, NAMED):
        read(cache.fetch(key, origin.load(key)))
    with _silent(bulkhead):
        for key in (KEY, NAMED):
            assert cache.fetch(key, origin.load(key)).status is CacheStatus.HIT


def test_misses_are_refused_and_not_remembered_as_missing(
    make_cache: MakeCache, origin: Origin, bulkhead: Bulkhead
) -> None:
    cache = make_cache(bulkhead=bulkhead)
    origin.objects[KEY] = b"image"
    with _silent(bulkhead), pytest.raises(StoreBusy):
        cache.fetch(KEY, origin.load(KEY))
    assert origin.calls == []
    assert read(cache.fetch(KEY, origin.load(KEY))) == b"image"


def test_stale_objects_are_served_without_a_call(
    make_cache: MakeCache, origin: Origin, bulkhead: Bulkhead, clock: Clock
) -> None:
    cache = make_cache(bulkhead=bulkhead, ttl=10)
    origin.objects[NAMED] = b"named"
    read(cache.fetch(NAMED, origin.load(NAMED)))
    clock.now += 60
    with _silent(bulkhead):
        stale = cache.fetch(NAMED, origin.load(NAMED))
        assert (stale.status, read(stale)) == (CacheStatus.STALE, b"named")
    assert len(origin.calls) == 1


def test_even_a_degraded_cache_respects_the_bulkhead(
    make_cache: MakeCache, origin: Origin, bulkhead: Bulkhead, tmp_path: Path
) -> None:
    cache = make_cache(bulkhead=bulkhead)
    rmtree(tmp_path / "cache")
    (tmp_path / "cache").write_bytes(b"a file in its place")
    origin.objects[KEY] = b"image"
    with _silent(bulkhead), pytest.raises(StoreBusy):
        cache.fetch(KEY, origin.load(KEY))
    assert read(cache.fetch(KEY, origin.load(KEY))) == b"image"
    (tmp_path / "cache").unlink()


def test_if_many_requests_want_the_same_key_only_the_leader_takes_a_slot(
    make_cache: MakeCache, origin: Origin
) -> None:
    bulkhead = Bulkhead(2, max_waiting=20)
    cache = make_cache(bulkhead=bulkhead)
    origin.objects |= {KEY: b"image", NAMED: b"other"}
    release = threading.Event()

    def stalled(etag: str | None) -> StoredObject | None:
        assert release.wait(60)
        return origin.load(KEY)(etag)

    with ThreadPoolExecutor(10) as pool:
        waiting = [pool.submit(cache.fetch, KEY, stalled) for _ in range(10)]
        wait_until(lambda: bulkhead._present == 10)
        assert read(cache.fetch(NAMED, origin.load(NAMED))) == b"other"
        release.set()
        assert {read(future.result()) for future in waiting} == {b"image"}


class _Stream:
    """A body that is not a file."""

    def __init__(self, data: bytes, piece: int = 10**9) -> None:
        self._data, self._piece = BytesIO(data), piece

    def read(self, size: int = -1, /) -> bytes:
        """Return at most `piece` bytes."""
        return self._data.read(min(size, self._piece) if size >= 0 else size)

    def close(self) -> None:
        """Close the data."""
        self._data.close()


def _fetch_uncached(make_cache: MakeCache, body: Body) -> tuple[CacheStatus, bytes]:
    cache = make_cache(max_object_bytes=10)
    cached = cache.fetch(KEY, lambda etag: StoredObject(facts(KEY, DATA), body))
    try:
        return cached.status, b"".join(iter(lambda: cached.body.read(70_000), b""))
    finally:
        cached.body.close()


@pytest.mark.parametrize("piece", [999, 100_000, 10**9])
def test_an_uncached_body_is_complete(make_cache: MakeCache, piece: int) -> None:
    assert _fetch_uncached(make_cache, _Stream(DATA, piece)) == (CacheStatus.BYPASS, DATA)


def test_an_uncached_body_is_not_longer_than_announced(make_cache: MakeCache) -> None:
    assert _fetch_uncached(make_cache, _Stream(DATA + b"and more")) == (CacheStatus.BYPASS, DATA)


@pytest.mark.parametrize("most", [0, 1, 200_000])
def test_an_uncached_body_that_breaks_off_early_is_an_error_before_the_response_starts(
    make_cache: MakeCache, most: int
) -> None:
    calls = []

    def load(etag: str | None) -> StoredObject:
        body = _Stream(DATA[:most])
        calls.append(body)
        return StoredObject(facts(KEY, DATA), body)

    with pytest.raises(StoreError):
        make_cache(max_object_bytes=10).fetch(KEY, load)
    assert len(calls) == 2
    assert all(body._data.closed for body in calls)
