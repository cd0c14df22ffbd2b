"""Hits, misses, and who asks the store."""

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from app.cache.disk_cache import DiskCache
from app.cache.invalidation import Epochs, NegativeCache
from app.cache.lookup import CacheStatus
from app.core.errors import NotFound, StoreError, StoreRefused, StoreTimeout, StoreUnreachable
from app.core.object_keys import with_immutability
from app.core.objects import StoredObject
from tests.cache.conftest import Clock, MakeCache, Origin, facts, immutable_key, read
from tests.waiting import wait_until

KEY = immutable_key(1)
NAMED = "users/123/profile.png"
FOREIGN = "Ferien 2026/Strand & Meer.png"


@pytest.mark.parametrize("key", [KEY, NAMED, FOREIGN])
def test_the_second_fetch_asks_nothing(cache: DiskCache, origin: Origin, key: str) -> None:
    origin.objects[key] = b"image"
    first, second = cache.fetch(key, origin.load(key)), cache.fetch(key, origin.load(key))
    assert (first.status, second.status) == (CacheStatus.MISS, CacheStatus.HIT)
    assert (read(first), read(second)) == (b"image", b"image")
    assert first.facts == with_immutability(facts(key, b"image"), hashlib.sha256(b"image").hexdigest())
    assert replace(second.facts, etag='""') == replace(first.facts, etag='""')
    assert origin.calls == [(key, None)]


def test_another_process_finds_it_too(make_cache: MakeCache, origin: Origin) -> None:
    origin.objects[KEY] = b"image"
    read(make_cache().fetch(KEY, origin.load(KEY)))
    found = make_cache().lookup(KEY)
    assert found is not None
    assert read(found) == b"image"


def test_a_missing_object_is_not_found_and_leaves_nothing(cache: DiskCache, origin: Origin) -> None:
    with pytest.raises(NotFound):
        cache.fetch(KEY, origin.load(KEY))
    assert cache.lookup(KEY) is None
    assert cache.totals().entries == 0


def test_many_threads_one_call(cache: DiskCache, origin: Origin) -> None:
    origin.objects[KEY] = b"image" * 1000
    origin.delay = 0.2
    with ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(lambda _: cache.fetch(KEY, origin.load(KEY)), range(40)))
    assert {read(answer) for answer in answers} == {b"image" * 1000}
    assert len(origin.calls) == 1
    assert sum(answer.status is CacheStatus.MISS for answer in answers) == 1


def test_many_caches_on_one_directory_one_call(make_cache: MakeCache, origin: Origin) -> None:
    """Each cache object has its own locks, as each process has."""
    origin.objects[KEY] = b"image"
    origin.delay = 0.2
    caches = [make_cache() for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda cache: cache.fetch(KEY, origin.load(KEY)), caches))
    assert {read(answer) for answer in answers} == {b"image"}
    assert len(origin.calls) == 1


def test_keys_do_not_wait_for_each_other(cache: DiskCache, origin: Origin) -> None:
    slow, quick = immutable_key(1), immutable_key(2)
    origin.objects |= {slow: b"slow", quick: b"quick"}
    release = threading.Event()

    def stalled(etag: str | None) -> StoredObject | None:
        release.wait(60)
        return origin.load(slow)(etag)

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(cache.fetch, slow, stalled)
        assert read(cache.fetch(quick, origin.load(quick))) == b"quick"
        assert not waiting.done()
        release.set()
        assert read(waiting.result()) == b"slow"


def test_patience_ends(make_cache: MakeCache, origin: Origin) -> None:
    cache = make_cache(fill_timeout=0.05)
    begun, release = threading.Event(), threading.Event()
    origin.objects[KEY] = b"image"

    def stalled(etag: str | None) -> StoredObject | None:
        begun.set()
        release.wait(60)
        return origin.load(KEY)(etag)

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(cache.fetch, KEY, stalled)
        assert begun.wait(30)
        with pytest.raises(StoreTimeout):
            cache.fetch(KEY, origin.load(KEY))
        with pytest.raises(StoreTimeout):
            make_cache(fill_timeout=0.05).fetch(KEY, origin.load(KEY))
        release.set()
        read(waiting.result())
    assert len(origin.calls) == 1


def test_those_who_waited_learn_of_the_failure(
    cache: DiskCache, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin.error = StoreUnreachable()
    join, joined = cache._flights._join, []

    def noted(key: str, number: int) -> tuple[object, bool]:
        found = join(key, number)
        joined.append(number)
        return found

    def once_all_wait(etag: str | None) -> StoredObject | None:
        wait_until(lambda: len(joined) == 8 + 7 * len(origin.calls))  # the first leader does not come again
        return origin.load(KEY)(etag)

    def fails(_: int) -> bool:
        with pytest.raises(StoreUnreachable):
            cache.fetch(KEY, once_all_wait)
        return True

    monkeypatch.setattr(cache._flights, "_join", noted)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(fails, range(8)))
    assert len(origin.calls) == 2  # the leader hands over once
    origin.error, origin.objects[KEY] = None, b"image"
    assert read(cache.fetch(KEY, origin.load(KEY))) == b"image"


def test_a_leader_that_fails_hands_over(cache: DiskCache, origin: Origin) -> None:
    origin.objects[KEY] = b"image"
    origin.delay = 0.2
    first = threading.Event()

    def fails_first(etag: str | None) -> StoredObject | None:
        stored = origin.load(KEY)(etag)
        if not first.is_set():
            first.set()
            raise StoreUnreachable
        return stored

    def fetch(_: int) -> bytes | None:
        try:
            return read(cache.fetch(KEY, fails_first))
        except StoreUnreachable:
            return None

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(fetch, range(8)))
    assert sorted(answers, key=bool) == [None, *[b"image"] * 7]
    assert len(origin.calls) == 2


def test_a_verdict_of_the_store_is_for_all(cache: DiskCache, origin: Origin) -> None:
    origin.delay = 0.2

    def misses(_: int) -> bool:
        with pytest.raises(NotFound):
            cache.fetch(KEY, origin.load(KEY))
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(misses, range(8)))
    assert len(origin.calls) == 1


@pytest.mark.parametrize("key", [KEY, NAMED, FOREIGN])
def test_a_missing_object_is_remembered_for_a_time(
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
def test_an_upload_ends_the_absence_in_every_process(make_cache: MakeCache, origin: Origin, key: str) -> None:
    """Also where the upload finds no room in the cache."""
    one, other = make_cache(), make_cache()
    with pytest.raises(NotFound):
        other.fetch(key, origin.load(key))
    origin.objects[key] = bytes(200 * 1024 * 1024)
    one.store(facts(key, origin.objects[key]), origin.objects[key], one.epoch(key))
    found = other.fetch(key, origin.load(key))
    assert found.status is CacheStatus.BYPASS
    found.body.close()


def test_an_outage_is_not_remembered_as_absence(cache: DiskCache, origin: Origin) -> None:
    origin.error = StoreUnreachable()
    with pytest.raises(StoreUnreachable):
        cache.fetch(KEY, origin.load(KEY))
    origin.error, origin.objects[KEY] = None, b"image"
    assert read(cache.fetch(KEY, origin.load(KEY))) == b"image"


def test_missing_keys_are_remembered_in_bounded_memory(tmp_path: Path, clock: Clock) -> None:
    missing = NegativeCache(Epochs(tmp_path / "epochs"), 60, clock)
    for number in range(25_000):
        missing.add(str(number), 0)
    assert len(missing._missing) <= 10_000
    assert "24999" in missing


def test_a_mutable_object_is_asked_for_again_after_its_time(
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


def test_a_mutable_object_that_changed_is_replaced(cache: DiskCache, origin: Origin, clock: Clock) -> None:
    origin.objects[NAMED] = b"old"
    read(cache.fetch(NAMED, origin.load(NAMED)))
    origin.objects[NAMED] = b"newer"
    clock.now += 301
    changed = cache.fetch(NAMED, origin.load(NAMED))
    assert (changed.status, read(changed)) == (CacheStatus.MISS, b"newer")
    assert cache.totals().entries == 1


def test_a_mutable_object_that_went_is_forgotten(cache: DiskCache, origin: Origin, clock: Clock) -> None:
    origin.objects[NAMED] = b"old"
    read(cache.fetch(NAMED, origin.load(NAMED)))
    del origin.objects[NAMED]
    clock.now += 301
    with pytest.raises(NotFound):
        cache.fetch(NAMED, origin.load(NAMED))
    assert cache.totals().entries == 0


def test_an_immutable_object_is_never_asked_for_again(cache: DiskCache, origin: Origin, clock: Clock) -> None:
    origin.objects[KEY] = b"image"
    read(cache.fetch(KEY, origin.load(KEY)))
    clock.now += 10 * 365 * 86_400
    assert read(cache.fetch(KEY, origin.load(KEY))) == b"image"
    assert len(origin.calls) == 1


def test_files_that_are_not_remembered_are_hits(
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


def test_stale_is_better_than_an_outage_for_a_time(
    make_cache: MakeCache, origin: Origin, clock: Clock
) -> None:
    cache = make_cache(ttl=10, stale_if_error=100)
    origin.objects[NAMED] = b"old"
    read(cache.fetch(NAMED, origin.load(NAMED)))
    origin.error = StoreUnreachable()
    clock.now += 60
    stale = cache.fetch(NAMED, origin.load(NAMED))
    assert (stale.status, read(stale)) == (CacheStatus.STALE, b"old")
    asked = len(origin.calls)
    again = cache.fetch(NAMED, origin.load(NAMED))
    assert (again.status, read(again)) == (CacheStatus.STALE, b"old")
    assert len(origin.calls) == asked  # the outage is not probed by each request
    clock.now += 60
    with pytest.raises(StoreUnreachable):
        cache.fetch(NAMED, origin.load(NAMED))


def test_a_clock_that_is_set_back_makes_nothing_fresh_for_longer(
    make_cache: MakeCache, origin: Origin, clock: Clock
) -> None:
    caches = make_cache(ttl=10), make_cache(ttl=10)
    origin.objects[NAMED] = b"image"
    read(caches[0].fetch(NAMED, origin.load(NAMED)))
    clock.now -= 86_400
    for cache in caches:  # one remembers, the other looks into the index
        origin.calls.clear()
        clock.now -= 1000
        read(cache.fetch(NAMED, origin.load(NAMED)))
        assert len(origin.calls) == 1
        assert cache.fetch(NAMED, origin.load(NAMED)).status is CacheStatus.HIT


def test_images_of_another_store_are_not_served(
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
    assert "another store" in caplog.text
    assert read(other.fetch(KEY, origin.load(KEY))) == b"image"
    assert len(origin.calls) == 3


def test_what_is_refused_for_one_key_is_asked_for_with_others(
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
def test_a_body_unlike_its_length_is_asked_for_once_more(
    cache: DiskCache, origin: Origin, body: bytes
) -> None:
    origin.objects[KEY] = b"image"
    answers = [StoredObject(facts(KEY, b"image"), _body(body)), origin.load(KEY)(None)]
    assert read(cache.fetch(KEY, lambda etag: answers.pop(0))) == b"image"


def test_a_body_wrong_twice_is_never_served(cache: DiskCache) -> None:
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
def test_a_file_damaged_by_hand_is_a_miss(
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
    """A body without a length of its own, as from a network."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, size: int = -1, /) -> bytes:
        """Everything, then nothing."""
        data, self._data = self._data, b""
        return data

    def close(self) -> None:
        """Nothing to give back."""
