"""Uploads and deletes take effect at once in every process, even during fills."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.cache import index as index_module
from app.cache import lookup as lookup_module
from app.cache.disk_cache import DiskCache
from app.cache.invalidation import Epochs, NegativeCache
from app.cache.lookup import CacheStatus
from app.core.errors import CacheStuck, NotFound, StoreUnreachable
from app.core.objects import StoredObject
from tests.cache.conftest import Clock, MakeCache, Origin, facts, immutable_key, read

KEY = immutable_key(1)

NAMED = "users/123/profile.png"

FOREIGN = "Ferien 2026/Strand & Meer.png"


def _upload(cache: DiskCache, origin: Origin, key: str, data: bytes) -> None:
    epoch = cache.epoch(key)
    origin.objects[key] = data
    cache.store(facts(key, data), data, epoch)


@pytest.mark.parametrize("key", [KEY, NAMED])
def test_an_upload_is_a_hit_in_another_process_at_once(
    make_cache: MakeCache, origin: Origin, key: str
) -> None:
    _upload(make_cache(), origin, key, b"image")
    cached = make_cache().fetch(key, origin.load(key))
    assert (cached.status, read(cached)) == (CacheStatus.HIT, b"image")
    assert origin.calls == []


def test_an_overwrite_takes_effect_in_every_process(make_cache: MakeCache, origin: Origin) -> None:
    one, other = make_cache(), make_cache()
    for data in (b"first", b"other", b"third"):
        _upload(one, origin, NAMED, data)
        assert read(other.fetch(NAMED, origin.load(NAMED))) == data
        assert read(one.fetch(NAMED, origin.load(NAMED))) == data
    assert one.totals().entries == 1
    assert origin.calls == []


@pytest.mark.parametrize("key", [KEY, NAMED])
def test_a_delete_takes_effect_in_every_process(make_cache: MakeCache, origin: Origin, key: str) -> None:
    one, other = make_cache(), make_cache()
    _upload(one, origin, key, b"image")
    read(other.fetch(key, origin.load(key)))
    one.forget(key)
    assert other.lookup(key) is None
    assert one.totals().entries == 0


@pytest.mark.parametrize("key", [KEY, NAMED])
def test_a_fill_in_progress_does_not_bring_back_a_deleted_object(
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


def test_a_fill_in_progress_does_not_bring_back_an_overwritten_object(
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


def test_after_two_concurrent_overwrites_the_cache_contains_neither(cache: DiskCache, origin: Origin) -> None:
    """It is unknown in which order the store received them, so the next fetch calls the store."""
    mine, theirs = cache.epoch(NAMED), cache.epoch(NAMED)
    origin.objects[NAMED] = b"theirs"
    cache.store(facts(NAMED, b"theirs"), b"theirs", theirs)
    cache.store(facts(NAMED, b"mine"), b"mine", mine)
    assert read(cache.fetch(NAMED, origin.load(NAMED))) == b"theirs"
    assert len(origin.calls) == 1


@pytest.mark.parametrize("key", [KEY, NAMED])
def test_a_delete_takes_effect_even_if_the_index_is_busy(
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


def test_an_overwrite_takes_effect_even_if_the_index_is_busy(
    make_cache: MakeCache, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "_BUSY_TIMEOUT_SECONDS", 0.05)
    cache, other = make_cache(), make_cache()
    _upload(cache, origin, NAMED, b"old")
    with other._index.transaction():
        _upload(cache, origin, NAMED, b"new")
    assert read(other.fetch(NAMED, origin.load(NAMED))) == b"new"


def test_a_delete_that_fails_raises_cache_stuck(
    cache: DiskCache, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str) -> None:
        raise OSError(30, "Read-only file system")

    _upload(cache, origin, KEY, b"image")
    monkeypatch.setattr(os, "unlink", refuse)
    with pytest.raises(CacheStuck):
        cache.forget(KEY)
    cache.forget(immutable_key(2))  # a missing file needs no removal


def test_an_upload_whose_facts_do_not_match_its_bytes_is_not_cached(cache: DiskCache, origin: Origin) -> None:
    """A store may return the facts of another overwrite that happened in between."""
    origin.objects[NAMED] = b"theirs, longer"
    cache.store(facts(NAMED, b"theirs, longer"), b"mine", cache.epoch(NAMED))
    assert read(cache.fetch(NAMED, origin.load(NAMED))) == b"theirs, longer"


def test_closing_the_index_during_fills_does_not_hang(make_cache: MakeCache, origin: Origin) -> None:
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


def test_a_hit_does_not_need_to_set_the_access_time(
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


@pytest.mark.parametrize("key", [KEY, NAMED, FOREIGN])
def test_a_missing_object_is_remembered_for_negative_ttl_seconds(
    cache: DiskCache, origin: Origin, clock: Clock, key: str
) -> None:
    for _ in range(3):
        with pytest.raises(NotFound):
            cache.fetch(key, origin.load(key))
    assert len(origin.calls) == 1
    origin.objects[key] = b"image"
    clock.now += 6
    assert read(cache.fetch(key, origin.load(key))) == b"image"


@pytest.mark.parametrize("key", [KEY, NAMED])
def test_an_upload_is_found_by_processes_that_remember_the_key_as_missing(
    make_cache: MakeCache, origin: Origin, key: str
) -> None:
    """This holds even if there is no room in the cache for the upload."""
    one, other = make_cache(), make_cache()
    with pytest.raises(NotFound):
        other.fetch(key, origin.load(key))
    origin.objects[key] = bytes(200 * 1024 * 1024)
    one.store(facts(key, origin.objects[key]), origin.objects[key], one.epoch(key))
    found = other.fetch(key, origin.load(key))
    assert found.status is CacheStatus.BYPASS
    found.body.close()


def test_an_outage_is_not_remembered_as_a_missing_object(cache: DiskCache, origin: Origin) -> None:
    origin.error = StoreUnreachable()
    with pytest.raises(StoreUnreachable):
        cache.fetch(KEY, origin.load(KEY))
    origin.error, origin.objects[KEY] = None, b"image"
    assert read(cache.fetch(KEY, origin.load(KEY))) == b"image"


def test_missing_keys_are_remembered_in_bounded_memory(tmp_path: Path, clock: Clock) -> None:
    missing = NegativeCache(Epochs(tmp_path / "epochs"), 60, clock)
    for number in range(25_000):
        missing.add(str(number), 0, NotFound())
    assert len(missing._failed) <= 10_000
    assert isinstance(missing.get("24999"), NotFound)


def test_binding_to_a_different_store_empties_the_cache(
    make_cache: MakeCache, origin: Origin, caplog: pytest.LogCaptureFixture
) -> None:
    first = make_cache()
    first.bind_to_store("s3 one")
    origin.objects |= {KEY: b"image", NAMED: b"named"}
    for key in (KEY, NAMED):
        read(first.fetch(key, origin.load(key)))
    first.close()
    again = make_cache()
    again.bind_to_store("s3 one")
    assert read(again.fetch(KEY, origin.load(KEY))) == b"image"
    assert len(origin.calls) == 2
    again.close()
    assert caplog.text == ""
    other = make_cache()
    other.bind_to_store("s3 other")
    assert [other.lookup(key) for key in (KEY, NAMED)] == [None, None]
    assert (other.totals().entries, other.check().is_clean) == (0, True)
    assert "a different store" in caplog.text
    assert read(other.fetch(KEY, origin.load(KEY))) == b"image"
    assert len(origin.calls) == 3
