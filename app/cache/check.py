"""Comparing rows, files and totals: what `flask cache check` and the tests call."""

import os
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field

from app.cache.index import Index
from app.cache.layout import Layout
from app.cache.rebuild import recount
from app.cache.space import Space


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
