"""Keeping the index consistent with the files: rebuilding a lost index, and checking an existing one."""

import hashlib
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice

from app.cache.eviction import Space, insert_row
from app.cache.health import CACHE_ERRORS
from app.cache.index import Index
from app.cache.layout import Layout
from app.cache.lookup import stamped_facts, stamped_mtime, unproven_facts
from app.core.object_keys import digest_in, looks_immutable
from app.core.system import locked
from app.core.variant_keys import source_of

_log = logging.getLogger(__name__)

_BATCH = 500
"""Maximum number of rows to insert in one transaction. Other writers wait until the transaction ends."""


class Rebuild:
    """Inserts rows for files that have no row in the index, in a background thread of one process.

    During a rebuild, hits are served, but nothing new is cached, since the used space is unknown. Files of
    immutable objects are kept, since all their metadata follows from the key and the file. Files of mutable
    objects are removed, since their metadata is lost. An older version of this software accepted files merely
    because of the shape of their keys. Files from that version are compared with the digests in their keys.
    """

    def __init__(self, layout: Layout, index: Index, space: Space) -> None:
        self._layout = layout
        self._index = index
        self._space = space
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start_if_needed(self) -> bool:
        """Start the thread if there are files without rows, or if the files exceed the size limit.

        Return whether a rebuild is needed. Raises `OSError` and `sqlite3.Error`.
        """
        if not (self._index.is_rebuilding() or self._space.is_exceeded()):
            return False
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="cache-rebuild", daemon=True)
            self._thread.start()
        return True

    def wait(self) -> None:
        """Wait until the index is complete, even if another process is rebuilding it.

        Raises `OSError` and `sqlite3.Error`.
        """
        if self.start_if_needed() and self._thread is not None:
            self._thread.join()

    def stop(self) -> None:
        """Stop the thread. The next start continues the rebuild."""
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
        except CACHE_ERRORS as exc:
            _log.error("The cache index could not be rebuilt: %s", exc)

    def _adopt_all(self) -> None:
        _log.warning("The cache has files but no index. Rebuilding the index from the files.")
        self._layout.remove_mutable_files()
        for batch in _batches(self._layout.adoptable_files()):
            if not self._adopt(batch):
                return
        self._layout.remove_unproven()
        with self._index.transaction() as db:
            _recount(db, self._layout)
            db.execute("UPDATE total SET rebuilding = 0")
        _log.warning("The cache index was rebuilt with %d entries.", self._index.totals().entries)

    def _adopt(self, files: Iterable[tuple[str, str]]) -> bool:
        """Insert rows for files that are proven to be immutable, and remove the other files.

        Return False if the rebuild was stopped.
        """
        proven: list[tuple[str, str]] = []
        for key, path in files:
            if self._stop.is_set():
                return False
            with suppress(FileNotFoundError):
                if self._is_proven(key, path):
                    proven.append((key, self._layout.immutable_path(key)))
                else:
                    os.unlink(path)
        with self._index.transaction() as db:
            for key, path in proven:
                with suppress(FileNotFoundError):
                    stat = os.stat(path)
                    if (facts := stamped_facts(key, stat)) is not None:
                        insert_row(db, facts, stat, 0)
        return True

    def _is_proven(self, key: str, path: str) -> bool:
        """Return whether the file is that of an immutable object. If so, stamp it and move it into place."""
        if not looks_immutable(source_of(key)):
            return False
        stat = os.stat(path)
        if stamped_facts(key, stat) is None:
            facts, digest = unproven_facts(key, stat), digest_in(key)
            if facts is None or digest is None or not _sha256(path).startswith(digest):
                return False
            os.utime(path, ns=(stat.st_atime_ns, stamped_mtime(facts)))
        target = self._layout.immutable_path(key)
        if path != target:
            self._layout.move_in(path, target)
        return True


@dataclass
class CheckReport:
    """The result of a consistency check.

    - `entries`: number of rows.
    - `missing`: keys of rows whose file is missing or does not match the row.
    - `strays`: paths of files without a row.
    - `drift`: by how many bytes the recorded total size was too high.
    - `fixed`: whether all differences were repaired.
    """

    entries: int = 0
    missing: list[str] = field(default_factory=list)
    strays: list[str] = field(default_factory=list)
    drift: int = 0
    fixed: bool = False

    @property
    def is_clean(self) -> bool:
        """Whether the rows, the files and the totals agree."""
        return not (self.missing or self.strays or self.drift)


class ConsistencyCheck:
    """Compares the rows and the totals in the index with the files. With `fix`, it repairs the differences.

    Requests are served during the check. Anything that looks wrong is checked again inside a transaction, so
    that no other process is writing at that moment.
    """

    def __init__(self, layout: Layout, index: Index, space: Space, *, fix: bool) -> None:
        self._layout = layout
        self._index = index
        self._space = space
        self._fix = fix
        self._report = CheckReport(fixed=fix)
        self._opaque_paths: set[str] = set()

    def run(self, progress: Callable[[int], None]) -> CheckReport:
        """Check the rows, then the files, then the totals.

        Calls `progress` with the number of rows checked so far. Raises `OSError` and `sqlite3.Error`.
        """
        for key in self._index.all_keys():
            self._check_row(key)
            self._report.entries += 1
            progress(self._report.entries)
        for path in self._layout.files():
            self._check_file(path)
        self._check_totals()
        return self._report

    def _check_row(self, key: str) -> None:
        self._note_opaque_path(key)
        if self._has_its_file(key):
            return
        with self._index.transaction() as db:
            if self._index.get(key) is not None and not self._has_its_file(key):
                self._report.missing.append(key)
                if self._fix:
                    self._space.drop_entry(db, key)

    def _has_its_file(self, key: str) -> bool:
        entry = self._index.get(key)
        if entry is None:
            return False
        try:
            stat = os.stat(self._layout.path_of(entry.facts))
        except FileNotFoundError:
            return False
        return (stat.st_size, stat.st_mtime_ns) == (entry.facts.size, entry.version)

    def _check_file(self, path: str) -> None:
        if self._has_row(path):
            return
        with self._index.transaction() as db:
            if path in self._reserved_paths(db):  # an evicted object's file that is about to be removed
                return
            if self._layout.key_of(path) is None:  # its row may have been added after the rows were checked
                for key in self._index.all_keys():
                    self._note_opaque_path(key)
            if os.path.exists(path) and not self._has_row(path):
                self._report.strays.append(path)
                if self._fix:
                    self._layout.remove(path)

    def _has_row(self, path: str) -> bool:
        key = self._layout.key_of(path)
        if key is None:
            return path in self._opaque_paths
        entry = self._index.get(key)
        return entry is not None and self._layout.path_of(entry.facts) == path

    def _reserved_paths(self, db: sqlite3.Connection) -> set[str]:
        rows = db.execute("SELECT key FROM reservation")
        return {path for (key,) in rows for path in self._layout.paths(key)}

    def _note_opaque_path(self, key: str) -> None:
        """Remember the path of the row's file if the path contains only a hash."""
        if self._layout.key_of(self._layout.mutable_path(key)) is not None:
            return
        entry = self._index.get(key)
        if entry is not None and not entry.facts.is_immutable:
            self._opaque_paths.add(self._layout.mutable_path(key))

    def _check_totals(self) -> None:
        with self._index.transaction() as db:
            before = _total_bytes(db)
            _recount(db, self._layout)
            self._report.drift = before - _total_bytes(db)
            if not self._fix:
                db.execute("ROLLBACK")


def _recount(db: sqlite3.Connection, layout: Layout) -> None:
    """Recompute the totals from the rows, the reservations and the directories."""
    db.execute(
        "UPDATE total SET (entries, taken) = (SELECT count(*), ifnull(sum(taken), 0) FROM entry), "
        "directories = ?, reserved = (SELECT ifnull(sum(taken), 0) FROM reservation)",
        (layout.directories_bytes(),),
    )


def _total_bytes(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT taken + directories + reserved FROM total").fetchone()[0])


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _batches(files: Iterable[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    rest = iter(files)
    while batch := list(islice(rest, _BATCH)):
        yield batch
