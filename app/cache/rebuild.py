"""Comparing rows, files and totals: what `flask cache check` and the tests call.

An index that was lost or damaged is rebuilt from the files.
"""

import hashlib
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice

from app.cache.eviction import Space, insert_entry
from app.cache.index import Index
from app.cache.layout import Layout
from app.cache.lookup import facts_of, facts_of_unproven, stamped_time
from app.core.object_keys import digest_in, looks_immutable
from app.core.system import locked

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


@dataclass
class Report:
    """What was found: rows without their file, files without a row, by how many bytes the total is off.

    `fixed` says that all of it was mended.
    """

    entries: int = 0
    missing: list[str] = field(default_factory=list)
    strays: list[str] = field(default_factory=list)
    drift: int = 0
    fixed: bool = False

    @property
    def is_clean(self) -> bool:
        """Whether rows, files and totals agree."""
        return not (self.missing or self.strays or self.drift)


class Check:
    """One comparison. Requests go on: what looks wrong is looked at again while nobody else may write."""

    def __init__(self, layout: Layout, index: Index, space: Space, *, fix: bool) -> None:
        self._layout = layout
        self._index = index
        self._space = space
        self._fix = fix
        self._report = Report(fixed=fix)
        self._opaque: set[str] = set()

    def run(self, progress: Callable[[int], None]) -> Report:
        """Rows, then files, then totals; `progress` is told how many rows are done."""
        for key in self._index.all_keys():
            self._look_at_row(key)
            self._report.entries += 1
            progress(self._report.entries)
        for path in self._layout.files():
            self._look_at_file(path)
        self._look_at_totals()
        return self._report

    def _look_at_row(self, key: str) -> None:
        self._note_opaque(key)
        if self._row_is_right(key):
            return
        with self._index.transaction() as db:
            if self._index.recall(key) is not None and not self._row_is_right(key):
                self._report.missing.append(key)
                if self._fix:
                    self._space.drop_entry(db, key)

    def _row_is_right(self, key: str) -> bool:
        entry = self._index.recall(key)
        if entry is None:
            return False
        try:
            stat = os.stat(self._layout.path_of(entry.facts))
        except FileNotFoundError:
            return False
        return (stat.st_size, stat.st_mtime_ns) == (entry.facts.size, entry.version)

    def _look_at_file(self, path: str) -> None:
        if self._is_known(path):
            return
        with self._index.transaction():
            if self._layout.key_of(path) is None:  # it may have come since the rows were looked at
                for key in self._index.all_keys():
                    self._note_opaque(key)
            if os.path.exists(path) and not self._is_known(path):
                self._report.strays.append(path)
                if self._fix:
                    self._layout.remove(path)

    def _note_opaque(self, key: str) -> None:
        path = self._layout.mutable_path(key)
        if self._layout.key_of(path) is None:
            self._opaque.add(path)

    def _is_known(self, path: str) -> bool:
        key = self._layout.key_of(path)
        if key is None:
            return path in self._opaque
        entry = self._index.recall(key)
        return entry is not None and self._layout.path_of(entry.facts) == path

    def _look_at_totals(self) -> None:
        with self._index.transaction() as db:
            before = _totals(db)
            recount(db, self._layout)
            self._report.drift = before - _totals(db)
            if not self._fix:
                db.execute("ROLLBACK")


def _totals(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT taken + directories + reserved FROM total").fetchone()[0])
