"""What came of requests that must not be done twice: a SQLite table of outcomes, bounded in rows and bytes.

A database connection serves one statement: outcomes are read and written once in many seconds, and nothing is
shared between threads or with the parent of a fork. Rows hold digests of keys, never a key.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from app.generation.state import state_errors_mapped

_SCHEMA = """
CREATE TABLE IF NOT EXISTS outcome (
    key TEXT PRIMARY KEY,              -- a digest of whose key it is, and of the key
    request TEXT NOT NULL,             -- a digest of what was asked
    result TEXT NOT NULL,              -- JSON
    is_final INTEGER NOT NULL,         -- 0: the same may be tried again
    made_at REAL NOT NULL,             -- seconds since the epoch, as the next one
    expires_at REAL NOT NULL
) WITHOUT ROWID
"""

_FORGET_SURPLUS = """
DELETE FROM outcome WHERE expires_at < ? OR key IN (
    SELECT key FROM (
        SELECT key, count(*) OVER latest_first AS number, sum(length(result)) OVER latest_first AS size
        FROM outcome WINDOW latest_first AS (ORDER BY made_at DESC, key)
    ) WHERE number > ? OR size > ?
)
"""

_MOST_ROWS = 10_000
_MOST_BYTES = 16 * 1024 * 1024
_BUSY_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a request; one that is not `is_final` counts for those alone who waited for it."""

    request: str
    result: str
    is_final: bool
    made_at: float


class Ledger:
    """The table, in the file at `path`. Methods raise `StateUnavailable`."""

    def __init__(self, path: Path, most_rows: int = _MOST_ROWS, most_bytes: int = _MOST_BYTES) -> None:
        self._path = path
        self._bounds = (most_rows, most_bytes)

    def recall(self, key: str) -> Outcome | None:
        """What came of the request under `key`, unless it is forgotten."""
        with self._connection() as database:
            row = database.execute(
                "SELECT request, result, is_final, made_at FROM outcome WHERE key = ? AND expires_at >= ?",
                (key, time.time()),
            ).fetchone()
        return row and Outcome(row[0], row[1], bool(row[2]), row[3])

    def keep(self, key: str, outcome: Outcome, lifetime: float) -> None:
        """Remember `outcome` for `lifetime` seconds, and forget the oldest where there are too many."""
        row = (key, outcome.request, outcome.result, outcome.is_final, outcome.made_at)
        with self._connection() as database:
            database.execute("BEGIN IMMEDIATE")
            database.execute(
                "INSERT OR REPLACE INTO outcome VALUES (?, ?, ?, ?, ?, ?)", (*row, outcome.made_at + lifetime)
            )
            database.execute(_FORGET_SURPLUS, (time.time(), *self._bounds))
            database.execute("COMMIT")

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        with state_errors_mapped():
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self._path, _BUSY_SECONDS, isolation_level=None)) as database:
                database.execute(_SCHEMA)
                yield database
