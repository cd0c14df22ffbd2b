"""Uploads and deletes show at once, to every process, also while fills are under way."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.cache import index as index_module
from app.cache import lookup as lookup_module
from app.cache.disk_cache import DiskCache
from app.cache.lookup import CacheStatus
from app.core.errors import CacheStuck
from app.core.objects import StoredObject
from tests.cache.conftest import MakeCache, Origin, facts, immutable_key, read

KEY = immutable_key(1)
NAMED = "users/123/profile.png"


def _upload(cache: DiskCache, origin: Origin, key: str, data: bytes) -> None:
    epoch = cache.epoch(key)
    origin.objects[key] = data
    cache.store(facts(key, data), data, epoch)


@pytest.mark.parametrize("key", [KEY, NAMED])
def test_an_upload_is_a_hit_at_once(make_cache: MakeCache, origin: Origin, key: str) -> None:
    _upload(make_cache(), origin, key, b"image")
    cached = make_cache().fetch(key, origin.load(key))
    assert (cached.status, read(cached)) == (CacheStatus.HIT, b"image")
    assert origin.calls == []


def test_an_overwrite_shows_in_every_process(make_cache: MakeCache, origin: Origin) -> None:
    one, other = make_cache(), make_cache()
    for data in (b"first", b"other", b"third"):
        _upload(one, origin, NAMED, data)
        assert read(other.fetch(NAMED, origin.load(NAMED))) == data
        assert read(one.fetch(NAMED, origin.load(NAMED))) == data
    assert one.totals().entries == 1
    assert origin.calls == []


@pytest.mark.parametrize("key", [KEY, NAMED])
def test_a_delete_shows_in_every_process(make_cache: MakeCache, origin: Origin, key: str) -> None:
    one, other = make_cache(), make_cache()
    _upload(one, origin, key, b"image")
    read(other.fetch(key, origin.load(key)))
    one.forget(key)
    assert other.lookup(key) is None
    assert one.totals().entries == 0


@pytest.mark.parametrize("key", [KEY, NAMED])
def test_a_fill_under_way_does_not_bring_back_what_was_deleted(
    make_cache: MakeCache, origin: Origin, key: str
) -> None:
    cache, other = make_cache(), make_cache()
    origin.objects[key] = b"deleted"

    def load(etag: str | None) -> StoredObject | None:
        stored = origin.load(key)(etag)
        del origin.objects[key]
        other.forget(key)
        return stored

    assert read(cache.fetch(key, load)) == b"deleted"
    assert cache.lookup(key) is None
    assert cache.totals() == type(cache.totals())(0, 0, 0)


def test_a_fill_under_way_does_not_bring_back_what_was_overwritten(
    make_cache: MakeCache, origin: Origin
) -> None:
    cache, other = make_cache(), make_cache()
    origin.objects[NAMED] = b"old"

    def load(etag: str | None) -> StoredObject | None:
        stored = origin.load(NAMED)(etag)
        _upload(other, origin, NAMED, b"new")
        return stored

    assert read(cache.fetch(NAMED, load)) == b"old"
    assert read(cache.fetch(NAMED, origin.load(NAMED))) == b"new"


def test_of_two_overwrites_at_once_the_cache_keeps_neither(cache: DiskCache, origin: Origin) -> None:
    """Nobody knows in which order the store took them, so it is asked."""
    mine, theirs = cache.epoch(NAMED), cache.epoch(NAMED)
    origin.objects[NAMED] = b"theirs"
    cache.store(facts(NAMED, b"theirs"), b"theirs", theirs)
    cache.store(facts(NAMED, b"mine"), b"mine", mine)
    assert read(cache.fetch(NAMED, origin.load(NAMED))) == b"theirs"
    assert len(origin.calls) == 1


@pytest.mark.parametrize("key", [KEY, NAMED])
def test_a_delete_holds_though_the_index_is_busy(
    make_cache: MakeCache, origin: Origin, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setattr(index_module, "_BUSY_TIMEOUT_SECONDS", 0.05)
    cache, other = make_cache(), make_cache()
    _upload(cache, origin, key, b"image")
    read(other.fetch(key, origin.load(key)))
    with other._index.transaction():
        cache.forget(key)
        assert cache.lookup(key) is None
    assert other.lookup(key) is None


def test_an_overwrite_holds_though_the_index_is_busy(
    make_cache: MakeCache, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "_BUSY_TIMEOUT_SECONDS", 0.05)
    cache, other = make_cache(), make_cache()
    _upload(cache, origin, NAMED, b"old")
    with other._index.transaction():
        _upload(cache, origin, NAMED, b"new")
    assert read(other.fetch(NAMED, origin.load(NAMED))) == b"new"


def test_a_delete_that_cannot_be_done_is_told(
    cache: DiskCache, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str) -> None:
        raise OSError(30, "Read-only file system")

    _upload(cache, origin, KEY, b"image")
    monkeypatch.setattr(os, "unlink", refuse)
    with pytest.raises(CacheStuck):
        cache.forget(KEY)
    cache.forget(immutable_key(2))  # what is not there need not be removed


def test_facts_of_other_bytes_are_not_believed(cache: DiskCache, origin: Origin) -> None:
    """A store may answer a put with the facts of an overwrite that came in between."""
    origin.objects[NAMED] = b"theirs, longer"
    cache.store(facts(NAMED, b"theirs, longer"), b"mine", cache.epoch(NAMED))
    assert read(cache.fetch(NAMED, origin.load(NAMED))) == b"theirs, longer"


def test_closing_beside_fills_does_not_hang(make_cache: MakeCache, origin: Origin) -> None:
    cache = make_cache()

    def fill(number: int) -> None:
        key = immutable_key(number)
        origin.objects[key] = b"image"
        read(cache.fetch(key, origin.load(key)))

    with ThreadPoolExecutor(4) as pool:
        fills = [pool.submit(fill, number) for number in range(200)]
        for _ in range(50):
            cache._index.close()
        for task in fills:
            task.result(30)


def test_a_hit_needs_no_access_time(
    cache: DiskCache, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(30, "Read-only file system")

    _upload(cache, origin, KEY, b"image")
    monkeypatch.setattr(lookup_module, "_ACCESS_RESOLUTION_NS", -1)
    monkeypatch.setattr(os, "utime", refuse)
    found = cache.lookup(KEY)
    assert found is not None
    assert read(found) == b"image"
