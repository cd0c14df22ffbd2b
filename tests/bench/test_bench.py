"""The tools of the benchmark measure correctly. The benchmark itself is not a test."""

import asyncio
import os
import signal
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from app.cache.disk_cache import DiskCache
from bench.crowd import crowd
from bench.load import put_load
from bench.origin import COUNTS
from bench.population import populate
from bench.processes import cpu_seconds, running, tree
from bench.report import Figure, Section, Table, at_least, median_ratio, render
from bench.servers import Server, Start, get, serving


def test_a_report_has_figures_first_then_tables() -> None:
    section = Section("Hits", "How.", [Table("200", ("server", "rate"), [("ours", "7")])], notes=["no nginx"])
    section.figures = [Figure("hits", "≥ 1", "2", True), at_least("misses", 0.5, 0.9)]
    assert render([section]) == (
        "## Figures\n\n| what | target | measured | reached |\n| --- | --- | --- | --- |\n"
        "| hits | ≥ 1 | 2 | yes |\n| misses | ≥ 0.90 × | 0.50 × | **no** |\n\n\n"
        "## Hits\n\nHow.\n\n### 200\n\n| server | rate |\n| --- | --- |\n| ours | 7 |\n\n- no nginx\n"
    )


def test_the_median_ratio_compares_the_figures_of_each_round() -> None:
    assert median_ratio([10, 1, 30], [5, 1, 10]) == 2


def test_running_stops_a_process_with_its_children(tmp_path: Path) -> None:
    command = ("sh", "-c", "sleep 60 & while :; do :; done")
    with running(command, tmp_path / "log") as process:
        deadline = time.monotonic() + 60
        while (len(tree(process.pid)) < 2 or not cpu_seconds(process.pid)) and time.monotonic() < deadline:
            time.sleep(0.01)
        members = tree(process.pid)
        assert len(members) == 2
    for pid in members:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert process.returncode == -signal.SIGTERM


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    """The directory of a bucket with two images."""
    objects = tmp_path / "objects"
    objects.mkdir()
    (objects / "a.png").write_bytes(b"a" * 300_000)
    (objects / "b.png").write_bytes(b"b")
    return objects


def _serving(objects: Path, log: Path) -> AbstractContextManager[Server]:
    def start(port: int) -> Start:
        return Start((sys.executable, "-m", "bench.origin", str(port), str(objects)))

    return serving("origin", start, log, ready=COUNTS)


def test_the_load_generator_counts_responses_and_raises_on_failures(
    origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    with _serving(origin, tmp_path / "log") as server:
        counted = put_load(server, ["/bucket/a.png", "/bucket/b.png"], 1)
        assert counted.rate > 0
        assert counted.cpu > 0
        with pytest.raises(RuntimeError, match="failures"):
            put_load(server, ["/bucket/missing.png"], 1)


def test_a_crowd_sends_one_request_for_each_client(origin: Path, tmp_path: Path) -> None:
    with _serving(origin, tmp_path / "log") as server:
        waits = asyncio.run(crowd(server.port, "/bucket/a.png", 20))
        assert len(waits) == 20
        assert min(waits) > 0
        assert get(server.port, COUNTS).body == b'{"/bucket/a.png": 20}'


def test_a_populated_cache_is_readable(tmp_path: Path) -> None:
    population = populate(tmp_path, 300)
    cache = DiskCache(population.cache_dir, population.max_bytes)
    assert cache.totals().entries == 300
    for key in population.keys:
        found = cache.lookup(key)
        assert found is not None
        assert len(found.body.read()) == found.facts.size
        found.body.close()
    cache.close()
