"""A cache directory that does not work never fails a request, unless the store fails too."""

import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from app.cache import fill as fill_module
from app.cache.disk_cache import DiskCache
from app.cache.lookup import CacheStatus
from tests.cache.conftest import MakeCache, Origin, facts, immutable_key, read

KEY = immutable_key(1)

NAMED = "users/1/me.png"


def test_a_cache_directory_that_is_a_file(
    tmp_path: Path, origin: Origin, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").write_bytes(b"")
    cache = DiskCache(tmp_path / "cache", 10**6)
    origin.objects[KEY] = b"image"
    for _ in range(3):
        cached = cache.fetch(KEY, origin.load(KEY))
        assert (cached.status, read(cached)) == (CacheStatus.BYPASS, b"image")
    cache.store(facts(KEY, b"image"), b"image", cache.epoch(KEY))
    cache.forget(KEY)
    assert not cache.is_writable()
    assert caplog.text.count("degraded") == 1
    cache.close()


def test_a_directory_that_is_deleted_at_run_time_is_created_again(
    make_cache: MakeCache, origin: Origin, tmp_path: Path
) -> None:
    cache = make_cache()
    origin.objects[KEY] = b"image"
    read(cache.fetch(KEY, origin.load(KEY)))
    shutil.rmtree(tmp_path / "cache")
    for _ in range(2):
        assert read(cache.fetch(KEY, origin.load(KEY))) == b"image"
    repaired = cache.fetch(KEY, origin.load(KEY))
    assert (repaired.status, read(repaired)) == (CacheStatus.HIT, b"image")
    assert cache.check().is_clean


def test_a_disk_that_fills_up_during_a_fill(
    cache: DiskCache, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fill_module, "_copy", full)
    origin.objects[KEY] = b"image"
    cached = cache.fetch(KEY, origin.load(KEY))
    assert (cached.status, read(cached)) == (CacheStatus.BYPASS, b"image")
    assert cache.totals().reserved == 0
    monkeypatch.undo()
    cached = cache.fetch(KEY, origin.load(KEY))
    assert (cached.status, read(cached)) == (CacheStatus.MISS, b"image")


def test_a_full_disk_is_noticed_before_the_body_is_read(
    cache: DiskCache, origin: Origin, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    full = os.statvfs_result((4096, 4096, 100, 0, 0, 100, 50, 50, 0, 255))
    monkeypatch.setattr(os, "fstatvfs", lambda descriptor: full)
    for number in range(3):
        key = immutable_key(number)
        origin.objects[key] = b"image"
        assert read(cache.fetch(key, origin.load(key))) == b"image"
    assert len(origin.calls) == 3, "each is streamed from the store, none is fetched twice"
    assert caplog.text.count("No space left") == 1
    assert not cache.is_writable()
    assert cache.check().is_clean
    monkeypatch.undo()
    read(cache.fetch(KEY, origin.load(KEY)))
    assert (cache.is_writable(), cache.lookup(KEY) is None) == (True, False)


def test_a_reservation_that_could_not_be_released_is_released_later(
    cache: DiskCache, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This happens if another process locks the index for longer than the busy timeout."""
    transaction = cache._index.transaction
    first = iter([True])

    def locked() -> Any:
        if next(first, False):
            return transaction()
        raise sqlite3.OperationalError("database is locked")

    monkeypatch.setattr(cache._index, "transaction", locked)
    origin.objects[KEY] = b"image"
    assert read(cache.fetch(KEY, origin.load(KEY))) == b"image"
    monkeypatch.undo()
    assert cache.totals().reserved > 0
    assert read(cache.fetch(KEY, origin.load(KEY))) == b"image"
    assert cache.totals().reserved == 0


def test_closing_the_index_during_a_read_fails_no_request(
    cache: DiskCache, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin.objects[NAMED] = b"image"
    read(cache.fetch(NAMED, origin.load(NAMED)))
    cache._index.close()
    monkeypatch.setattr(cache._index, "_ensure_open", lambda: None)
    assert cache.fetch(NAMED, origin.load(NAMED)).status is CacheStatus.BYPASS


def test_evictions_are_counted_in_a_directory_that_was_created_again(
    make_cache: MakeCache, origin: Origin, tmp_path: Path
) -> None:
    cache = make_cache(max_bytes=640 * 1024)
    shutil.rmtree(tmp_path / "cache")
    for number in range(100):
        key = immutable_key(number)
        origin.objects[key] = bytes(20_000)
        read(cache.fetch(key, origin.load(key)))
    assert cache.counts.totals().evicted > 30


def test_a_noatime_mount_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    mounted = os.statvfs(tmp_path)
    noatime = os.statvfs_result([*mounted[:8], mounted.f_flag | os.ST_NOATIME, *mounted[9:]])
    monkeypatch.setattr(os, "statvfs", lambda path: noatime)
    DiskCache(tmp_path / "cache", 10**7).close()
    assert "noatime" in caplog.text
