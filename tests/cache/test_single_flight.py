"""If several requests miss the same key at once, only one of them calls the store."""

import errno
import fcntl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from app.cache.disk_cache import DiskCache
from app.cache.lookup import CacheStatus
from app.cache.single_flight import KeyLocks
from app.core import system
from app.core.errors import NotFound, StoreTimeout, StoreUnreachable
from app.core.objects import StoredObject
from tests.cache.conftest import MakeCache, Origin, immutable_key, read
from tests.waiting import wait_until

KEY = immutable_key(1)


def test_threads_that_miss_the_same_key_share_one_call(cache: DiskCache, origin: Origin) -> None:
    origin.objects[KEY] = b"image" * 1000
    origin.delay = 0.2
    with ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(lambda _: cache.fetch(KEY, origin.load(KEY)), range(40)))
    assert {read(answer) for answer in answers} == {b"image" * 1000}
    assert len(origin.calls) == 1
    assert sum(answer.status is CacheStatus.MISS for answer in answers) == 1


def test_processes_that_miss_the_same_key_share_one_call(make_cache: MakeCache, origin: Origin) -> None:
    """Each cache object has its own locks, like a separate process."""
    origin.objects[KEY] = b"image"
    origin.delay = 0.2
    caches = [make_cache() for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda cache: cache.fetch(KEY, origin.load(KEY)), caches))
    assert {read(answer) for answer in answers} == {b"image"}
    assert len(origin.calls) == 1


def test_a_slow_key_does_not_delay_others(cache: DiskCache, origin: Origin) -> None:
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


def test_waiting_for_another_fill_times_out(make_cache: MakeCache, origin: Origin) -> None:
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


def test_after_two_failed_leaders_all_waiting_threads_fail(
    cache: DiskCache, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin.error = StoreUnreachable()
    join, joined = cache._flights._join, []

    def noted(key: str, number: int) -> tuple[object, bool]:
        found = join(key, number)
        joined.append(number)
        return found

    def once_all_wait(etag: str | None) -> StoredObject | None:
        wait_until(lambda: len(joined) == 8 + 7 * len(origin.calls))  # the first leader does not wait again
        return origin.load(KEY)(etag)

    def fails(_: int) -> bool:
        with pytest.raises(StoreUnreachable):
            cache.fetch(KEY, once_all_wait)
        return True

    monkeypatch.setattr(cache._flights, "_join", noted)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(fails, range(8)))
    assert len(origin.calls) == 2  # one other thread leads after the first
    origin.error, origin.objects[KEY] = None, b"image"
    assert read(cache.fetch(KEY, origin.load(KEY))) == b"image"


def test_after_a_failed_leader_another_thread_leads(cache: DiskCache, origin: Origin) -> None:
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


def test_not_found_is_raised_in_all_waiting_threads_after_one_call(cache: DiskCache, origin: Origin) -> None:
    origin.delay = 0.2

    def misses(_: int) -> bool:
        with pytest.raises(NotFound):
            cache.fetch(KEY, origin.load(KEY))
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(misses, range(8)))
    assert len(origin.calls) == 1


NO_LOCKS = [errno.ENOLCK, errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL]


@pytest.mark.parametrize("error", NO_LOCKS)
def test_without_file_locks_each_process_fills_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: int
) -> None:
    """The locks only keep processes from fetching the same object at once."""
    monkeypatch.setattr(system, "_warned_devices", set())

    def refused(*arguments: Any) -> None:
        raise OSError(error, "refused")

    monkeypatch.setattr(fcntl, "fcntl", refused)
    locks = KeyLocks(tmp_path / "fills")
    with locks.held("a.png", time.monotonic() + 60), locks.held("a.png", time.monotonic() + 60):
        assert caplog.text.count("can't be locked") == 1
