"""The local store: the contract, and what a directory adds to it."""

import errno
import fcntl
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from app.config import Config
from app.errors import ConfigError, InvalidKey, NotFound, StoreRefused, StoreUnreachable
from app.stores.base import BaseStore
from app.stores.local import LocalStore
from tests.contracts import StoreContract


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The directory of the store."""
    return tmp_path / "store"


class TestLocalStore(StoreContract):
    """The contract over a directory."""

    @pytest.fixture
    def store(self, root: Path) -> BaseStore:
        """A store in an empty directory."""
        return LocalStore(root)


def _put(store: BaseStore, key: str, data: bytes = b"bytes") -> None:
    store.put(key, data, content_type="image/png")


def _files(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "key", ["../x.png", "a/../../x.png", "/etc/x.png", "a//b.png", "a\0.png", "x", ".a.png"]
)
def test_no_other_key_becomes_a_path(root: Path, key: str) -> None:
    store = LocalStore(root)
    with pytest.raises(InvalidKey):
        _put(store, key)
    with pytest.raises(NotFound):
        store.get(key)
    store.delete(key)
    assert not root.exists() or _files(root) <= {"lock"}


def test_another_instance_sees_the_same(root: Path) -> None:
    _put(LocalStore(root), "a/b.png")
    assert LocalStore(root).head("a/b.png") == LocalStore(root).head("a/b.png")
    assert LocalStore(root).exists("a/b.png")


def test_delete_leaves_nothing_behind(root: Path) -> None:
    store = LocalStore(root)
    _put(store, "a/b/c.png")
    store.delete("a/b/c.png")
    assert _files(root) == {"lock"}
    assert not list((root / "objects").iterdir())
    assert not list((root / "metadata").iterdir())


def test_overwriting_leaves_one_version(root: Path) -> None:
    store = LocalStore(root)
    for data in (b"1", b"22", b"333"):
        _put(store, "a.png", data)
    assert len(_files(root / "metadata")) == 1
    assert not _files(root / "tmp")


def test_a_refused_put_leaves_no_temporary_file(root: Path) -> None:
    store = LocalStore(root)
    _put(store, "a.png")
    store.put("a.png", b"other", content_type="image/png", overwrite=False)
    assert not _files(root / "tmp")
    assert len(_files(root / "metadata")) == 1


def test_a_file_laid_there_by_hand_is_served(root: Path) -> None:
    store = LocalStore(root)
    (root / "objects" / "album").mkdir(parents=True)
    (root / "objects" / "album" / "cat.webp").write_bytes(b"meow")
    assert store.head("album/cat.webp").content_type == "image/webp"
    assert [facts.key for facts in store.list("album/").objects] == ["album/cat.webp"]


def test_broken_metadata_does_not_hide_the_image(root: Path) -> None:
    store = LocalStore(root)
    _put(store, "a.png")
    for path in (root / "metadata").rglob("*.json"):
        path.write_text("[not metadata", encoding="utf-8")
    assert store.head("a.png").content_type == "image/png"


def test_what_killed_processes_left_is_swept(root: Path) -> None:
    (root / "tmp").mkdir(parents=True)
    for name, age in (("old", 7200), ("new", 10)):
        path = root / "tmp" / name
        path.write_bytes(b"half")
        os.utime(path, (time.time() - age, time.time() - age))
    _put(LocalStore(root), "a.png")
    assert _files(root / "tmp") == {"new"}


def test_a_directory_that_refuses_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StoreRefused):
        _put(LocalStore(root), "a.png")
    assert not LocalStore(root).exists("a.png")


def test_a_full_disk_is_an_outage_and_leaves_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreUnreachable, match="is full"):
        _put(LocalStore(root), "a.png")
    monkeypatch.undo()
    assert not _files(root / "tmp")
    assert not LocalStore(root).exists("a.png")


def test_an_unusable_directory_is_told_at_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    config = Config.from_env(
        {"LOCAL_STORE_DIR": str(tmp_path / "file"), "CACHE_DIR": str(tmp_path / "cache")}
    )
    with pytest.raises(ConfigError, match="LOCAL_STORE_DIR="):
        LocalStore.from_config(config)


def test_a_directory_that_went_is_an_outage_and_no_missing_image(root: Path) -> None:
    store = LocalStore(root)
    _put(store, "a.png")
    shutil.rmtree(root)
    root.write_bytes(b"")
    with pytest.raises(StoreUnreachable):
        _put(store, "b.png")


@pytest.mark.parametrize(
    ("module", "name", "error"),
    [
        (os, "utime", errno.EPERM),
        (os, "fsync", errno.EINVAL),
        (os, "fsync", errno.EOPNOTSUPP),
        (fcntl, "flock", errno.ENOLCK),
    ],
)
def test_a_file_system_without_what_is_not_needed_does(
    root: Path, monkeypatch: pytest.MonkeyPatch, module: Any, name: str, error: int
) -> None:
    """No times to set, no directories to sync, no locks of any kind."""

    def refused(*arguments: Any, **options: Any) -> None:
        raise OSError(error, "not here")

    monkeypatch.setattr(module, name, refused)
    if module is fcntl:
        monkeypatch.setattr(fcntl, "fcntl", refused)
    store = LocalStore(root)
    for data in (b"bytes", b"others"):
        _put(store, "a/b.png", data)
        with store.get("a/b.png") as stored:  # type: ignore[union-attr]
            assert stored.body.read() == data
    store.delete("a/b.png")
    with pytest.raises(NotFound):
        store.head("a/b.png")


def test_a_disk_that_fails_to_sync_is_an_outage(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(descriptor: int) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(StoreUnreachable):
        _put(LocalStore(root), "a/b.png")
