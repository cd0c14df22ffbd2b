"""The local store: the contract, and the behavior of its files."""

import errno
import fcntl
import json
import os
import shutil
import stat
import tarfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from app.config.settings import Config
from app.core.errors import ConfigError, InvalidKey, NotFound, StoreRefused, StoreUnreachable
from app.stores import local
from app.stores.base import BaseStore
from app.stores.local import LocalStore
from tests.contracts import StoreContract


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return the directory of the store."""
    return tmp_path / "store"


class TestLocalStore(StoreContract):
    """The contract for a store in a directory."""

    @pytest.fixture
    def store(self, root: Path) -> BaseStore:
        """Return a store in an empty directory."""
        return LocalStore(root)


def _put(store: BaseStore, key: str, data: bytes = b"bytes") -> None:
    store.put(key, data, content_type="image/png")


def _files(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "key", ["../x.png", "a/../../x.png", "/etc/x.png", "a//b.png", "a\0.png", "x", ".a.png"]
)
def test_only_canonical_keys_become_paths(root: Path, key: str) -> None:
    store = LocalStore(root)
    with pytest.raises(InvalidKey):
        _put(store, key)
    with pytest.raises(NotFound):
        store.get(key)
    store.delete(key)
    assert not root.exists() or _files(root) <= {"lock"}


def test_instances_share_a_directory(root: Path) -> None:
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


def test_a_put_that_creates_nothing_leaves_no_temporary_file(root: Path) -> None:
    store = LocalStore(root)
    _put(store, "a.png")
    store.put("a.png", b"other", content_type="image/png", overwrite=False)
    assert not _files(root / "tmp")
    assert len(_files(root / "metadata")) == 1


def test_a_file_put_there_by_hand_is_served(root: Path) -> None:
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


def test_temporary_files_of_killed_processes_are_removed(root: Path) -> None:
    (root / "tmp").mkdir(parents=True)
    for name, age in (("old", 7200), ("new", 10)):
        path = root / "tmp" / name
        path.write_bytes(b"half")
        os.utime(path, (time.time() - age, time.time() - age))
    _put(LocalStore(root), "a.png")
    assert _files(root / "tmp") == {"new"}


def test_a_permission_error_raises_store_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_an_unusable_directory_is_reported_at_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    config = Config.from_env(
        {"LOCAL_STORE_DIR": str(tmp_path / "file"), "CACHE_DIR": str(tmp_path / "cache")}
    )
    with pytest.raises(ConfigError, match="LOCAL_STORE_DIR="):
        LocalStore.from_config(config)


def _copied_by_cp(root: Path, copy: Path) -> None:
    shutil.copytree(root, copy, copy_function=shutil.copyfile)


def _copied_by_tar(root: Path, copy: Path) -> None:
    """Copy the directory with times in whole seconds, as tar's usual format stores them."""
    with tarfile.open(copy.with_suffix(".tar"), "w", format=tarfile.USTAR_FORMAT) as archive:
        archive.add(root, ".")
    with tarfile.open(copy.with_suffix(".tar")) as archive:
        archive.extractall(copy, filter="tar")


def _copied_by_zip(root: Path, copy: Path) -> None:
    """Copy the directory. The files get the time of the copy."""
    shutil.unpack_archive(shutil.make_archive(str(copy), "zip", root), copy)


@pytest.mark.parametrize("copied", [_copied_by_cp, _copied_by_tar, _copied_by_zip])
def test_a_copied_store_keeps_metadata_and_entity_tags(
    root: Path, tmp_path: Path, copied: Callable[[Path, Path], None]
) -> None:
    store = LocalStore(root)
    for name in ("a.png", "b/c.png"):
        put = store.put(name, name.encode(), content_type="image/png", metadata={"prompt": f"of {name}"})
        assert put.facts == store.head(name)
    time.sleep(0.01)
    copied(root, tmp_path / "copy")
    copy = LocalStore(tmp_path / "copy")
    for name in ("a.png", "b/c.png"):
        for _ in range(2):  # found by its digest, then renamed to the mtime of the copy
            facts = copy.head(name)
            assert facts.metadata == {"prompt": f"of {name}"}
            assert facts.etag == store.head(name).etag
        stored = copy.get(name)
        assert stored is not None
        with stored:
            assert stored.body.read() == name.encode()
    assert len(_files(tmp_path / "copy" / "metadata")) == 2
    version = f"{(tmp_path / 'copy/objects/a.png').stat().st_mtime_ns:016x}-5"
    assert (tmp_path / "copy" / "metadata" / "a.png" / f"{version}.json").is_file()


def test_a_read_only_copy_keeps_its_metadata(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(root)
    store.put("a.png", b"bytes", content_type="image/png", metadata={"prompt": "x"})
    os.utime(root / "objects" / "a.png", (1, 1))
    monkeypatch.setattr(local, "claim", _refusing(errno.EROFS))
    assert store.head("a.png").metadata == {"prompt": "x"}


def _age(sidecar: Path) -> None:
    """Remove the digest from the sidecar, since early versions wrote none."""
    loaded = json.loads(sidecar.read_text(encoding="utf-8"))
    del loaded["sha256"]
    sidecar.write_text(json.dumps(loaded), encoding="utf-8")


def test_a_copy_with_sidecars_of_an_early_version_keeps_its_metadata(root: Path, tmp_path: Path) -> None:
    store = LocalStore(root)
    store.put("a.png", b"bytes", content_type="image/png", metadata={"prompt": "x"})
    store.put("b.png", b"bytes", content_type="image/png", metadata={"prompt": "y"})
    for sidecar in (root / "metadata").rglob("*.json"):
        _age(sidecar)
    time.sleep(0.01)
    _copied_by_cp(root, tmp_path / "copy")
    copy = LocalStore(tmp_path / "copy")
    assert [copy.head(key).metadata for key in ("a.png", "b.png")] == [{"prompt": "x"}, {"prompt": "y"}]
    assert copy.head("a.png") == copy.head("a.png")
    (tmp_path / "copy" / "objects" / "a.png").write_bytes(b"others")
    assert copy.head("a.png").metadata == {}


def test_bytes_replaced_by_hand_have_no_metadata(root: Path) -> None:
    store = LocalStore(root)
    facts = store.put("a.png", b"bytes", content_type="image/png", metadata={"prompt": "x"}).facts
    (root / "objects" / "a.png").write_bytes(b"BYTES")
    assert store.head("a.png").metadata == {}
    assert store.head("a.png").etag != facts.etag


def test_versions_with_the_same_time_have_different_entity_tags(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some file systems store times in steps of two seconds."""
    monkeypatch.setattr(time, "time_ns", lambda: 2 * 10**18)
    store = LocalStore(root)
    tags = [store.put("a.png", data, content_type="image/png").facts.etag for data in (b"one", b"two")]
    assert tags[0] != tags[1]
    assert store.head("a.png").etag == tags[1]


def _refusing(error: int) -> Callable[..., Any]:
    def refuse(*args: object, **kwargs: object) -> Any:
        raise OSError(error, os.strerror(error))

    return refuse


NO_LINKS = pytest.mark.parametrize(
    "error",
    [errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EMLINK, errno.EXDEV],
    ids=errno.errorcode.get,
)


class TestWithoutHardLinks(StoreContract):
    """The contract on a file system such as exFAT."""

    @pytest.fixture
    def store(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> BaseStore:
        """Return a store in an empty directory."""
        monkeypatch.setattr(os, "link", _refusing(errno.EPERM))
        return LocalStore(root)


@NO_LINKS
def test_one_of_many_puts_creates_the_object_without_hard_links(
    root: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    monkeypatch.setattr(os, "link", _refusing(error))
    stores = [LocalStore(root) for _ in range(16)]

    def put(number: int) -> bool:
        data = b"%d" % number
        return stores[number].put("a.png", data, content_type="image/png", overwrite=False).created

    with ThreadPoolExecutor(16) as pool:
        created = list(pool.map(put, range(16)))
    assert sorted(created) == [False] * 15 + [True]
    with open(root / "objects" / "a.png", "rb") as file:
        assert file.read() == b"%d" % created.index(True)
    assert len(_files(root / "metadata")) == 1
    assert not _files(root / "tmp")


def test_other_errors_of_link_are_outages(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", _refusing(errno.EIO))
    with pytest.raises(StoreUnreachable):
        LocalStore(root).put("a.png", b"x", content_type="image/png", overwrite=False)


@pytest.mark.parametrize("error", [errno.EINVAL, errno.EOPNOTSUPP])
def test_directories_that_can_not_be_synced_cause_no_error(
    root: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    sync = os.fsync

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(error, os.strerror(error))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    _put(LocalStore(root), "a/b.png")
    assert LocalStore(root).exists("a/b.png")


def test_a_lost_directory_is_an_outage(root: Path) -> None:
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
def test_times_syncs_and_locks_are_optional(
    root: Path, monkeypatch: pytest.MonkeyPatch, module: Any, name: str, error: int
) -> None:
    """Setting times, syncing directories and locking may all fail."""

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
