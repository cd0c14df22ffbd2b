"""File locks on systems that lack one or all kinds of them, and the mount table."""

import errno
import fcntl
import logging
from pathlib import Path
from typing import Any

import pytest

from app.core import system
from app.core.system import SHARED, Mount, claim, locked, mount_of, opened, try_lock

NONE = [errno.ENOLCK, errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL]


def _refuse(monkeypatch: pytest.MonkeyPatch, name: str, error: int) -> None:
    def refused(*arguments: Any) -> None:
        raise OSError(error, "not here")

    monkeypatch.setattr(fcntl, name, refused)


@pytest.mark.parametrize("error", NONE)
def test_without_flock_open_file_description_locks_exclude_others(
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
def test_without_any_locks_optional_locks_are_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: int
) -> None:
    monkeypatch.setattr(system, "_warned_devices", set())
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


def test_a_disk_error_does_not_count_as_missing_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _refuse(monkeypatch, "flock", errno.EIO)
    with pytest.raises(OSError, match="not here"), locked(tmp_path / "a", required=False):
        pass


TABLE = r"""21 1 254:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
22 21 0:40 / /srv rw,relatime shared:2 master:1 - nfs4 server:/srv rw,vers=4.2
23 21 0:41 / /srv/images rw - xfs /dev/sdb1 rw
24 21 0:42 / /srv/my\040images rw - tmpfs tmpfs rw
25 23 0:43 / /srv/images rw - btrfs /dev/sdc1 rw
"""

PLACES = [
    ("/home/images", Mount("/", "ext4")),
    ("/srv", Mount("/srv", "nfs4")),
    ("/srv/cache", Mount("/srv", "nfs4")),
    ("/srvs", Mount("/", "ext4")),
    ("/srv/my images/cache", Mount("/srv/my images", "tmpfs")),
    ("/srv/images/a/b", Mount("/srv/images", "btrfs")),
]


@pytest.mark.parametrize(("directory", "expected"), PLACES)
def test_the_deepest_and_latest_mount_is_returned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, directory: str, expected: Mount
) -> None:
    (tmp_path / "mountinfo").write_text(TABLE)
    monkeypatch.setattr(system, "MOUNT_TABLE", str(tmp_path / "mountinfo"))
    assert mount_of(directory) == expected


def test_the_mount_of_a_directory_on_this_machine(tmp_path: Path) -> None:
    found = mount_of(tmp_path)
    assert found is None or tmp_path.resolve().is_relative_to(found.point)
