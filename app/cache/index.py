"""The index: a SQLite database that contains the metadata of the cached objects and their total size on disk.

The index is written when objects are added, evicted, revalidated or deleted, but never on hits. Each write is
one `BEGIN IMMEDIATE` transaction. Files are moved and removed inside that transaction as well, so only one
process at a time changes the cache.
"""

import os
import sqlite3
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from app.cache.layout import Layout
from app.core.errors import StoreError
from app.core.objects import ObjectFacts
from app.core.system import locked

_SCHEMA_VERSION = 2
"""Version of the index. Increase it if the schema or the requirements for files in `objects` change.

An index with a different version is removed. A new index is built from those files whose bytes are correct.
"""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entry (
    key TEXT PRIMARY KEY,
    size INTEGER NOT NULL,             -- size of the object in bytes
    taken INTEGER NOT NULL,            -- size on disk in bytes
    etag TEXT NOT NULL,
    content_type TEXT NOT NULL,
    content_encoding TEXT NOT NULL,    -- empty if there is none
    immutable INTEGER NOT NULL,        -- 1 if the bytes are proven to match the key
    last_modified INTEGER NOT NULL,    -- Unix time in seconds
    version INTEGER NOT NULL,          -- mtime of the file in nanoseconds
    validated_at REAL NOT NULL,        -- Unix time in seconds
    accessed_at INTEGER NOT NULL       -- latest recorded atime of the file in nanoseconds
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS entry_by_access ON entry (accessed_at);
CREATE TABLE IF NOT EXISTS reservation (
    id INTEGER PRIMARY KEY,
    owner TEXT NOT NULL,               -- the process that is writing the file
    key TEXT NOT NULL,
    taken INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS total (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    entries INTEGER NOT NULL,
    taken INTEGER NOT NULL,            -- total size on disk of the entries' files
    directories INTEGER NOT NULL,      -- total size on disk of the files' directories
    reserved INTEGER NOT NULL,
    rebuilding INTEGER NOT NULL        -- 1 while there are files without a row
);
"""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_BUSY_TIMEOUT_SECONDS = 5.0

_MIN_POLL_SECONDS, _MAX_POLL_SECONDS = 0.0002, 0.002
"""Shortest and longest pause between two attempts to begin a transaction. A transaction takes less than a
millisecond, but SQLite's own busy handler would pause for up to 100 ms."""

_MMAP_BYTES = 1024**3
_PAGE_BYTES = 4096
_PRIMARY_CODE = 0xFF  # the other bits of an error code give details (https://www.sqlite.org/rescode.html)


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of the index.

    `version` is the file's mtime in nanoseconds. `validated_at` is the Unix time when the store last
    confirmed that the object had not changed.
    """

    facts: ObjectFacts
    version: int
    validated_at: float


@dataclass(frozen=True, slots=True)
class Totals:
    """The number of entries, their total size on disk, and the bytes reserved for files being written."""

    entries: int
    taken: int
    reserved: int


class IndexVersionMismatch(sqlite3.DatabaseError):
    """The index was written by a version of this software that uses a different `_SCHEMA_VERSION`."""


class Index:
    """Access to the database. A process reopens the database after a fork, or if its file was replaced.

    When the write-ahead log exceeds `log_bytes`, SQLite copies it into the database. The log is kept short
    because it counts toward the size limit of the cache. Methods raise `sqlite3.Error`.
    """

    def __init__(self, layout: Layout, log_bytes: int = 400 * 1024) -> None:
        self._layout = layout
        self._log_bytes = log_bytes
        self._write_lock = threading.RLock()  # if a thread takes both locks, it takes this one first
        self._read_lock = threading.Lock()
        self._opened: tuple[int, int] | None = None  # process ID, and inode of the file
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Make the caller the only writer of all threads and processes during the block, then commit.

        If the block raises an exception, the index is not changed.
        """
        with self._write_lock:
            self._ensure_open()
            assert self._writer is not None
            _begin(self._writer)
            try:
                yield self._writer
                if self._writer.in_transaction:
                    self._writer.execute("COMMIT")
                self._limit_log(self._writer)
            finally:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")

    def get(self, key: str) -> Entry | None:
        """Return the row of `key`, or None if there is none or if it is invalid."""
        row = self._read_row(
            "SELECT size, etag, content_type, content_encoding, immutable, last_modified, version, "
            "validated_at FROM entry WHERE key = ?",
            key,
        )
        if row is None:
            return None
        size, etag, content_type, encoding, immutable, last_modified, version, validated_at = row
        try:
            modified = datetime.fromtimestamp(last_modified, UTC)
            facts = ObjectFacts(
                key,
                size,
                content_type,
                etag,
                modified,
                content_encoding=encoding,
                is_immutable=bool(immutable),
            )
            return Entry(facts, version, validated_at)
        except (StoreError, OverflowError, TypeError, ValueError):  # the index is damaged
            return None

    def all_keys(self) -> Iterator[str]:
        """Yield all keys in sorted order, reading a page of rows at a time."""
        after = ""
        while page := self._read("SELECT key FROM entry WHERE key > ? ORDER BY key LIMIT 1000", after):
            yield from (key for (key,) in page)
            after = page[-1][0]

    def totals(self) -> Totals:
        """Return the totals over all entries."""
        row = self._read_row("SELECT entries, taken + directories, reserved FROM total")
        return Totals(*row) if row else Totals(0, 0, 0)

    def variant_totals(self) -> Totals:
        """Return the number and the size of the entries that were made from images. Reads all their rows."""
        rows = "FROM entry WHERE key >= '/' AND key < '0'"  # "0" follows "/"
        return Totals(*self._read_row(f"SELECT count(*), coalesce(sum(taken), 0), 0 {rows}"))

    def is_rebuilding(self) -> bool:
        """Return whether the index is incomplete, because there are files without a row."""
        return bool(self._read_row("SELECT rebuilding FROM total")[0])

    def bytes_on_disk(self) -> int:
        """Return the current size on disk of the database, including its write-ahead log."""
        taken = 0
        for path in self._layout.index_files:
            with suppress(FileNotFoundError):
                taken += os.stat(path).st_blocks * 512
        return taken

    def used_bytes(self) -> int:
        """Return the size of the database without its free pages. Call this inside a transaction."""
        assert self._writer is not None
        pages = self._writer.execute("PRAGMA page_count").fetchone()[0]
        return int(pages - self._free_pages(self._writer)) * _PAGE_BYTES

    def shrink(self) -> None:
        """Return free pages to the file system if there are many."""
        with self._write_lock:
            with self.transaction() as db:
                free = self._free_pages(db)
            if free * _PAGE_BYTES > self._log_bytes:
                with _waiting(db):
                    db.execute("VACUUM")
                    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Close the connections. The next use opens them again."""
        with self._write_lock, self._read_lock:
            self._close()

    def discard_if_unusable(self) -> None:
        """Remove the database if it is damaged, has a different version, or was written before the last boot.

        The next use creates an empty database. If the version is different, the cached files are set aside
        until they have been checked.
        """
        with self._write_lock, self._read_lock, locked(self._layout.locks / "index"):
            self._close()
            defect = self._find_defect()
            if isinstance(defect, IndexVersionMismatch):
                self._layout.set_objects_aside()
            if defect is not None:
                for path in self._layout.index_files:
                    path.unlink(missing_ok=True)

    def _read_row(self, statement: str, *values: object) -> Any:
        rows = self._read(statement, *values)
        return rows[0] if rows else None

    def _read(self, statement: str, *values: object) -> list[Any]:
        self._ensure_open()
        with self._read_lock:
            if self._reader is None:
                raise sqlite3.OperationalError("another thread closed the index")
            return self._reader.execute(statement, values).fetchall()

    def _limit_log(self, writer: sqlite3.Connection) -> None:
        """Truncate the log if it is far too long. This waits for readers that keep the log from shrinking."""
        with suppress(FileNotFoundError):
            if os.stat(self._layout.index_files[1]).st_size > 2 * self._log_bytes:
                with _waiting(writer):
                    writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _ensure_open(self) -> None:
        if not self._is_current():
            with self._write_lock, self._read_lock:
                if not self._is_current():
                    self._open()

    def _is_current(self) -> bool:
        """Return whether the connections belong to this process and to the current database file."""
        if self._opened is None:
            return False
        try:
            return self._opened == (os.getpid(), os.stat(self._layout.index).st_ino)
        except FileNotFoundError:
            return False

    def _open(self) -> None:
        self._close()
        with locked(self._layout.locks / "index"):
            self._writer = self._connect()
            _check_version(self._writer)
            self._writer.execute("PRAGMA journal_mode = WAL")
            self._writer.execute(f"PRAGMA wal_autocheckpoint = {self._log_bytes // _PAGE_BYTES}")
            self._writer.execute("PRAGMA synchronous = OFF")  # after a power failure the index is rebuilt
            self._writer.execute(f"PRAGMA application_id = {_boot_number()}")
            self._writer.executescript(_SCHEMA)
            self._writer.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
            has_files = self._layout.has_files()
            self._writer.execute("INSERT OR IGNORE INTO total VALUES (1, 0, 0, 0, 0, ?)", (has_files,))
            self._writer.execute("PRAGMA busy_timeout = 0")  # see _begin
            self._reader = self._connect()
            self._reader.execute(f"PRAGMA mmap_size = {_MMAP_BYTES}")
            self._opened = (os.getpid(), os.stat(self._layout.index).st_ino)

    def _close(self) -> None:
        """Close the connections. If they come from the parent process, only drop the references to them.

        SQLite forbids closing inherited connections after a fork.
        """
        ours = self._opened is None or self._opened[0] == os.getpid()
        for connection in (self._writer, self._reader):
            if connection is not None and ours:
                connection.close()
        self._writer = self._reader = self._opened = None

    def _find_defect(self) -> sqlite3.DatabaseError | None:
        """Return the reason why the database can't be used, or None if it can."""
        try:
            with closing(self._connect()) as connection:
                _check_version(connection)
                found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        except sqlite3.DatabaseError as exc:
            return exc
        return None if found == "ok" else sqlite3.DatabaseError(found)

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(
            self._layout.index, timeout=_BUSY_TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False
        )

    def _free_pages(self, db: sqlite3.Connection) -> int:
        return int(db.execute("PRAGMA freelist_count").fetchone()[0])


def _begin(writer: sqlite3.Connection) -> None:
    """Begin a write transaction. Raise `sqlite3.OperationalError` if others write until the timeout."""
    deadline = time.monotonic() + _BUSY_TIMEOUT_SECONDS
    pause = _MIN_POLL_SECONDS
    while True:
        try:
            writer.execute("BEGIN IMMEDIATE")
            return
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorcode & _PRIMARY_CODE != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(pause)
        pause = min(2 * pause, _MAX_POLL_SECONDS)


@contextmanager
def _waiting(writer: sqlite3.Connection) -> Iterator[None]:
    """Wait for other connections during the block, which runs statements outside of a transaction."""
    writer.execute(f"PRAGMA busy_timeout = {int(_BUSY_TIMEOUT_SECONDS * 1000)}")
    try:
        yield
    finally:
        writer.execute("PRAGMA busy_timeout = 0")


def _check_version(connection: sqlite3.Connection) -> None:
    """Raise `sqlite3.DatabaseError` if the database has a different version or was written before this boot.

    A new database, which has no tables, is accepted.
    """
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    boot = connection.execute("PRAGMA application_id").fetchone()[0]
    is_new = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
    if not is_new and version != _SCHEMA_VERSION:
        raise IndexVersionMismatch(f"the index has version {version}, not {_SCHEMA_VERSION}")
    if not is_new and boot != _boot_number():
        raise sqlite3.DatabaseError("the index was written before this machine was last started")


def _boot_number() -> int:
    """Return a number that changes each time the machine starts, or 0 if the kernel provides none.

    Writes are not synced to disk, so after a power failure neither the index nor the files can be trusted.
    """
    try:
        return zlib.crc32(_BOOT_ID.read_bytes()) >> 1  # SQLite stores 31 bits
    except OSError:
        return 0
