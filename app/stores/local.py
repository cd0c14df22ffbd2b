"""The default store: a directory on local disk.

    objects/<key>                     the bytes; a file is either complete or absent, never written in place
    metadata/<key>/<version>.json     the sidecar: content type, metadata and SHA-256 of that version
    tmp/                              files that are being written
    lock                              file lock: shared to create objects, exclusive to overwrite or delete

A put creates directories, and a delete removes directories that have become empty. The lock keeps puts and
deletes from interfering with each other.

A version is identified by the file's mtime and size. If the directory was copied with tar, zip or cp, the
mtimes may have changed. In that case, the sidecar is found by the SHA-256 that it contains, and is renamed.
"""

import errno
import hashlib
import heapq
import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from io import BufferedReader
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from app.config.settings import Config
from app.core.errors import AppError, ConfigError, InvalidKey, NotFound, StoreRefused, StoreUnreachable
from app.core.object_keys import is_canonical
from app.core.objects import CONTENT_TYPES, NO_METADATA, ObjectFacts, ObjectPage, PutResult, StoredObject
from app.core.system import EXCLUSIVE, REFUSED, SHARED, claim, locked, sync
from app.stores.base import BaseStore

_ABANDONED_SECONDS = 3600
"""Age in seconds after which a temporary file is removed, since its process must have been killed."""

_NO_LINKS = REFUSED | {errno.EMLINK, errno.EXDEV}
"""Error numbers of link(2) on file systems that support no hard links, such as exFAT and some network mounts,
or that support them only within a directory. After such an error, the put is repeated without a hard link. If
the error had a different cause, the repetition fails too."""

_DISK_FULL = (
    "The disk on which images are stored is full. Nothing was stored. "
    "The server's operator must free some space."
)


class LocalStore(BaseStore):
    """Stores objects as files below `root`. Accepts only canonical keys, which are safe to use as paths."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self._objects = self._root / "objects"
        self._metadata = self._root / "metadata"
        self._tmp = self._root / "tmp"
        self._swept = False
        self._has_hard_links = True

    @classmethod
    def from_config(cls, config: Config) -> Self:
        """Return the store in `LOCAL_STORE_DIR`. Raises `ConfigError` if its directories can't be created."""
        store = cls(config.local_store_dir)
        try:
            for directory in (store._objects, store._metadata, store._tmp):
                directory.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            problem = f"LOCAL_STORE_DIR={config.local_store_dir} can't be used: {exc.strerror}"
            raise ConfigError(problem) from exc
        return store

    def identity(self) -> str:
        """Return a string that contains the path of the directory."""
        return f"local {self._root.resolve()}"

    def put(
        self,
        key: str,
        data: bytes,
        *,
        content_type: str,
        cache_control: str = "",
        metadata: Mapping[str, str] = NO_METADATA,
        overwrite: bool = True,
    ) -> PutResult:
        """Write a temporary file, sync it, and move it into place with a single `rename` or `link`."""
        if not is_canonical(key):
            raise InvalidKey
        sidecar = {
            "content_type": content_type,
            "cache_control": cache_control,
            "metadata": dict(metadata),
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        with _errors_mapped(missing=StoreUnreachable):
            temporary = self._temporary_path()
            try:
                _write_synced(temporary, data)
                return self._publish_locked(key, temporary, sidecar, overwrite)
            finally:
                temporary.unlink(missing_ok=True)

    def get(self, key: str, *, if_none_match: str | None = None) -> StoredObject | None:
        """Open the file. Read the `ObjectFacts` from the open file, so that they and the body belong to the
        same version.
        """
        with _errors_mapped():
            body = open(self._path(key), "rb")  # noqa: SIM115 (the caller closes it)
            facts = self._facts(key, body)
        if facts.etag == if_none_match:
            body.close()
            return None
        return StoredObject(facts, body)

    def head(self, key: str) -> ObjectFacts:
        """Return the `ObjectFacts` of the file."""
        with _errors_mapped(), open(self._path(key), "rb") as body:
            return self._facts(key, body)

    def delete(self, key: str) -> None:
        """Remove the file, then its sidecars, then the directories that have become empty."""
        with suppress(NotFound), _errors_mapped(), locked(self._root / "lock", required=False):
            path = self._path(key)
            path.unlink()
            _sync_directory(path.parent)
            for sidecar in (self._metadata / key).glob("*.json"):
                sidecar.unlink()
            _prune(path.parent, self._objects)
            _prune(self._metadata / key, self._metadata)

    def list(self, prefix: str = "", *, limit: int = 100, cursor: str | None = None) -> ObjectPage:
        """Walk the directories below `prefix`. Select the keys of the page with a heap of the page's size."""
        after = cursor or ""
        with _errors_mapped():
            found = heapq.nsmallest(limit + 1, (k for k in self._keys(prefix) if k > after))
        facts = []
        for key in found[:limit]:
            with suppress(NotFound):
                facts.append(self.head(key))
        return ObjectPage(tuple(facts), found[limit - 1] if len(found) > limit else None)

    def _path(self, key: str) -> Path:
        """Return the path of the object. Raises `NotFound` for a key that can't be stored."""
        path = self._objects / key
        if not is_canonical(key) or os.path.commonpath((self._objects, path)) != str(self._objects):
            raise NotFound
        return path

    def _temporary_path(self) -> Path:
        """Return a new path in `tmp`. The first call in a process removes abandoned files from `tmp`."""
        self._tmp.mkdir(parents=True, exist_ok=True)
        if not self._swept:
            self._swept = True
            for path in self._tmp.iterdir():
                with suppress(FileNotFoundError):
                    if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                        path.unlink()
        return self._tmp / secrets.token_hex(16)

    def _publish_locked(
        self, key: str, temporary: Path, sidecar: dict[str, Any], overwrite: bool
    ) -> PutResult:
        """Publish the file while holding the lock.

        A shared lock suffices if a hard link creates the object.
        """
        if not overwrite and self._has_hard_links:
            try:
                with locked(self._root / "lock", SHARED, required=False):
                    return self._publish(key, temporary, sidecar, overwrite)
            except OSError as exc:
                if exc.errno not in _NO_LINKS:
                    raise
                self._has_hard_links = False
        with locked(self._root / "lock", EXCLUSIVE, required=False):
            return self._publish(key, temporary, sidecar, overwrite)

    def _publish(self, key: str, temporary: Path, sidecar: dict[str, Any], overwrite: bool) -> PutResult:
        """Write the sidecar, then move the file into place, so that no reader finds it without a sidecar."""
        stat = temporary.stat()
        version = _version(stat)
        target = self._path(key)
        self._write_sidecar(key, version, sidecar)
        target.parent.mkdir(parents=True, exist_ok=True)
        created = self._move(temporary, target, overwrite)
        # A new name is durable once its directory and all directories above it have been synced.
        for parent in target.parents[: len(target.relative_to(self._root).parts)]:
            _sync_directory(parent)
        if not created:
            self._remove_sidecar(key, version)
            return PutResult(self.head(key), created)
        if overwrite:
            self._remove_other_sidecars(key, version)
        return PutResult(_facts(key, stat, sidecar), created)

    def _move(self, temporary: Path, target: Path, overwrite: bool) -> bool:
        """Move the file to `target`. Return False if `overwrite` is False and the name is taken."""
        if not overwrite:
            if self._has_hard_links:
                try:
                    target.hardlink_to(temporary)
                except FileExistsError:
                    return False
                return True
            if target.exists():
                return False
        temporary.replace(target)
        return True

    def _write_sidecar(self, key: str, version: str, sidecar: dict[str, Any]) -> None:
        directory = self._metadata / key
        directory.mkdir(parents=True, exist_ok=True)
        with open(directory / f"{version}.json", "w", encoding="utf-8") as file:
            json.dump(sidecar, file)
            file.flush()
            sync(file.fileno())

    def _remove_sidecar(self, key: str, version: str) -> None:
        (self._metadata / key / f"{version}.json").unlink(missing_ok=True)

    def _remove_other_sidecars(self, key: str, version: str) -> None:
        """Remove all sidecars of `key` except that of `version`. The caller must hold the exclusive lock."""
        for path in (self._metadata / key).glob("*.json"):
            if path.stem != version:
                self._remove_sidecar(key, path.stem)

    def _facts(self, key: str, body: BufferedReader) -> ObjectFacts:
        stat = os.fstat(body.fileno())
        return _facts(key, stat, self._sidecar(key, body, stat))

    def _sidecar(self, key: str, body: BufferedReader, stat: os.stat_result) -> dict[str, Any]:
        """Return the content of the open file's sidecar, or an empty dict if the file has no sidecar."""
        directory = self._metadata / key
        path = directory / f"{_version(stat)}.json"
        if (found := _load_json(path)) is not None:
            return found
        others = {other: loaded for other in directory.glob("*.json") if (loaded := _load_json(other))}
        if not others:
            return {}
        digest = hashlib.file_digest(body, "sha256").hexdigest()
        body.seek(0)
        for other, loaded in others.items():
            # Old sidecars have no digest. If there is only one sidecar, it belongs to the latest put.
            is_old = "sha256" not in loaded and len(others) == 1
            if loaded.get("sha256") == digest or (is_old and _size_in(other) == stat.st_size):
                self._adopt(key, _version(stat), loaded)
                return loaded
        return {}

    def _adopt(self, key: str, version: str, sidecar: dict[str, Any]) -> None:
        """Rename a sidecar that was found by its digest, so that the next read finds it by its name.

        Do nothing if another process holds the lock, or if the directory is not writable.
        """
        with suppress(OSError):
            held = claim(self._root / "lock")
            if held is None:
                return
            try:
                if _version(self._path(key).stat()) == version:
                    self._write_sidecar(key, version, sidecar)
                    self._remove_other_sidecars(key, version)
            finally:
                os.close(held)

    def _keys(self, prefix: str) -> Iterator[str]:
        folder = prefix.rpartition("/")[0]
        if folder and not is_canonical(f"{folder}/x.png"):
            return
        for directory, _, names in os.walk(self._objects / folder):
            parent = Path(directory).relative_to(self._objects)
            for name in names:
                key = (parent / name).as_posix()
                if key.startswith(prefix) and is_canonical(key):
                    yield key


def _write_synced(path: Path, data: bytes) -> None:
    """Write and sync a new file. Set its mtime, which is part of its version, with nanosecond precision."""
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        with suppress(OSError):  # if this fails, the mtime is only as exact as the file system's own times
            os.utime(file.fileno(), ns=(now := time.time_ns(), now))
        sync(file.fileno())


def _facts(key: str, stat: os.stat_result, sidecar: dict[str, Any]) -> ObjectFacts:
    modified = datetime.fromtimestamp(stat.st_mtime_ns // 10**9, UTC)
    guessed = CONTENT_TYPES.get(key.rpartition(".")[2], "application/octet-stream")
    content_type = sidecar.get("content_type", guessed)
    metadata = MappingProxyType(sidecar.get("metadata", {}))
    # On a file system with coarse times, two versions may have the same mtime, but never the same digest.
    tag = sidecar["sha256"][:32] if "sha256" in sidecar else _version(stat)
    return ObjectFacts(key, stat.st_size, content_type, f'"{tag}"', modified, metadata)


def _version(stat: os.stat_result) -> str:
    return f"{stat.st_mtime_ns:016x}-{stat.st_size:x}"


def _size_in(sidecar: Path) -> int:
    """Return the file size that the name of a sidecar contains, or -1 if the name is not a version."""
    try:
        return int(sidecar.stem.rpartition("-")[2], 16)
    except ValueError:
        return -1


def _load_json(path: Path) -> dict[str, Any] | None:
    """Return the JSON object in the file, or None if it can't be read or is not a JSON object."""
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return loaded if isinstance(loaded, dict) else None


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def _prune(directory: Path, root: Path) -> None:
    """Remove `directory` and its parents below `root`. Stop at the first that is not empty."""
    with suppress(OSError):
        while directory != root:
            directory.rmdir()
            directory = directory.parent


@contextmanager
def _errors_mapped(missing: type[AppError] = NotFound) -> Iterator[None]:
    """Turn each `OSError` inside the block into an `AppError`. For a missing file, raise `missing`."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as exc:
        raise missing(detail=str(exc)) from exc
    except PermissionError as exc:
        raise StoreRefused(detail=str(exc)) from exc
    except OSError as exc:
        full = _DISK_FULL if exc.errno in (errno.ENOSPC, errno.EDQUOT) else None
        raise StoreUnreachable(full, detail=str(exc)) from exc
