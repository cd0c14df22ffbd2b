"""From the store into a directory."""

import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

from app.errors import AppError, InvalidKey, NotFound, StoreError
from app.keys import check_readable, is_immutable
from app.stores.base import BaseStore
from app.system import sync
from app.transfer.tally import Outcome, Result, failure

_CHUNK = 256 * 1024


@dataclass(frozen=True, slots=True)
class Wanted:
    """An image as the store lists it; `size` is in bytes."""

    key: str
    size: int
    last_modified: datetime


class Exporter:
    """Writes images to files below `root`, by their keys; made by `into`.

    A file appears whole, with the time at which the store says that it was last changed. That and its size
    tell whether a mutable one is there already; for an immutable one its size does.
    """

    def __init__(self, store: BaseStore, root: Path, aside: Path) -> None:
        self._store = store
        self._root = root
        self._aside = aside

    @classmethod
    @contextmanager
    def into(cls, store: BaseStore, directory: Path) -> Iterator[Self]:
        """An exporter into `directory`, which is made where it is missing. Raises `OSError`."""
        directory.mkdir(parents=True, exist_ok=True)
        root = directory.resolve()
        with TemporaryDirectory(prefix=".export-", dir=root) as aside:
            yield cls(store, root, Path(aside))

    def bring(self, wanted: Wanted) -> Result:
        """Write the image to its file."""
        try:
            path = self._path(wanted.key)
            if _is_there(path, wanted):
                return Result(wanted.key, Outcome.THERE)
            self._write(wanted.key, path)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            reason = "its path needs a directory where there is a file, or a file where there is a directory"
            return Result(wanted.key, Outcome.FAILED, reason)
        except (AppError, OSError) as exc:
            return failure(wanted.key, exc)
        return Result(wanted.key, Outcome.DONE)

    def _path(self, key: str) -> Path:
        """Where the image goes. Raises `InvalidKey` for a key that leads elsewhere than below the root."""
        check_readable(key)
        path = self._root / key
        if not path.parent.resolve().is_relative_to(self._root):
            raise InvalidKey("A symbolic link leads out of the directory there.")
        return path

    def _write(self, key: str, path: Path) -> None:
        """Aside first, synced, then in place by one rename."""
        written = self._aside / secrets.token_hex(16)
        try:
            self._fetch(key, written)
            path.parent.mkdir(parents=True, exist_ok=True)
            written.replace(path)
        finally:
            written.unlink(missing_ok=True)

    def _fetch(self, key: str, written: Path) -> None:
        stored = self._store.get(key)
        if stored is None:
            raise NotFound
        with stored, open(written, "xb") as file:
            shutil.copyfileobj(stored.body, file, _CHUNK)
            if file.tell() != stored.facts.size:
                raise StoreError(detail=f"{file.tell()} bytes instead of {stored.facts.size}")
            file.flush()
            changed = stored.facts.last_modified.timestamp()
            with suppress(OSError):  # refused: a named image is fetched again next time
                os.utime(file.fileno(), (changed, changed))
            sync(file.fileno())


def _is_there(path: Path, wanted: Wanted) -> bool:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    same_time = int(found.st_mtime) == int(wanted.last_modified.timestamp())
    return (
        stat.S_ISREG(found.st_mode)
        and found.st_size == wanted.size
        and (is_immutable(wanted.key) or same_time)
    )
