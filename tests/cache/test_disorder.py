"""A cache that is out of order never fails a request that the store can answer."""

import shutil
from pathlib import Path

import pytest

from app.cache import CacheStatus, DiskCache
from app.cache import fill as fill_module
from tests.cache.conftest import MakeCache, Origin, facts, immutable_key, read

KEY = immutable_key(1)


def test_a_directory_that_is_a_file(tmp_path: Path, origin: Origin, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "cache").write_bytes(b"")
    cache = DiskCache(tmp_path / "cache", 10**6)
    origin.objects[KEY] = b"image"
    for _ in range(3):
        cached = cache.fetch(KEY, origin.load(KEY))
        assert (cached.status, read(cached)) == (CacheStatus.BYPASS, b"image")
    cache.store(facts(KEY, b"image"), b"image", cache.epoch(KEY))
    cache.forget(KEY)
    assert not cache.is_writable()
    assert caplog.text.count("out of order") == 1
    cache.close()


def test_a_directory_deleted_under_a_running_server(
    make_cache: MakeCache, origin: Origin, tmp_path: Path
) -> None:
    cache = make_cache()
    origin.objects[KEY] = b"image"
    read(cache.fetch(KEY, origin.load(KEY)))
    shutil.rmtree(tmp_path / "cache")
    for _ in range(2):
        assert read(cache.fetch(KEY, origin.load(KEY))) == b"image"


def test_a_full_disk(cache: DiskCache, origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_an_index_that_is_no_database(tmp_path: Path, origin: Origin) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "index.sqlite3").write_bytes(b"not a database" * 1000)
    cache = DiskCache(tmp_path / "cache", 10**7)
    origin.objects[KEY] = b"image"
    assert read(cache.fetch(KEY, origin.load(KEY))) == b"image"
    cache.close()
