"""The directory that the workers share: made at start, removed at the end, also by the next server."""

import os
import tempfile
import time
from pathlib import Path

import pytest
from prometheus_client import values

from app.observability.multiprocess import DIRECTORY, SharedDirectory, free_number

PREFIX = "s3-image-server-metrics-"


@pytest.fixture(autouse=True)
def _temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(values, "ValueClass", values.ValueClass)
    monkeypatch.setenv(DIRECTORY, "before")


def _make() -> SharedDirectory:
    return SharedDirectory(os.geteuid(), os.getegid())


def test_it_is_for_this_user_alone_and_told_to_the_workers(tmp_path: Path) -> None:
    shared = _make()
    assert os.environ[DIRECTORY] == str(shared.path)
    assert shared.path.parent == tmp_path
    assert shared.path.stat().st_mode & 0o777 == 0o700
    shared.remove()
    assert list(tmp_path.iterdir()) == []


def test_what_killed_servers_left_is_removed(tmp_path: Path) -> None:
    living = _make()
    old, young, other = tmp_path / f"{PREFIX}old", tmp_path / f"{PREFIX}young", tmp_path / "else"
    for path in (old, young, other):
        path.mkdir()
        (path / "counter_0.db").write_bytes(b"x")
    hour_ago = time.time() - 3600
    for path in (old, other, living.path):
        os.utime(path, (hour_ago, hour_ago))
    new = _make()
    assert set(tmp_path.iterdir()) == {living.path, young, other, new.path}
    living.remove()
    new.remove()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    hour_ago = time.time() - 3600
    os.utime(precious, (hour_ago, hour_ago))
    (tmp_path / f"{PREFIX}link").symlink_to(precious)
    _make().remove()
    assert precious.is_dir()


@pytest.mark.parametrize(("taken", "free"), [(set(), 0), ({0}, 1), ({1, 2}, 0), ({0, 1, 3}, 2)])
def test_a_dead_workers_number_is_given_again(taken: set[int], free: int) -> None:
    assert free_number(taken) == free
