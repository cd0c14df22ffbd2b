"""An index that was lost or damaged is rebuilt from the files."""

import logging
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from itertools import islice

from app.cache.index import Index
from app.cache.layout import Layout, disk_bytes
from app.cache.space import Space
from app.cache.stamp import facts_of
from app.filelock import locked
from app.keys import is_immutable

_log = logging.getLogger(__name__)

_BATCH = 500
"""Files adopted in one transaction: others wait for it."""


class Rebuild:
    """Adopts files that no row tells of, in the background, in one process of all.

    Until it is done nothing new is written, since nobody knows what there is; requests go on. Immutable
    objects are adopted, for their key and file say everything; mutable ones are removed, for nobody knows
    which version they are.
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
        for batch in _batches(self._layout.immutable_files()):
            if self._stop.is_set():
                return
            with self._index.transaction() as db:
                for key, path in batch:
                    _adopt(db, key, path)
        with self._index.transaction() as db:
            recount(db, self._layout)
            db.execute("UPDATE total SET rebuilding = 0")
        _log.warning("The cache's index is rebuilt: %d entries.", self._index.totals().entries)


def recount(db: sqlite3.Connection, layout: Layout) -> None:
    """Set the totals to what rows, reservations and directories say."""
    db.execute(
        "UPDATE total SET (entries, taken) = (SELECT count(*), ifnull(sum(taken), 0) FROM entry), "
        "directories = ?, reserved = (SELECT ifnull(sum(taken), 0) FROM reservation)",
        (layout.directories_bytes(),),
    )


def _adopt(db: sqlite3.Connection, key: str, path: str) -> None:
    try:
        stat = os.stat(path)
    except FileNotFoundError:
        return
    facts = facts_of(key, stat) if is_immutable(key) else None
    if facts is None:
        os.unlink(path)
        return
    taken, modified = disk_bytes(facts.size), int(facts.last_modified.timestamp())
    db.execute(
        "INSERT OR IGNORE INTO entry VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?)",
        (
            key,
            facts.size,
            taken,
            facts.etag,
            facts.content_type,
            modified,
            stat.st_mtime_ns,
            stat.st_atime_ns,
        ),
    )


def _batches(files: Iterable[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    rest = iter(files)
    while batch := list(islice(rest, _BATCH)):
        yield batch
