"""Counts are exact across threads and processes, survive restarts, and never fail a request."""

import multiprocessing
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from app.cache.layout import Layout
from app.cache.lookup import CacheStatus
from app.cache.stats import COUNTS_BYTES, Counts, CountTotals

ZERO = CountTotals(0, 0, 0, 0, 0, 0, 0)


def _open(root: Path) -> Counts:
    layout = Layout(root)
    layout.create()
    counts = Counts(layout)
    counts.prepare()
    return counts


@pytest.fixture
def counts(tmp_path: Path) -> Iterator[Counts]:
    with closing(_open(tmp_path)) as opened:
        yield opened


def _hit(counts: Counts, times: int) -> None:
    for _ in range(times):
        counts.hit(10)


def _many_hits(root: Path, times: int) -> None:
    with closing(_open(root)) as counts:
        _hit(counts, times)


def test_each_status_has_its_own_count(counts: Counts) -> None:
    assert counts.totals() == ZERO
    counts.hit(100)
    for times, status in enumerate(CacheStatus, start=1):
        for _ in range(times):
            counts.add(status, 10)
    totals = counts.totals()
    assert totals == CountTotals(2, 2, 3, 4, 5, 6, bytes_served=100 + 10 * (1 + 3 + 4 + 5))
    assert totals.requests_saved == 2 + 5 + 3


def test_no_count_is_lost_between_threads(counts: Counts) -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=_hit, args=(counts, 20_000)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert (counts.totals().hits, counts.totals().bytes_served) == (160_000, 1_600_000)


def test_no_count_is_lost_between_processes(counts: Counts, tmp_path: Path) -> None:
    counts.hit(10)
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=_many_hits, args=(tmp_path, 5_000)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        process.close()
    assert counts.totals().hits == 15_001


def test_a_new_process_continues_the_counts_of_one_that_ended(counts: Counts, tmp_path: Path) -> None:
    counts.hit(1)
    counts.close()
    with closing(_open(tmp_path)) as again:
        again.hit(1)
        assert again.totals().hits == 2
        assert [path.name for path in (tmp_path / "locks").iterdir()] == ["counts-0"]


def test_a_forked_process_counts_in_its_own_slot(counts: Counts, tmp_path: Path) -> None:
    counts.hit(1)
    child = os.fork()
    if child == 0:
        counts.hit(1)
        os._exit(0)
    os.waitpid(child, 0)
    counts.hit(1)
    assert counts.totals().hits == 3
    assert len(list((tmp_path / "locks").iterdir())) == 2


def test_processes_beyond_the_number_of_slots_are_not_counted(tmp_path: Path) -> None:
    opened = [_open(tmp_path) for _ in range(258)]
    for counts in opened:
        counts.hit(1)
    assert opened[0].totals().hits == 256
    for counts in opened:
        counts.close()


@pytest.mark.parametrize("damage", ["removed", "cut"])
def test_a_missing_or_truncated_file_fails_no_request(counts: Counts, tmp_path: Path, damage: str) -> None:
    file = tmp_path / "counts"
    if damage == "removed":
        file.unlink()
    else:
        file.write_bytes(b"")
    counts.hit(1)
    counts.prepare()
    assert counts.totals() == ZERO
    counts.hit(1)
    assert (counts.totals().hits, file.stat().st_size) == (1, COUNTS_BYTES)
