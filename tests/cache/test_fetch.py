"""Hits, misses, freshness, and which objects are served while the store fails."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from app.cache.disk_cache import DiskCache
from app.cache.lookup import CacheStatus
from app.core.errors import NotFound, StoreError, StoreRefused, StoreUnreachable
from app.core.object_keys import with_immutability
from app.core.objects import StoredObject
from tests.cache.conftest import Clock, MakeCache, Origin, facts, immutable_key, read

KEY = immutable_key(1)

NAMED = "users/123/profile.png"

FOREIGN = "Ferien 2026/Strand & Meer.png"


@pytest.mark.parametrize("key", [KEY, NAMED, FOREIGN])
def test_the_second_fetch_is_a_hit_and_does_not_call_the_store(
    cache: DiskCache, origin: Origin, key: str
) -> None:
    origin.objects[key] = b"image"
    first, second = cache.fetch(key, origin.load(key)), cache.fetch(key, origin.load(key))
    assert (first.status, second.status) == (CacheStatus.MISS, CacheStatus.HIT)
    assert (read(first), read(second)) == (b"image", b"image")
    assert first.facts == with_immutability(facts(key, b"image"), hashlib.sha256(b"image").hexdigest())
    assert replace(second.facts, etag='""') == replace(first.facts, etag='""')
    assert origin.calls == [(key, None)]


def test_an_object_is_found_by_other_processes(make_cache: MakeCache, origin: Origin) -> None:
    origin.objects[KEY] = b"image"
    read(make_cache().fetch(KEY, origin.load(KEY)))
    found = make_cache().lookup(KEY)
    assert found is not None
    assert read(found) == b"image"


def test_a_missing_object_raises_not_found_and_leaves_nothing(cache: DiskCache, origin: Origin) -> None:
    with pytest.raises(NotFound):
        cache.fetch(KEY, origin.load(KEY))
    assert cache.lookup(KEY) is None
    assert cache.totals().entries == 0


def test_a_mutable_object_is_revalidated_after_its_ttl(
    cache: DiskCache, origin: Origin, clock: Clock
) -> None:
    origin.objects[NAMED] = b"old"
    read(cache.fetch(NAMED, origin.load(NAMED)))
    clock.now += 299
    assert read(cache.fetch(NAMED, origin.load(NAMED))) == b"old"
    assert len(origin.calls) == 1
    clock.now += 2
    renewed = cache.fetch(NAMED, origin.load(NAMED))
    assert (renewed.status, read(renewed)) == (CacheStatus.REVALIDATED, b"old")
    assert origin.calls[1] == (NAMED, facts(NAMED, b"old").etag)
    assert read(cache.fetch(NAMED, origin.load(NAMED))) == b"old"
    assert len(origin.calls) == 2


def test_a_mutable_object_that_changed_is_replaced_on_revalidation(
    cache: DiskCache, origin: Origin, clock: Clock
) -> None:
    origin.objects[NAMED] = b"old"
    read(cache.fetch(NAMED, origin.load(NAMED)))
    origin.objects[NAMED] = b"newer"
    clock.now += 301
    changed = cache.fetch(NAMED, origin.load(NAMED))
    assert (changed.status, read(changed)) == (CacheStatus.MISS, b"newer")
    assert cache.totals().entries == 1


def test_a_mutable_object_deleted_in_the_store_is_removed_on_revalidation(
    cache: DiskCache, origin: Origin, clock: Clock
) -> None:
    origin.objects[NAMED] = b"old"
    read(cache.fetch(NAMED, origin.load(NAMED)))
    del origin.objects[NAMED]
    clock.now += 301
    with pytest.raises(NotFound):
        cache.fetch(NAMED, origin.load(NAMED))
    assert cache.totals().entries == 0


def test_an_immutable_object_is_never_revalidated(cache: DiskCache, origin: Origin, clock: Clock) -> None:
    origin.objects[KEY] = b"image"
    read(cache.fetch(KEY, origin.load(KEY)))
    clock.now += 10 * 365 * 86_400
    assert read(cache.fetch(KEY, origin.load(KEY))) == b"image"
    assert len(origin.calls) == 1


def test_files_that_are_not_in_the_table_in_memory_are_hits(
    cache: DiskCache, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.cache.lookup.MAX_KNOWN_FILES", 3)
    keys = [immutable_key(number) for number in range(5)]
    for key in keys:
        origin.objects[key] = key.encode()
        read(cache.fetch(key, origin.load(key)))
    for key in [*keys, *reversed(keys)]:
        found = cache.lookup(key)
        assert found is not None
        assert read(found) == origin.objects[key]
    assert list(cache._lookup._known) == [keys[4], keys[1], keys[0]]


def test_stale_objects_are_served_during_an_outage_for_stale_if_error_seconds(
    make_cache: MakeCache, origin: Origin, clock: Clock
) -> None:
    cache = make_cache(ttl=10, stale_if_error=100)
    origin.objects[NAMED] = b"old"
    read(cache.fetch(NAMED, origin.load(NAMED)))
    origin.error = StoreUnreachable()
    clock.now += 60
    stale = cache.fetch(NAMED, origin.load(NAMED))
    assert (stale.status, read(stale)) == (CacheStatus.STALE, b"old")
    calls = len(origin.calls)
    again = cache.fetch(NAMED, origin.load(NAMED))
    assert (again.status, read(again)) == (CacheStatus.STALE, b"old")
    assert len(origin.calls) == calls  # not every request calls the store during an outage
    clock.now += 60
    with pytest.raises(StoreUnreachable):
        cache.fetch(NAMED, origin.load(NAMED))


def test_setting_the_clock_back_does_not_keep_objects_fresh_for_longer(
    make_cache: MakeCache, origin: Origin, clock: Clock
) -> None:
    caches = make_cache(ttl=10), make_cache(ttl=10)
    origin.objects[NAMED] = b"image"
    read(caches[0].fetch(NAMED, origin.load(NAMED)))
    clock.now -= 86_400
    for cache in caches:  # one knows the file, the other reads the index
        origin.calls.clear()
        clock.now -= 1000
        read(cache.fetch(NAMED, origin.load(NAMED)))
        assert len(origin.calls) == 1
        assert cache.fetch(NAMED, origin.load(NAMED)).status is CacheStatus.HIT


def test_a_refusal_for_one_key_does_not_stop_calls_for_others(
    make_cache: MakeCache, origin: Origin, clock: Clock
) -> None:
    cache = make_cache(ttl=10, stale_if_error=100)
    other = f"other/{NAMED}"
    for key in (NAMED, other):
        origin.objects[key] = b"old"
        read(cache.fetch(key, origin.load(key)))
    clock.now += 60
    origin.error = StoreRefused()
    assert cache.fetch(NAMED, origin.load(NAMED)).status is CacheStatus.STALE
    origin.error = None
    assert cache.fetch(other, origin.load(other)).status is CacheStatus.REVALIDATED


@pytest.mark.parametrize("body", [b"shor", b"longer", b""])
def test_a_body_of_a_different_length_than_announced_is_fetched_again(
    cache: DiskCache, origin: Origin, body: bytes
) -> None:
    origin.objects[KEY] = b"image"
    answers = [StoredObject(facts(KEY, b"image"), _body(body)), origin.load(KEY)(None)]
    assert read(cache.fetch(KEY, lambda etag: answers.pop(0))) == b"image"


def test_a_body_that_is_wrong_twice_is_an_error(cache: DiskCache) -> None:
    calls = []

    def lies(etag: str | None) -> StoredObject:
        calls.append(etag)
        return StoredObject(facts(KEY, b"image"), _body(b"shor"))

    with pytest.raises(StoreError):
        cache.fetch(KEY, lies)
    assert len(calls) == 2
    assert cache.lookup(KEY) is None
    assert cache.totals() == type(cache.totals())(0, 0, 0)


@pytest.mark.parametrize("damage", ["delete", "cut", "swap"])
def test_a_file_changed_by_hand_is_a_miss(
    make_cache: MakeCache, origin: Origin, tmp_path: Path, damage: str
) -> None:
    cache, other = make_cache(), make_cache()
    origin.objects[KEY] = b"image"
    read(cache.fetch(KEY, origin.load(KEY)))
    path = tmp_path / "cache" / "objects" / KEY
    if damage == "delete":
        path.unlink()
    else:
        path.write_bytes(b"ima" if damage == "cut" else b"IMAGE")
    for one in (cache, other):
        assert one.lookup(KEY) is None
    assert read(other.fetch(KEY, origin.load(KEY))) == b"image"
    assert read(cache.fetch(KEY, origin.load(KEY))) == b"image"
    assert len(origin.calls) == 2
    assert cache.totals().entries == 1


def _body(data: bytes) -> "_Body":
    return _Body(data)


class _Body:
    """A body whose length is unknown, like one from a network."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, size: int = -1, /) -> bytes:
        """Return all bytes, then nothing."""
        data, self._data = self._data, b""
        return data

    def close(self) -> None:
        """Do nothing."""
