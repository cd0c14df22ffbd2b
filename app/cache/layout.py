"""Where things lie in the cache directory, and the bytes that they take there.

objects/<key>           images proven to be immutable; the path is the key, so a front server can answer hits
named/<key>             mutable images, which only we may serve, since only we revalidate them
unproven/<key>          what an older version kept in objects, until its bytes are compared with their key
opaque/<2 hex>/<hash>   images under keys that are not safe as a path, by the SHA-256 of the key
tmp/<owner>/            files being written by one process
tmp/<owner>.lock        held by that process as long as it lives
locks/fills             a byte of it is held by the process that asks the store for a key
locks/index, rebuild    held by the process that makes the index, or makes it anew
locks/counts-<n>        held by the process that counts in the slot of this number
epochs                  counters of changes
counts                  counters of hits and misses
index.sqlite3           facts about the files
"""

import hashlib
import os
import shutil
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from app.core.object_keys import is_canonical, looks_immutable
from app.core.objects import ObjectFacts

BLOCK = 4096
"""What file systems hand out space by, mostly; a directory takes at least one block as well."""

SLOTS = 1024
"""Keys are told apart by slot where a counter for each would have no bound."""


def slot_of(key: str) -> int:
    """The slot of `key`, the same in every process."""
    return zlib.crc32(key.encode("utf-8", "surrogatepass")) % SLOTS


def disk_bytes(size: int) -> int:
    """The space that a file of `size` bytes takes."""
    return -(-size // BLOCK) * BLOCK


class Layout:
    """The paths below one cache directory."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.tmp = self.root / "tmp"
        self.locks = self.root / "locks"
        self.index = self.root / "index.sqlite3"
        self.epochs = self.root / "epochs"
        self.counts = self.root / "counts"
        self.origin = self.root / "origin"
        self._immutable = f"{self.root}/objects/"
        self._named = f"{self.root}/named/"
        self._opaque = f"{self.root}/opaque/"
        self._unproven = f"{self.root}/unproven/"
        self._roots = {self._immutable, self._named, self._opaque}

    def make(self) -> None:
        """Make the directories; raises `OSError` where that is not possible."""
        for directory in (*map(Path, self._roots), self.tmp, self.locks):
            directory.mkdir(parents=True, exist_ok=True)

    def immutable_path(self, key: str) -> str:
        """Where the bytes of an immutable object lie."""
        return self._immutable + key

    def mutable_path(self, key: str) -> str:
        """Where the bytes of a mutable object lie."""
        if is_canonical(key):
            return self._named + key
        digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
        return f"{self._opaque}{digest[:2]}/{digest}"

    def path_of(self, facts: ObjectFacts) -> str:
        """Where the object's bytes lie."""
        return self.immutable_path(facts.key) if facts.is_immutable else self.mutable_path(facts.key)

    def paths(self, key: str) -> tuple[str, ...]:
        """All paths at which the bytes of `key` may lie; there is a file at one of them at most."""
        if looks_immutable(key):
            return self._immutable + key, self._named + key
        return (self.mutable_path(key),)

    def is_immutable_path(self, path: str) -> bool:
        """Return whether only immutable objects lie there."""
        return path.startswith(self._immutable)

    def parents_bytes(self, path: str) -> int:
        """The most that directories made for `path` can take."""
        return BLOCK * (path.count("/") - self._immutable.count("/") + 1)

    def move_in(self, written: str, path: str) -> int:
        """Move a file into place, making the directories above it; the bytes by which directories grew."""
        directory = os.path.dirname(path)
        made = _make_directories(directory)
        before = 0 if made else _taken(directory)
        os.replace(written, path)
        return sum(map(_taken, made)) if made else _taken(directory) - before

    def remove(self, path: str) -> int:
        """Remove a file, if it is there, and the directories left empty; the bytes that those took."""
        with suppress(FileNotFoundError, NotADirectoryError):
            os.unlink(path)
        freed = 0
        directory = os.path.dirname(path)
        while f"{directory}/" not in self._roots:
            try:
                taken = _taken(directory)
                os.rmdir(directory)
                freed += taken
            except FileNotFoundError:
                pass
            except OSError:
                break
            directory = os.path.dirname(directory)
        return freed

    def is_there(self) -> bool:
        """Whether the directory and the index in it can be found."""
        return self.tmp.is_dir() and self.index.is_file()

    def index_logs(self) -> tuple[Path, Path]:
        """What SQLite keeps beside the index."""
        return self.root / f"{self.index.name}-wal", self.root / f"{self.index.name}-shm"

    def index_bytes(self) -> int:
        """What the index takes right now, with what SQLite keeps beside it."""
        taken = 0
        for path in (self.index, *self.index_logs()):
            try:
                taken += os.stat(path).st_blocks * 512
            except FileNotFoundError:
                continue
        return taken

    def has_files(self) -> bool:
        """Whether there is anything that a row would have to tell of."""
        for root in (*self._roots, self._unproven):
            with suppress(FileNotFoundError), os.scandir(root) as entries:
                if any(entries):
                    return True
        return False

    def set_objects_aside(self) -> None:
        """Move what lies in `objects` to `unproven`, if that is free; nothing is served from there."""
        with suppress(OSError):
            os.rename(self._immutable, self._unproven)
        os.makedirs(self._immutable, exist_ok=True)

    def remove_unproven(self) -> None:
        """Remove what is left of `unproven`."""
        shutil.rmtree(self._unproven, ignore_errors=True)

    def kept_files(self) -> Iterator[tuple[str, str]]:
        """Key and path of each file that may be kept without a row."""
        for root in (self._immutable, self._unproven):
            for directory, _, names in os.walk(root):
                for name in names:
                    path = os.path.join(directory, name)
                    yield path[len(root) :], path

    def key_of(self, path: str) -> str | None:
        """The key whose object lies at `path`; None where the path doesn't say."""
        for root in (self._immutable, self._named):
            if path.startswith(root):
                return path[len(root) :]
        return None

    def files(self) -> Iterator[str]:
        """The path of each object's file."""
        for root in sorted(self._roots):
            for directory, _, names in os.walk(root):
                for name in names:
                    yield os.path.join(directory, name)

    def directories_bytes(self) -> int:
        """What the directories below the roots take."""
        return sum(_directories_below(root) for root in self._roots)

    def remove_everything(self) -> None:
        """Remove the index and all files."""
        for path in (self.index, *self.index_logs()):
            path.unlink(missing_ok=True)
        self.remove_unproven()
        for root in self._roots:
            shutil.rmtree(root, ignore_errors=True)
            os.makedirs(root, exist_ok=True)

    def remove_mutable_files(self) -> None:
        """Remove the files that nothing but a row can explain."""
        for root in (self._named, self._opaque):
            shutil.rmtree(root, ignore_errors=True)
            os.makedirs(root, exist_ok=True)


def _directories_below(root: str) -> int:
    """The bytes of the directories in `root`; one with two links has none in it, where links are counted."""
    if os.stat(root).st_nlink == 2:
        return 0
    with os.scandir(root) as entries:
        below = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    return sum(_taken(path) + _directories_below(path) for path in below)


def _taken(path: str) -> int:
    """A directory grows with its entries and never shrinks."""
    return os.stat(path).st_blocks * 512


def _make_directories(directory: str) -> list[str]:
    """The directories that had to be made for `directory` to be there."""
    made: list[str] = []
    missing = []
    while not os.path.isdir(directory):
        missing.append(directory)
        directory = os.path.dirname(directory)
    for directory in reversed(missing):
        with suppress(FileExistsError):
            os.mkdir(directory)
            made.append(directory)
    return made
