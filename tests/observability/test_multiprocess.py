"""Tests of the directory for the counters of the workers."""

import os
import tempfile
import time
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Gauge, values
from prometheus_client.multiprocess import MultiProcessCollector

from app.observability.multiprocess import DIRECTORY, SharedDirectory, free_number

PREFIX = "s3-image-server-metrics-"


@pytest.fixture(autouse=True)
def _temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(values, "ValueClass", values.ValueClass)
    monkeypatch.setenv(DIRECTORY, "before")


def _create() -> SharedDirectory:
    return SharedDirectory(os.geteuid(), os.getegid())


def test_the_directory_is_private_and_named_in_the_environment(tmp_path: Path) -> None:
    shared = _create()
    assert os.environ[DIRECTORY] == str(shared.path)
    assert shared.path.parent == tmp_path
    assert shared.path.stat().st_mode & 0o777 == 0o700
    shared.remove()
    assert list(tmp_path.iterdir()) == []


def test_directories_of_killed_servers_are_removed(tmp_path: Path) -> None:
    living = _create()
    old, young, other = tmp_path / f"{PREFIX}old", tmp_path / f"{PREFIX}young", tmp_path / "else"
    for path in (old, young, other):
        path.mkdir()
        (path / "counter_0.db").write_bytes(b"x")
    hour_ago = time.time() - 3600
    for path in (old, other, living.path):
        os.utime(path, (hour_ago, hour_ago))
    new = _create()
    assert set(tmp_path.iterdir()) == {living.path, young, other, new.path}
    living.remove()
    new.remove()


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    hour_ago = time.time() - 3600
    os.utime(target, (hour_ago, hour_ago))
    (tmp_path / f"{PREFIX}link").symlink_to(target)
    _create().remove()
    assert target.is_dir()


def test_gauges_of_a_worker_that_has_ended_no_longer_count() -> None:
    shared = _create()
    gauge = Gauge("running", "Running.", registry=CollectorRegistry(), multiprocess_mode="livesum")

    def total() -> float:
        (family,) = MultiProcessCollector(CollectorRegistry(), str(shared.path)).collect()  # type: ignore[no-untyped-call]
        return float(sum(sample.value for sample in family.samples))

    for number in (0, 1):
        shared.number = number
        gauge.inc(number + 1)
    assert total() == 3
    shared.forget_state(1)
    assert total() == 1
    shared.forget_state(7)
    shared.remove()


@pytest.mark.parametrize(("taken", "free"), [(set(), 0), ({0}, 1), ({1, 2}, 0), ({0, 1, 3}, 2)])
def test_a_new_worker_gets_the_smallest_free_number(taken: set[int], free: int) -> None:
    assert free_number(taken) == free
