"""Rebuilding a lost index, checking the index against the files, and clearing both."""

import os
import sqlite3
from contextlib import suppress
from pathlib import Path

import pytest

from app.cache.disk_cache import DiskCache
from app.cache.lookup import CacheStatus
from app.cache.rebuild import CheckReport
from app.core.errors import CacheUnreadable
from tests.cache.conftest import MakeCache, Origin, immutable_key, read
from tests.waiting import wait_until

KEY = immutable_key(1)

ENTRIES = 520
"""More entries than are adopted in one transaction."""

NAMED = "users/1/me.png"


def _fill(cache: DiskCache, origin: Origin, count: int) -> None:
    for key in (NAMED, *map(immutable_key, range(count))):
        origin.objects[key] = key.encode() * 100
        read(cache.fetch(key, origin.load(key)))


def _close_index(cache: DiskCache, tmp_path: Path) -> Path:
    """Close the index, remove its log, and return the path of its file."""
    cache._index.close()
    for log in tmp_path.glob("cache/index.sqlite3-*"):
        log.unlink()
    return tmp_path / "cache" / "index.sqlite3"


def _restart_machine(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Change the boot ID, by which an index notices a restart."""
    (directory / "boot_id").write_text("another boot")
    monkeypatch.setattr("app.cache.index._BOOT_ID", directory / "boot_id")


def _wait_until_rebuilt(cache: DiskCache, origin: Origin) -> None:
    """Fetch a missing object until the index has been rebuilt. Hits would not notice that it is gone."""
    missing = immutable_key(10**6)
    origin.objects[missing] = bytes(101 * 1024 * 1024)  # larger than the cache

    def is_rebuilt() -> bool:
        cache.fetch(missing, origin.load(missing)).body.close()
        with suppress(sqlite3.Error):
            return not cache._index.is_rebuilding()
        return False

    wait_until(is_rebuilt)


@pytest.mark.parametrize(
    "loss",
    ["removed", "garbage", "cut", "overwritten in the middle", "of another version", "of another boot"],
)
@pytest.mark.parametrize("when", ["stopped", "running"])
def test_a_lost_index_is_rebuilt_from_the_files(
    make_cache: MakeCache, origin: Origin, tmp_path: Path, loss: str, when: str
) -> None:
    first = make_cache()
    _fill(first, origin, ENTRIES)
    index = _close_index(first, tmp_path)
    if loss == "removed":
        index.unlink()
    else:
        whole = index.read_bytes()
        half = len(whole) // 2
        noise = {
            "garbage": b"no database" * 500,
            "cut": whole[:6000],
            "of another version": _with_number(whole, 60),
            "of another boot": _with_number(whole, 68),
        }
        index.write_bytes(noise.get(loss, whole[:4096] + b"\xaa" * half + whole[4096 + half :]))
    cache = make_cache() if when == "stopped" else first
    before = len(origin.calls)
    for number in range(0, ENTRIES, 50):
        assert read(cache.fetch(immutable_key(number), origin.load(immutable_key(number)))) == (
            immutable_key(number).encode() * 100
        )
    _wait_until_rebuilt(cache, origin)
    assert cache.check().is_clean
    assert cache.totals().entries == ENTRIES
    calls = len(origin.calls)
    for number in range(ENTRIES):
        found = cache.lookup(immutable_key(number))
        assert found is not None
        found.body.close()
    assert len(origin.calls) == calls
    assert before <= calls
    assert read(cache.fetch(NAMED, origin.load(NAMED))) == origin.objects[NAMED]


def _with_number(database: bytes, offset: int) -> bytes:
    """Change the user version (offset 60) or the application ID (offset 68).

    https://www.sqlite.org/fileformat2.html
    """
    return database[:offset] + (7).to_bytes(4) + database[offset + 4 :]


def test_files_truncated_by_a_power_failure_are_removed(
    make_cache: MakeCache, origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writes are not synced to disk, so a file may have its name and times, but not its bytes."""
    cache = make_cache()
    _fill(cache, origin, 20)
    cache.close()
    file = tmp_path / "cache" / "objects" / immutable_key(3)
    stat = file.stat()
    os.truncate(file, 0)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    _restart_machine(tmp_path, monkeypatch)
    again = make_cache()
    _wait_until_rebuilt(again, origin)
    assert not file.exists()
    assert (again.totals().entries, again.check().is_clean) == (19, True)


def test_a_rebuild_trims_the_cache_to_a_lowered_limit(
    make_cache: MakeCache, origin: Origin, tmp_path: Path
) -> None:
    first = make_cache()
    _fill(first, origin, 300)
    first.close()
    (tmp_path / "cache" / "index.sqlite3").unlink()
    small = make_cache(max_bytes=1024 * 1024)
    _wait_until_rebuilt(small, origin)
    small._rebuild.wait()
    assert 0 < small.totals().taken < 1024 * 1024
    assert small.check().is_clean


def test_check_finds_and_fixes_differences(make_cache: MakeCache, origin: Origin, tmp_path: Path) -> None:
    cache = make_cache()
    _fill(cache, origin, 20)
    objects = tmp_path / "cache" / "objects"
    assert cache.check() == CheckReport(entries=21)
    (objects / immutable_key(1)).unlink()
    (objects / immutable_key(2)).write_bytes(b"cut")
    (objects / "generated" / "stray.png").write_bytes(b"stray")
    (tmp_path / "cache" / "opaque" / "00").mkdir()
    (tmp_path / "cache" / "opaque" / "00" / "0123").write_bytes(b"stray")
    with cache._index.transaction() as db:
        db.execute("UPDATE total SET taken = taken + 12288, entries = 3")
    found = cache.check()
    assert sorted(found.missing) == [immutable_key(1), immutable_key(2)]
    assert {Path(path).name for path in found.strays} == {"stray.png", "0123"}
    assert found.drift != 0
    assert not found.is_clean
    fixed = cache.check(fix=True)
    assert (fixed.fixed, len(fixed.missing), len(fixed.strays)) == (True, 2, 2)
    assert cache.check().is_clean
    assert cache.totals().entries == 19


def test_check_rebuilds_a_damaged_index(make_cache: MakeCache, origin: Origin, tmp_path: Path) -> None:
    """If a page in the middle is damaged, some keys can be read, but not all."""
    cache = make_cache()
    _fill(cache, origin, ENTRIES)
    index = _close_index(cache, tmp_path)
    whole = index.read_bytes()
    index.write_bytes(whole[: len(whole) // 2] + b"\xaa" * 8192 + whole[len(whole) // 2 + 8192 :])
    with pytest.raises(CacheUnreadable):
        cache.check()
    fixed = cache.check(fix=True)
    assert (fixed.entries, fixed.is_clean) == (ENTRIES, True)
    assert [path.name for path in tmp_path.glob("cache/index*.damaged*")] == []


def test_check_waits_for_a_rebuild(make_cache: MakeCache, origin: Origin, tmp_path: Path) -> None:
    cache = make_cache()
    _fill(cache, origin, ENTRIES)
    cache.close()
    (tmp_path / "cache" / "index.sqlite3").unlink()
    assert make_cache().check(fix=True).entries == ENTRIES


def test_clear_waits_for_a_rebuild(make_cache: MakeCache, origin: Origin, tmp_path: Path) -> None:
    """Otherwise, files that are adopted after the rows were deleted would remain."""
    cache = make_cache()
    _fill(cache, origin, ENTRIES)
    cache.close()
    (tmp_path / "cache" / "index.sqlite3").unlink()
    again = make_cache()
    assert again.clear() == ENTRIES
    assert again.totals().entries == 0


def test_clear_removes_files_without_rows(cache: DiskCache, origin: Origin, tmp_path: Path) -> None:
    _fill(cache, origin, 20)
    stray = tmp_path / "cache" / "objects" / immutable_key(99)
    stray.parent.mkdir(parents=True, exist_ok=True)
    stray.write_bytes(b"stray")
    done: list[int] = []
    assert cache.clear(done.append) == done[-1] == 21
    assert not stray.exists()
    assert cache.totals().entries == 0


def test_a_lowered_limit_is_enforced_without_requests(
    make_cache: MakeCache, origin: Origin, tmp_path: Path
) -> None:
    """No fill is needed to evict the excess."""
    first = make_cache()
    for number in range(40):
        origin.objects[immutable_key(number)] = bytes(50_000)
        read(first.fetch(immutable_key(number), origin.load(immutable_key(number))))
    first.close()
    small = make_cache(max_bytes=1024 * 1024)
    wait_until(lambda: small.totals().taken <= 1024 * 1024)
    assert 0 < small.totals().taken < 1024 * 1024
    assert small.check().is_clean


def test_an_index_that_is_too_large_for_a_lowered_limit_shrinks(
    make_cache: MakeCache, origin: Origin, tmp_path: Path
) -> None:
    """Rows without files stand for many small images."""
    first = make_cache()
    _fill(first, origin, 10)
    with first._index.transaction() as db:
        rows = ((f"{number:0200}.png", number) for number in range(15_000))
        db.executemany(
            "INSERT INTO entry VALUES (?, 100, 4096, '\"x\"', 'image/png', '', 0, 0, 0, 0, ?)", rows
        )
        db.execute("UPDATE total SET entries = entries + 15000, taken = taken + 15000 * 4096")
    first.close()
    index = tmp_path / "cache" / "index.sqlite3"
    assert index.stat().st_size > 2 * 1024 * 1024
    small = make_cache(max_bytes=1024 * 1024)
    small._rebuild.wait()
    assert small.totals().taken + index.stat().st_size < 1024 * 1024
    assert small.totals().entries > 10
    origin.objects[KEY] = b"image"
    assert small.fetch(KEY, origin.load(KEY)).status is not CacheStatus.BYPASS


def test_files_of_dead_processes_are_removed_after_a_restart_of_the_machine(
    make_cache: MakeCache, origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = make_cache()
    _fill(cache, origin, 1)
    cache.close()
    left = tmp_path / "cache" / "tmp" / "0123456789abcdef" / "written"
    left.parent.mkdir()
    left.write_bytes(b"half")
    left.parent.with_suffix(".lock").touch()
    _restart_machine(tmp_path, monkeypatch)
    _wait_until_rebuilt(make_cache(), origin)
    assert not left.exists()


def test_check_knows_opaque_files(cache: DiskCache, origin: Origin) -> None:
    key = "Ferien 2026/Strand & Meer.png"
    origin.objects[key] = b"image"
    read(cache.fetch(key, origin.load(key)))
    assert cache.check().is_clean


def test_check_knows_opaque_files_that_are_cached_during_the_check(cache: DiskCache, origin: Origin) -> None:
    early, late = "a Strand & Meer.png", "b Strand & Meer.png"
    origin.objects |= {early: b"image", late: b"image"}
    read(cache.fetch(late, origin.load(late)))

    def fetch_early(_: int) -> None:
        read(cache.fetch(early, origin.load(early)))

    assert cache.check(fix=True, progress=fetch_early).is_clean
    assert cache.fetch(early, origin.load(early)).status is CacheStatus.HIT


def test_clear_leaves_nothing(cache: DiskCache, origin: Origin, tmp_path: Path) -> None:
    _fill(cache, origin, 20)
    assert cache.clear() == 21
    assert cache.totals() == type(cache.totals())(0, 0, 0)
    assert not list((tmp_path / "cache" / "objects").iterdir())
    assert cache.check().is_clean
