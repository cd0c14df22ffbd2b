"""Uploads and deletes show at once, to every process, also while fills are under way."""

import pytest

from app.cache import CacheStatus, DiskCache
from app.objects import StoredObject
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
