"""An index that was lost or damaged is rebuilt from the files."""

import hashlib
import logging
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice

from app.cache.index import Index
from app.cache.layout import Layout
from app.cache.space import Space, insert_entry
from app.cache.stamp import facts_of, facts_of_unproven, stamped_time
from app.filelock import locked
from app.keys import digest_in, looks_immutable

_log = logging.getLogger(__name__)

_BATCH = 500
"""Files adopted in one transaction: others wait for it."""


class Rebuild:
    """Adopts files that no row tells of, in the background, in one process of all.

    Until it is done nothing new is written, since nobody knows what there is; requests go on. Immutable
    objects are adopted, for their key and file say everything; mutable ones are removed, for nobody knows
    which version they are. Older versions of this software went by the key's shape alone: what they kept is
    compared with the digest in its key first.
    """

    def __init__(self, layout: Layout, index: Index, space: Space) -> None:
        self._layout = layout
        self._index = index
        self._space = space
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start_if_needed(self) -> bool:
        """Begin, where the index was made beside files, or the bound does not hold; whether that is so."""
        if not (self._index.is_rebuilding() or self._space.is_over()):
            return False
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="cache-rebuild", daemon=True)
            self._thread.start()
        return True

    def wait(self) -> None:
        """Have it done, here or in another process."""
        if self.start_if_needed() and self._thread is not None:
            self._thread.join()

    def join(self) -> None:
        """Stop, wherever it is; the next start goes on."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            with locked(self._layout.locks / "rebuild"):
                if self._index.is_rebuilding():
                    self._adopt_all()
                while not self._stop.is_set() and self._space.trim():
                    pass
        except (OSError, sqlite3.Error) as exc:
            _log.error("The cache's index could not be rebuilt: %s", exc)

    def _adopt_all(self) -> None:
        _log.warning("The cache has files but no index: rebuilding it from the files.")
        self._layout.remove_mutable_files()
        for batch in _batches(self._layout.kept_files()):
            if not self._adopt(batch):
                return
        self._layout.remove_unproven()
        with self._index.transaction() as db:
            recount(db, self._layout)
            db.execute("UPDATE total SET rebuilding = 0")
        _log.warning("The cache's index is rebuilt: %d entries.", self._index.totals().entries)

    def _adopt(self, files: Iterable[tuple[str, str]]) -> bool:
        """Make rows for those that may be kept; False if it is to stop before that."""
        kept: list[tuple[str, str]] = []
        for key, path in files:
            if self._stop.is_set():
                return False
            with suppress(FileNotFoundError):
                if (target := _proven(self._layout, key, path)) is not None:
                    kept.append((key, target))
        with self._index.transaction() as db:
            for key, path in kept:
                _adopt(db, key, path)
        return True


def recount(db: sqlite3.Connection, layout: Layout) -> None:
    """Set the totals to what rows, reservations and directories say."""
    db.execute(
        "UPDATE total SET (entries, taken) = (SELECT count(*), ifnull(sum(taken), 0) FROM entry), "
        "directories = ?, reserved = (SELECT ifnull(sum(taken), 0) FROM reservation)",
        (layout.directories_bytes(),),
    )


def _proven(layout: Layout, key: str, path: str) -> str | None:
    """Where the file of `key` is to be kept; None, and it is removed, unless it is proven to be immutable."""
    if not looks_immutable(key):
        os.unlink(path)
        return None
    stat, target = os.stat(path), layout.immutable_path(key)
    if facts_of(key, stat) is None:
        facts, digest = facts_of_unproven(key, stat), digest_in(key)
        if facts is None or digest is None or not _sha256(path).startswith(digest):
            os.unlink(path)
            return None
        os.utime(path, ns=(stat.st_atime_ns, stamped_time(facts)))
    if path != target:
        layout.move_in(path, target)
    return target


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _adopt(db: sqlite3.Connection, key: str, path: str) -> None:
    with suppress(FileNotFoundError):
        stat = os.stat(path)
        facts = facts_of(key, stat)
        if facts is not None:
            insert_entry(db, facts, stat, 0)


def _batches(files: Iterable[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    rest = iter(files)
    while batch := list(islice(rest, _BATCH)):
        yield batch
