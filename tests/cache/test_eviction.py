"""The cache stays within its size limit and evicts the least recently used objects first."""

import itertools
import os
import random
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import pytest

from app.cache.disk_cache import DiskCache
from app.cache.eviction import _MAX_VICTIMS
from app.cache.lookup import CacheStatus
from tests.cache.conftest import MakeCache, Origin, facts, immutable_key, read

MIB = 1024 * 1024


def disk_usage(directory: Path) -> int:
    """Return the size on disk of all files and directories in bytes, as `du -s` counts it.

    Each inode counts only once, even if its file is moved in the meantime and found at both paths.
    """
    bytes_by_inode = {}
    for parent, _, names in os.walk(directory):
        for path in (parent, *(os.path.join(parent, name) for name in names)):
            with suppress(FileNotFoundError):
                stat = os.lstat(path)
                bytes_by_inode[stat.st_ino] = stat.st_blocks * 512
    return sum(bytes_by_inode.values())


def _fill(cache: DiskCache, origin: Origin, numbers: range, size: int = 50_000) -> None:
    for number in numbers:
        key = immutable_key(number)
        origin.objects[key] = bytes(size)
        read(cache.fetch(key, origin.load(key)))


def _cached_numbers(cache: DiskCache, numbers: range) -> set[int]:
    cached = set()
    for number in numbers:
        found = cache.lookup(immutable_key(number))
        if found is not None:
            found.body.close()
            cached.add(number)
    return cached


def test_the_directory_never_exceeds_the_limit(make_cache: MakeCache, origin: Origin, tmp_path: Path) -> None:
    cache = make_cache(2 * MIB)
    worst = 0
    for number in range(120):
        _fill(cache, origin, range(number, number + 1), size=random.Random(number).randrange(1, 200_000))
        worst = max(worst, disk_usage(tmp_path / "cache"))
    assert MIB < worst <= 2 * MIB


@pytest.mark.parametrize("max_bytes", [384 * 1024, 512 * 1024, 1_000_000])
def test_a_small_cache_stays_within_its_limit_and_still_caches(
    make_cache: MakeCache, origin: Origin, tmp_path: Path, max_bytes: int
) -> None:
    cache = make_cache(max_bytes)
    worst = 0
    for number in range(150):
        _fill(cache, origin, range(number, number + 1), size=2000)
        worst = max(worst, disk_usage(tmp_path / "cache"))
    assert worst <= max_bytes
    assert cache.totals().entries > 3


def test_totals_match_the_files_on_disk(make_cache: MakeCache, origin: Origin, tmp_path: Path) -> None:
    cache = make_cache(2 * MIB)
    _fill(cache, origin, range(80))
    files = [path for path in (tmp_path / "cache" / "objects").rglob("*.png")]
    directories = [path for path in (tmp_path / "cache" / "objects").rglob("*") if path.is_dir()]
    totals = cache.totals()
    assert totals.entries == len(files)
    assert totals.taken == sum(path.stat().st_blocks * 512 for path in files) + 4096 * len(directories)
    assert totals.reserved == 0


def test_the_least_recently_used_objects_are_evicted_first(
    make_cache: MakeCache, origin: Origin, tmp_path: Path
) -> None:
    cache = make_cache(2 * MIB)
    _fill(cache, origin, range(20))
    hour_ago = time.time_ns() - 3600 * 10**9
    for number in range(20):
        path = tmp_path / "cache" / "objects" / immutable_key(number)
        os.utime(path, ns=(hour_ago + number, path.stat().st_mtime_ns))
    with cache._index.transaction() as db:
        db.execute("UPDATE entry SET accessed_at = ?", (hour_ago - 1,))
    for number in (0, 3, 7):
        read(cache.fetch(immutable_key(number), origin.load(immutable_key(number))))
    by_use = [1, 2, 4, 5, 6, *range(8, 20), 0, 3, 7]
    for newer in range(100, 150):
        _fill(cache, origin, range(newer, newer + 1))
        kept = [
            number for number in by_use if (tmp_path / "cache" / "objects" / immutable_key(number)).exists()
        ]
        assert kept == by_use[len(by_use) - len(kept) :]
    assert not kept


def test_an_object_larger_than_the_cache_evicts_nothing(make_cache: MakeCache, origin: Origin) -> None:
    cache = make_cache(MIB)
    _fill(cache, origin, range(3))
    big = immutable_key(99)
    origin.objects[big] = bytes(2 * MIB)
    cached = cache.fetch(big, origin.load(big))
    assert cached.status is CacheStatus.BYPASS
    assert len(read(cached)) == 2 * MIB
    assert _cached_numbers(cache, range(3)) == {0, 1, 2}


def test_a_cache_too_small_for_any_object_still_serves(make_cache: MakeCache, origin: Origin) -> None:
    cache = make_cache(1)
    origin.objects["a.png"] = b"image"
    for _ in range(2):
        cached = cache.fetch("a.png", origin.load("a.png"))
        assert (cached.status, read(cached)) == (CacheStatus.BYPASS, b"image")


def test_a_reader_can_finish_after_its_object_was_removed(make_cache: MakeCache, origin: Origin) -> None:
    cache = make_cache(MIB)
    _fill(cache, origin, range(1))
    held = cache.lookup(immutable_key(0))
    assert held is not None
    cache.forget(immutable_key(0))
    _fill(cache, origin, range(1, 40))
    assert len(read(held)) == 50_000


WRITER = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tests.cache.conftest import Origin, immutable_key, read
from app.cache.disk_cache import DiskCache

root, seed = Path(sys.argv[1]), int(sys.argv[2])
cache, origin = DiskCache(root, 3 * 1024 * 1024), Origin()
def work(thread):
    for i in range(60):
        key = immutable_key((seed * 31 + thread * 17 + i * 7) % 400)
        origin.objects[key] = bytes(1000 + 700 * (i % 90))
        assert read(cache.fetch(key, origin.load(key)))
with ThreadPoolExecutor(8) as pool:
    list(pool.map(work, range(8)))
cache.close()
"""


def test_many_writers_in_many_processes_stay_within_the_limit(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    command = [sys.executable, "-c", textwrap.dedent(WRITER), str(root)]
    writers = [subprocess.Popen([*command, str(seed)]) for seed in range(4)]
    samples = []
    while any(writer.poll() is None for writer in writers):
        samples.append(disk_usage(root) if root.exists() else 0)
    assert [writer.returncode for writer in writers] == [0, 0, 0, 0]
    assert len(samples) > 20
    assert MIB < max(samples) <= 3 * MIB


def test_reservations_of_a_killed_process_are_reclaimed(
    make_cache: MakeCache, origin: Origin, tmp_path: Path
) -> None:
    dying = """
        import os, sys
        from pathlib import Path
        from app.cache.disk_cache import DiskCache
        cache = DiskCache(Path(sys.argv[1]), 2 * 1024 * 1024)
        reservation = cache._space.reserve("images/00/" + "0" * 30 + ".png", 1024 * 1024)
        Path(reservation.path).write_bytes(bytes(500_000))
        os.kill(os.getpid(), 9)
    """
    root = tmp_path / "cache"
    subprocess.run([sys.executable, "-c", textwrap.dedent(dying), str(root)], check=False)
    assert [path.stat().st_size for path in (root / "tmp").glob("*/*")] == [500_000]
    cache = make_cache(2 * MIB)
    assert cache.totals().reserved == 0
    _fill(cache, origin, range(20))
    assert disk_usage(root) <= 2 * MIB
    assert cache.totals().entries == 20


def test_a_file_that_a_killed_process_moved_in_without_a_row_is_removed(
    make_cache: MakeCache, tmp_path: Path
) -> None:
    dying = """
        import os, sys
        from pathlib import Path
        from app.cache.disk_cache import DiskCache
        cache = DiskCache(Path(sys.argv[1]), 2 * 1024 * 1024)
        key = "generated/2026/00/20261122_080000_" + "0" * 24 + ".png"
        reservation = cache._space.reserve(key, 5)
        Path(reservation.path).write_bytes(b"image")
        path = cache._layout.immutable_path(key)
        cache._layout.move_in(reservation.path, path)
        os.kill(os.getpid(), 9)
    """
    root = tmp_path / "cache"
    subprocess.run([sys.executable, "-c", textwrap.dedent(dying), str(root)], check=False)
    assert (root / "objects" / immutable_key(0)).exists()
    make_cache(2 * MIB)
    assert not (root / "objects" / immutable_key(0)).exists()


@pytest.mark.parametrize(
    ("what", "left"),
    [("cache.forget(key)", 28), ("cache._space.reserve(other, 1_800_000)", 29 - _MAX_VICTIMS)],
)
def test_rows_of_files_that_a_killed_process_removed_are_deleted(
    make_cache: MakeCache, origin: Origin, tmp_path: Path, what: str, left: int
) -> None:
    """The process is killed right after it removed the file, either in a delete or in an eviction."""
    dying = f"""
        import os, sys
        from pathlib import Path
        from app.cache.disk_cache import DiskCache
        cache = DiskCache(Path(sys.argv[1]), 2 * 1024 * 1024)
        key, other = sys.argv[2:]
        unlink = os.unlink
        def die(path, **options):
            unlink(path, **options)
            if path.endswith(key):
                os.kill(os.getpid(), 9)
        os.unlink = die
        {what}
    """
    key, root = immutable_key(0), tmp_path / "cache"
    first = make_cache(2 * MIB)
    _fill(first, origin, range(29))
    first.close()
    command = [sys.executable, "-c", textwrap.dedent(dying), str(root), key, immutable_key(99)]
    subprocess.run(command, check=False)
    assert not (root / "objects" / key).exists()
    cache = make_cache(2 * MIB)
    assert cache.check().is_clean
    assert (cache.totals().entries, cache.totals().reserved) == (left, 0)


def test_files_that_a_killed_process_was_about_to_remove_are_removed(
    make_cache: MakeCache, origin: Origin, tmp_path: Path
) -> None:
    """The process is killed after the transaction that deletes rows, before it has removed all the files."""
    dying = """
        import os, sys
        from pathlib import Path
        from app.cache.disk_cache import DiskCache
        cache = DiskCache(Path(sys.argv[1]), 2 * 1024 * 1024)
        unlink = os.unlink
        def die(path, **options):
            os.unlink = lambda path, **options: os.kill(os.getpid(), 9)
            unlink(path, **options)
        os.unlink = die
        cache._space.reserve(sys.argv[2], 1_000_000)
    """
    root = tmp_path / "cache"
    first = make_cache(2 * MIB)
    _fill(first, origin, range(29))
    _forget_accesses(first)
    first.close()
    command = [sys.executable, "-c", textwrap.dedent(dying), str(root), immutable_key(99)]
    subprocess.run(command, check=False)
    assert len(list((root / "objects").rglob("*.png"))) == 28
    cache = make_cache(2 * MIB)
    totals = cache.totals()
    assert totals.reserved == 0
    assert totals.entries == len(list((root / "objects").rglob("*.png"))) < 20
    assert cache.check().is_clean


def _forget_accesses(cache: DiskCache) -> None:
    """Let no entry count as used since its access was recorded."""
    with cache._index.transaction() as db:
        db.execute("UPDATE entry SET accessed_at = accessed_at + ?", (10**12,))


def test_when_the_cache_is_full_a_batch_is_evicted_ahead(make_cache: MakeCache) -> None:
    cache, data, evicted = make_cache(2 * MIB), bytes(8000), []
    for number in range(250):
        written = facts(immutable_key(number), data)
        cache.store(written, data, cache.epoch(written.key))
        evicted.append(cache.counts.totals().evicted)
    batches = [after - before for before, after in itertools.pairwise(evicted)]
    assert set(batches[-20:]) >= {0, 3}  # 16 KiB are freed in addition to what is needed
    assert sum(batches[-20:]) == pytest.approx(20, abs=5)
    assert cache.check().is_clean


def test_files_are_removed_while_other_processes_can_write_the_index(
    make_cache: MakeCache, origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = make_cache(2 * MIB)
    _fill(cache, origin, range(29))
    _forget_accesses(cache)
    unlink = os.unlink
    removed: list[tuple[int, int]] = []

    def unlink_unlocked(path: str) -> None:
        with closing(sqlite3.connect(tmp_path / "cache" / "index.sqlite3", timeout=0)) as other:
            other.execute("BEGIN IMMEDIATE")
            removed.append(other.execute("SELECT taken + reserved, entries FROM total").fetchone())
        unlink(path)

    before = cache.totals()
    with monkeypatch.context() as patched:
        patched.setattr("app.cache.eviction.os.unlink", unlink_unlocked)
        assert cache._space.reserve(immutable_key(99), 1_000_000) is not None
    assert len(removed) > 10
    assert removed[0][1] <= before.entries - 10
    files = 29 * 13 * 4096  # of 50,000 bytes each
    assert {taken for taken, _ in removed[:10]} == {files}  # they count until they are removed


def test_a_file_that_was_cached_again_before_its_removal_is_kept(
    make_cache: MakeCache, origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, other = make_cache(2 * MIB), make_cache(2 * MIB)
    _fill(cache, origin, range(29))
    _forget_accesses(cache)
    unlink, path = os.unlink, tmp_path / "cache" / "objects" / immutable_key(1)
    data = bytes(50_000)
    written = facts(immutable_key(1), data)

    def unlink_after_refill(first: str) -> None:
        monkeypatch.setattr("app.cache.eviction.os.unlink", unlink)
        unlink(first)
        other.store(written, data, other.epoch(written.key))

    monkeypatch.setattr("app.cache.eviction.os.unlink", unlink_after_refill)
    reservation = cache._space.reserve(immutable_key(99), 500_000)
    assert reservation is not None
    cache._space.release(reservation)
    assert path.read_bytes() == data
    assert cache.check().is_clean


def test_a_file_that_could_not_be_removed_counts_until_it_is(
    make_cache: MakeCache, origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = make_cache(2 * MIB)
    _fill(cache, origin, range(29))
    _forget_accesses(cache)

    def refuse(path: str) -> None:
        raise PermissionError(path)

    with monkeypatch.context() as patched:
        patched.setattr("app.cache.eviction.os.unlink", refuse)
        with pytest.raises(PermissionError):
            cache._space.reserve(immutable_key(99), 500_000)
    assert cache.totals().reserved > 0
    reservation = cache._space.reserve(immutable_key(99), 500_000)
    assert reservation is not None
    cache._space.release(reservation)
    assert cache.totals().reserved == 0
    assert cache.totals().entries == len(list((tmp_path / "cache" / "objects").rglob("*.png")))
    assert cache.check().is_clean


def test_a_running_process_keeps_its_reservation(make_cache: MakeCache) -> None:
    one = make_cache(2 * MIB)
    reservation = one._space.reserve(immutable_key(1), 100_000)
    assert reservation is not None
    Path(reservation.path).write_bytes(b"half")
    other = make_cache(2 * MIB)
    assert other.totals().reserved == reservation.taken
    assert Path(reservation.path).exists()


def test_a_hit_does_not_write_the_index(cache: DiskCache, origin: Origin) -> None:
    _fill(cache, origin, range(1))
    with cache._index.transaction() as db:
        db.execute("CREATE TRIGGER t BEFORE UPDATE ON entry BEGIN SELECT RAISE(ABORT, 'written'); END")
    read(cache.fetch(immutable_key(0), origin.load(immutable_key(0))))
    assert len(origin.calls) == 1


def test_many_threads_stay_within_the_limit(make_cache: MakeCache, origin: Origin, tmp_path: Path) -> None:
    cache = make_cache(2 * MIB)
    over = threading.Event()
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            if disk_usage(tmp_path / "cache") > 2 * MIB:
                over.set()

    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda i: _fill(cache, origin, range(i * 10, i * 10 + 10)), range(16)))
    done.set()
    watcher.join()
    assert not over.is_set()
    assert cache.check().is_clean


def test_objects_larger_than_max_object_bytes_are_not_cached(make_cache: MakeCache, origin: Origin) -> None:
    cache = make_cache(max_object_bytes=1000)
    origin.objects = {immutable_key(1): bytes(1001), immutable_key(2): bytes(1000)}
    answers = [cache.fetch(key, origin.load(key)) for key in origin.objects]
    assert [answer.status for answer in answers] == [CacheStatus.BYPASS, CacheStatus.MISS]
    assert [len(read(answer)) for answer in answers] == [1001, 1000]


@pytest.mark.parametrize("size", [1, 4096, 4097, 300_000])
def test_sizes_are_rounded_up_to_blocks(make_cache: MakeCache, origin: Origin, size: int) -> None:
    cache = make_cache()
    before = cache.totals().taken
    _fill(cache, origin, range(1), size=size)
    assert cache.totals().taken - before == -(-size // 4096) * 4096 + 3 * 4096
