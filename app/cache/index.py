"""The index: a SQLite database of facts about the cached files, and the totals of what they take.

It is written on fill, eviction, revalidation and delete, never on a hit. Every write is one
`BEGIN IMMEDIATE` transaction, in which the files are moved and removed too, so that of all processes
only one changes the cache at a time.
"""

import os
import sqlite3
import threading
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
"""Changes with the schema, or with what a file has to be to lie in `objects`.

An index of another version is removed and rebuilt from the files, once these have been checked.
"""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entry (
    key TEXT PRIMARY KEY,
    size INTEGER NOT NULL,             -- bytes of the object
    taken INTEGER NOT NULL,            -- bytes on disk
    etag TEXT NOT NULL,
    content_type TEXT NOT NULL,
    content_encoding TEXT NOT NULL,    -- empty for most
    immutable INTEGER NOT NULL,        -- 1 if the bytes are proven to be those that the key stands for
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
    taken INTEGER NOT NULL,            -- bytes of the entries' files
    directories INTEGER NOT NULL,      -- bytes of the directories above them
    reserved INTEGER NOT NULL,
    rebuilding INTEGER NOT NULL        -- 1 while there are files that no row tells of yet
);
"""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_BUSY_SECONDS = 5.0
_MAPPED_BYTES = 1024**3
_PAGE = 4096
_PAGES = ("page_count", "freelist_count")


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
    """The database, opened once for each process; anew after a fork, and when its file was replaced.

    Past `log_bytes` its write-ahead log is folded back; kept small, since it counts against the bound.
    """

    def __init__(self, layout: Layout, log_bytes: int = 400 * 1024) -> None:
        self._layout = layout
        self._log_bytes = log_bytes
        self._write_lock = threading.RLock()  # taken before the other one, where both are
        self._read_lock = threading.Lock()
        self._opened: tuple[int, int] | None = None  # by which process, and which file
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """The only writer among all threads and processes, until the block ends.

        Raises `sqlite3.Error`; nothing is changed in the index then.
        """
        with self._write_lock:
            self._be_open()
            assert self._writer is not None
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                if self._writer.in_transaction:
                    self._writer.execute("COMMIT")
                self._fold_log(self._writer)
            finally:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")

    def recall(self, key: str) -> Entry | None:
        """The row of `key`."""
        row = self._read(
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
        except (StoreError, OverflowError, TypeError, ValueError):  # the row of a damaged index
            return None

    def all_keys(self) -> Iterator[str]:
        """All keys in their order, a page at a time."""
        after = ""
        while True:
            page = self._read_all("SELECT key FROM entry WHERE key > ? ORDER BY key LIMIT 1000", after)
            yield from (key for (key,) in page)
            if not page:
                return
            after = page[-1][0]

    def totals(self) -> Totals:
        """The row of totals."""
        return Totals(*self._read("SELECT entries, taken + directories, reserved FROM total") or (0, 0, 0))

    def is_rebuilding(self) -> bool:
        """Whether there are files that no row tells of yet."""
        return bool(self._read("SELECT rebuilding FROM total")[0])

    def close(self) -> None:
        """Close the connections; the next use opens them again."""
        with self._write_lock, self._read_lock:
            self._close()

    def discard(self) -> None:
        """Remove a database that is damaged, or not of now, for the next use to begin a new one."""
        with self._write_lock, self._read_lock, locked(self._layout.locks / "index"):
            self._close()
            trouble = self._trouble()
            if isinstance(trouble, OtherVersion):
                self._layout.set_objects_aside()
            if trouble is not None:
                for path in (self._layout.index, *self._layout.index_logs()):
                    path.unlink(missing_ok=True)

    def used_bytes(self) -> int:
        """What the database takes without the pages that are free, inside a transaction."""
        assert self._writer is not None
        pages, free = (self._writer.execute(f"PRAGMA {name}").fetchone()[0] for name in _PAGES)
        return int(pages - free) * _PAGE

    def shrink(self) -> None:
        """Give the free pages back to the disk, where they are many."""
        with self._write_lock:
            with self.transaction() as db:
                free = db.execute("PRAGMA freelist_count").fetchone()[0]
            if free * _PAGE > self._log_bytes:
                db.execute("VACUUM")
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _read(self, statement: str, *values: object) -> Any:
        rows = self._read_all(statement, *values)
        return rows[0] if rows else None

    def _read_all(self, statement: str, *values: object) -> list[Any]:
        self._be_open()
        with self._read_lock:
            if self._reader is None:
                raise sqlite3.OperationalError("the index was closed meanwhile")
            return self._reader.execute(statement, values).fetchall()

    def _is_current(self) -> bool:
        """Whether the connections are this process's, and to the file that others see, too."""
        if self._opened is None:
            return False
        try:
            return self._opened == (os.getpid(), os.stat(self._layout.index).st_ino)
        except FileNotFoundError:
            return False

    def _fold_log(self, writer: sqlite3.Connection) -> None:
        """Readers keep the log from being begun anew; once it is far too long, wait for them."""
        with suppress(FileNotFoundError):
            if os.stat(self._layout.index_logs()[0]).st_size > 2 * self._log_bytes:
                writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _be_open(self) -> None:
        if not self._is_current():
            with self._write_lock, self._read_lock:
                if not self._is_current():
                    self._open()

    def _open(self) -> None:
        self._close()
        with locked(self._layout.locks / "index"):
            self._writer = self._connect()
            _check_version(self._writer)
            self._writer.execute("PRAGMA journal_mode = WAL")
            self._writer.execute(f"PRAGMA wal_autocheckpoint = {self._log_bytes // _PAGE}")
            self._writer.execute("PRAGMA synchronous = OFF")  # after a power failure it is rebuilt
            self._writer.execute(f"PRAGMA application_id = {_boot_number()}")
            self._writer.executescript(_SCHEMA)
            self._writer.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
            has_files = self._layout.has_files()
            self._writer.execute("INSERT OR IGNORE INTO total VALUES (1, 0, 0, 0, 0, ?)", (has_files,))
            self._reader = self._connect()
            self._reader.execute(f"PRAGMA mmap_size = {_MAPPED_BYTES}")
            self._opened = (os.getpid(), os.stat(self._layout.index).st_ino)

    def _close(self) -> None:
        """Connections made before a fork are only let go: SQLite forbids even to close them in the child."""
        ours = self._opened is None or self._opened[0] == os.getpid()
        for connection in (self._writer, self._reader):
            if connection is not None and ours:
                connection.close()
        self._writer = self._reader = self._opened = None

    def _trouble(self) -> sqlite3.DatabaseError | None:
        """Return why the database can't be used; None if it can."""
        try:
            with closing(self._connect()) as connection:
                _check_version(connection)
                found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        except sqlite3.DatabaseError as exc:
            return exc
        return None if found == "ok" else sqlite3.DatabaseError(found)

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(
            self._layout.index, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )


class OtherVersion(sqlite3.DatabaseError):
    """The index was made by another version of this software, which had other rules for what is immutable."""


def _check_version(connection: sqlite3.Connection) -> None:
    """A new database has no tables yet. Raises `sqlite3.DatabaseError`."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    boot = connection.execute("PRAGMA application_id").fetchone()[0]
    is_new = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
    if not is_new and version != _SCHEMA_VERSION:
        raise OtherVersion(f"the index has version {version}, not {_SCHEMA_VERSION}")
    if not is_new and boot != _boot_number():
        raise sqlite3.DatabaseError("the index is from before this machine was started")


def _boot_number() -> int:
    """Another one each time the machine starts, where the kernel says so: nothing here waits for the disk,
    so after a power failure neither index nor files can be trusted unseen.
    """
    try:
        return zlib.crc32(_BOOT_ID.read_bytes()) >> 1  # SQLite takes 31 bits
    except OSError:
        return 0
