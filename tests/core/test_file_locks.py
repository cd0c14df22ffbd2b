"""Locks on file systems that have none of one kind, or none at all."""

import errno
import fcntl
import logging
import time
from pathlib import Path
from typing import Any

import pytest

from app.cache.single_flight import KeyLocks
from app.core import system as filelock
from app.core.system import SHARED, claim, locked, opened, try_lock

NONE = [errno.ENOLCK, errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL]


def _refuse(monkeypatch: pytest.MonkeyPatch, name: str, error: int) -> None:
    def refused(*arguments: Any) -> None:
        raise OSError(error, "not here")

    monkeypatch.setattr(fcntl, name, refused)


@pytest.mark.parametrize("error", NONE)
def test_without_flock_the_locks_of_open_files_shut_out_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    _refuse(monkeypatch, "flock", error)
    with locked(tmp_path / "a"), opened(tmp_path / "a") as other:
        assert claim(tmp_path / "a") is None
        assert not try_lock(other, SHARED)
    with locked(tmp_path / "a", SHARED), opened(tmp_path / "a") as other:
        assert try_lock(other, SHARED)
        assert not try_lock(other)
    with opened(tmp_path / "a") as other:
        assert try_lock(other)


@pytest.mark.parametrize("error", NONE)
def test_without_any_locks_those_that_are_not_required_are_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: int
) -> None:
    monkeypatch.setattr(filelock, "_warned_devices", set())
    _refuse(monkeypatch, "flock", error)
    _refuse(monkeypatch, "fcntl", error)
    with caplog.at_level(logging.WARNING, "app.core.system"):
        for _ in range(2):
            with locked(tmp_path / "a", required=False) as descriptor:
                assert descriptor >= 0
    assert caplog.text.count("can't be locked") == 1
    for attempt in (claim, lambda path: locked(path).__enter__()):
        with pytest.raises(OSError, match="not here"):
            attempt(tmp_path / "a")


def test_a_disk_that_fails_is_no_file_system_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _refuse(monkeypatch, "flock", errno.EIO)
    with pytest.raises(OSError, match="not here"), locked(tmp_path / "a", required=False):
        pass


@pytest.mark.parametrize("error", NONE)
def test_without_locks_of_keys_each_process_fills_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: int
) -> None:
    """They only keep processes from asking the store for the same image at once."""
    monkeypatch.setattr(filelock, "_warned_devices", set())
    _refuse(monkeypatch, "fcntl", error)
    locks = KeyLocks(tmp_path / "fills")
    with locks.held("a.png", time.monotonic() + 60), locks.held("a.png", time.monotonic() + 60):
        assert caplog.text.count("can't be locked") == 1
