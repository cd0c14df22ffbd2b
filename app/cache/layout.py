"""The layout of the cache directory, and the operations that move files into it and remove them.

objects/<key>           images proven to be immutable; a front server such as nginx can serve them by key
named/<key>             mutable images; only the application may serve them, since it revalidates them
unproven/<key>          images that an older version kept in objects, not yet compared with their digests
opaque/<2 hex>/<hash>   images whose keys are not safe as a path, named by the SHA-256 of the key
variants/<key>/<name>   listed variants of immutable images; a front server may serve them
guarded/<key>/<name>    other variants of immutable images; only the application may serve them
derived/<2 hex>/<hash>/ variants of mutable images; the hash is the SHA-256 of the image's key
tmp/<owner>/            files that one process is writing
tmp/<owner>.lock        locked by that process for its whole lifetime
locks/fills             a process that fetches a key from the store locks one byte of this file
locks/index, rebuild    locked by the process that is creating or rebuilding the index
locks/origin, listed    locked while the store or the listed variants of this cache are being recorded
locks/counts-<n>        locked by the process that counts in slot n
epochs                  counters of changes to keys
counts                  counters of hits and misses
origin                  hash that identifies the store from which the images came
listed                  names and specs of the variants that the settings list
index.sqlite3           metadata of the images
"""

import hashlib
import os
import shutil
from collections.abc import Container, Iterator
from contextlib import suppress
from pathlib import Path

from app.core.object_keys import is_canonical, looks_immutable
from app.core.objects import ObjectFacts
from app.core.variant_keys import (
    AREAS,
    GUARDED,
    LISTED,
    can_have_variants,
    is_variant_key,
    source_of,
    variant_name,
)


class Layout:
    """The paths in one cache directory, and the operations that move and remove its files."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.tmp = self.root / "tmp"
        self.locks = self.root / "locks"
        self.epochs = self.root / "epochs"
        self.counts = self.root / "counts"
        self.origin = self.root / "origin"
        self.listed = self.root / "listed"
        self.index = self.root / "index.sqlite3"
        self.index_files = (self.index, self.root / "index.sqlite3-wal", self.root / "index.sqlite3-shm")
        self._immutable = f"{self.root}/objects/"
        self._named = f"{self.root}/named/"
        self._opaque = f"{self.root}/opaque/"
        self._unproven = f"{self.root}/unproven/"
        self._derived = f"{self.root}/derived/"
        self._variants = tuple(f"{self.root}{area}" for area in AREAS)
        self._roots = {self._immutable, self._named, self._opaque, self._derived, *self._variants}

    def immutable_path(self, key: str) -> str:
        """Return the path that the file of `key` has if the object is immutable."""
        return f"{self.root}{key}" if is_variant_key(key) else self._immutable + key

    def mutable_path(self, key: str) -> str:
        """Return the path that the file of `key` has if the object is mutable."""
        if is_variant_key(key):
            area, _, rest = key[1:].partition("/")
            return f"{self._derived_directory(source_of(key))}/{area}-{rest.rpartition('/')[2]}"
        if is_canonical(key):
            return self._named + key
        digest = _digest(key)
        return f"{self._opaque}{digest[:2]}/{digest}"

    def path_of(self, facts: ObjectFacts) -> str:
        """Return the path of the object's file."""
        return self.immutable_path(facts.key) if facts.is_immutable else self.mutable_path(facts.key)

    def paths(self, key: str) -> tuple[str, ...]:
        """Return all paths that the file of `key` may have. At most one of them exists."""
        if looks_immutable(source_of(key)):
            return self.immutable_path(key), self.mutable_path(key)
        return (self.mutable_path(key),)

    def variant_paths(self, key: str) -> list[str]:
        """Return the paths of the files of all variants of the image `key`."""
        return [path for directory in self._variant_directories(key) for path in _files_in(directory)]

    def remove_variants(self, names: Container[str]) -> None:
        """Remove the files of all variants with these names, of all immutable images."""
        for root in self._variants:
            for path in _files_below(root):
                if variant_name(path) in names:
                    self.remove(path)

    def has_variants(self, key: str) -> bool:
        """Return whether there are files of variants of the image `key`."""
        return any(map(os.path.isdir, self._variant_directories(key)))

    def is_immutable_path(self, path: str) -> bool:
        """Return whether `path` belongs to the file of an immutable object."""
        return path.startswith((self._immutable, *self._variants))

    def key_of(self, path: str) -> str | None:
        """Return the key of the object whose file is at `path`, or None if the path contains only a hash."""
        for root in (self._immutable, self._named):
            if path.startswith(root):
                return path[len(root) :]
        return path[len(str(self.root)) :] if path.startswith(self._variants) else None

    def install(self, written: str, facts: ObjectFacts) -> int:
        """Move a written file to the object's path. If there is a file at the object's other path, remove it.

        Return by how many bytes the directories grew.
        """
        path = self.path_of(facts)
        freed = sum(self.remove(other) for other in self.paths(facts.key) if other != path)
        return self.move_in(written, path) - freed

    def move_in(self, written: str, path: str) -> int:
        """Move a file to `path`, creating its directories. Return by how many bytes the directories grew."""
        directory = os.path.dirname(path)
        created = _create_directories(directory)
        before = 0 if created else _bytes_on_disk(directory)
        os.replace(written, path)
        return sum(map(_bytes_on_disk, created)) if created else _bytes_on_disk(directory) - before

    def remove_files(self, key: str) -> int:
        """Remove the file of `key`. Return the size on disk of the directories that were removed with it."""
        return sum(map(self.remove, self.paths(key)))

    def remove(self, path: str) -> int:
        """Remove the file at `path`, if it exists, and all directories that are then empty.

        Return the size on disk of the removed directories.
        """
        with suppress(FileNotFoundError, NotADirectoryError):
            os.unlink(path)
        return self.remove_empty_directories(path)

    def remove_empty_directories(self, path: str) -> int:
        """Remove the directories above `path` that are empty. Return their size on disk."""
        freed = 0
        directory = os.path.dirname(path)
        while f"{directory}/" not in self._roots:
            try:
                size = _bytes_on_disk(directory)
                os.rmdir(directory)
                freed += size
            except FileNotFoundError:
                pass
            except OSError:
                break
            directory = os.path.dirname(directory)
        return freed

    def files(self) -> Iterator[str]:
        """Yield the path of each object's file."""
        for root in sorted(self._roots):
            yield from _files_below(root)

    def adoptable_files(self) -> Iterator[tuple[str, str]]:
        """Yield the key and the path of each file that may be kept even if it has no row in the index."""
        for root in (self._immutable, self._unproven):
            for path in _files_below(root):
                yield path[len(root) :], path
        for root in self._variants:
            for path in _files_below(root):
                yield path[len(str(self.root)) :], path

    def create(self) -> None:
        """Create the directories. Raises `OSError`."""
        for directory in (*map(Path, self._roots), self.tmp, self.locks):
            directory.mkdir(parents=True, exist_ok=True)

    def exists(self) -> bool:
        """Return whether the cache directory and its index exist."""
        return self.tmp.is_dir() and self.index.is_file()

    def has_files(self) -> bool:
        """Return whether there are files that need rows in the index."""
        for root in (*self._roots, self._unproven):
            with suppress(FileNotFoundError), os.scandir(root) as entries:
                if any(entries):
                    return True
        return False

    def directories_bytes(self) -> int:
        """Return the total size on disk of the directories in which the objects' files are."""
        return sum(_directories_bytes(root) for root in self._roots)

    def set_objects_aside(self) -> None:
        """Move the files in `objects` to `unproven`, from which nothing is served. Remove all variants."""
        for root in self._variants:
            _empty(root)
        with suppress(OSError):  # `unproven` already has files
            os.rename(self._immutable, self._unproven)
        os.makedirs(self._immutable, exist_ok=True)

    def remove_unproven(self) -> None:
        """Remove the files that are left in `unproven`."""
        shutil.rmtree(self._unproven, ignore_errors=True)

    def remove_mutable_files(self) -> None:
        """Remove the files of mutable objects. Without the index, their metadata is unknown."""
        for root in (self._named, self._opaque, self._derived):
            _empty(root)

    def remove_everything(self) -> None:
        """Remove the index and the files of all objects."""
        for path in self.index_files:
            path.unlink(missing_ok=True)
        self.remove_unproven()
        for root in self._roots:
            _empty(root)

    def _variant_directories(self, key: str) -> tuple[str, ...]:
        if not can_have_variants(key):
            return ()
        derived = self._derived_directory(key)
        if looks_immutable(key):
            return (f"{self.root}{LISTED}{key}", f"{self.root}{GUARDED}{key}", derived)
        return (derived,)

    def _derived_directory(self, source: str) -> str:
        digest = _digest(source)
        return f"{self._derived}{digest[:2]}/{digest}"


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _files_in(directory: str) -> list[str]:
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(directory) as entries:
        return [entry.path for entry in entries]
    return []


def _empty(directory: str) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    os.makedirs(directory, exist_ok=True)


def _files_below(root: str) -> Iterator[str]:
    for directory, _, names in os.walk(root):
        for name in names:
            yield os.path.join(directory, name)


def _create_directories(directory: str) -> list[str]:
    """Create `directory` and its missing parents. Return the directories that were created."""
    missing = []
    while not os.path.isdir(directory):
        missing.append(directory)
        directory = os.path.dirname(directory)
    created: list[str] = []
    for directory in reversed(missing):
        with suppress(FileExistsError):
            os.mkdir(directory)
            created.append(directory)
    return created


def _directories_bytes(root: str) -> int:
    """Return the total size on disk of the directories below `root`.

    On file systems that count links, a directory with two links has no subdirectories.
    """
    if os.stat(root).st_nlink == 2:
        return 0
    with os.scandir(root) as entries:
        below = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    return sum(_bytes_on_disk(path) + _directories_bytes(path) for path in below)


def _bytes_on_disk(path: str) -> int:
    """Return the size on disk of a directory, which grows with the number of entries and never shrinks."""
    return os.stat(path).st_blocks * 512
