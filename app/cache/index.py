"""The index: a SQLite database of facts about the cached files, and the totals of what they take.

It is written on fill, eviction, revalidation and delete, never on a hit. Every write is one
`BEGIN IMMEDIATE` transaction, in which the files are moved and removed too, so that of all processes
only one changes the cache at a time.
"""

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from app.objects import ObjectFacts

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entry (
    key TEXT PRIMARY KEY,
    size INTEGER NOT NULL,             -- bytes of the object
    taken INTEGER NOT NULL,            -- bytes on disk
    etag TEXT NOT NULL,
    content_type TEXT NOT NULL,
    last_modified INTEGER NOT NULL,    -- seconds since the epoch
    version INTEGER NOT NULL,          -- the file's modification time, in nanoseconds
    validated_at REAL NOT NULL,        -- seconds since the epoch
    accessed_at INTEGER NOT NULL       -- the latest access recorded, in nanoseconds
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS entry_by_access ON entry (accessed_at);
CREATE TABLE IF NOT EXISTS reservation (
    id INTEGER PRIMARY KEY,
    owner TEXT NOT NULL,               -- the process that writes
    key TEXT NOT NULL,
    taken INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS total (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    entries INTEGER NOT NULL,
    taken INTEGER NOT NULL,
    reserved INTEGER NOT NULL
);
INSERT OR IGNORE INTO total VALUES (1, 0, 0, 0);
CREATE TABLE IF NOT EXISTS epoch (
    slot INTEGER PRIMARY KEY,
    number INTEGER NOT NULL            -- grows with each upload to, or delete of, a key of this slot
);
"""

_BUSY_SECONDS = 5.0
_LOG_PAGES = 100
"""Pages in the write-ahead log before it is folded back; kept small, since it counts against the bound."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A row: the facts, the file's `version`, and when the store last confirmed them (epoch seconds)."""

    facts: ObjectFacts
    version: int
    validated_at: float


@dataclass(frozen=True, slots=True)
class Totals:
    """How many entries there are, the bytes that they take, and those reserved for files being written."""

    entries: int
    taken: int
    reserved: int


class Index:
    """The database, opened once for each process, after a fork anew."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._write_lock = threading.Lock()
        self._read_lock = threading.Lock()
        self._pid = 0
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """The only writer among all threads and processes, until the block ends.

        Raises `sqlite3.Error`; nothing is changed in the index then.
        """
        with self._write_lock:
            self._open()
            assert self._writer is not None
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            finally:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")

    def recall(self, key: str) -> Entry | None:
        """The row of `key`."""
        row = self._read(
            "SELECT size, etag, content_type, last_modified, version, validated_at FROM entry WHERE key = ?",
            key,
        )
        if row is None:
            return None
        size, etag, content_type, last_modified, version, validated_at = row
        modified = datetime.fromtimestamp(last_modified, UTC)
        return Entry(ObjectFacts(key, size, content_type, etag, modified), version, validated_at)

    def totals(self) -> Totals:
        """The row of totals."""
        return Totals(*self._read("SELECT entries, taken, reserved FROM total") or (0, 0, 0))

    def epoch(self, slot: int) -> int:
        """How often keys of this slot have been changed."""
        row = self._read("SELECT number FROM epoch WHERE slot = ?", slot)
        return int(row[0]) if row else 0

    def close(self) -> None:
        """Close the connections; the next use opens them again."""
        with self._read_lock, self._write_lock:
            for connection in (self._writer, self._reader):
                if connection is not None and self._pid == os.getpid():
                    connection.close()
            self._writer = self._reader = None

    def _read(self, statement: str, *values: object) -> Any:
        with self._read_lock:
            if self._reader is None or self._pid != os.getpid():
                with self._write_lock:
                    self._open()
            assert self._reader is not None
            return self._reader.execute(statement, values).fetchone()

    def _open(self) -> None:
        """Connections made before a fork are left alone: SQLite forbids even to close them in the child."""
        if self._writer is not None and self._pid == os.getpid():
            return
        writer = self._connect()
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")
        writer.execute("PRAGMA synchronous = NORMAL")
        writer.executescript(_SCHEMA)
        self._writer, self._reader, self._pid = writer, self._connect(), os.getpid()

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(
            self._path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
