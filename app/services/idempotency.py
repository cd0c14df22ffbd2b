"""Idempotency keys: a request that is sent again with the same key gets the response of the first request.

This holds across threads, worker processes and restarts. While a process works on a request, it locks a file
that is named after the key. The kernel releases the lock when the process ends, even if it is killed. Other
requests with the same key wait for the lock, and then find the outcome in a SQLite table.

In this module, keys and requests are represented by digests, so that no idempotency key and no prompt is
written to disk.
"""

import json
import logging
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from app.core.errors import AppError, IdempotencyKeyInUse, IdempotencyKeyReused, StateUnavailable
from app.core.object_metadata import ImageInfo
from app.core.system import SHARED, opened, try_lock
from app.services.drawing import StoredGeneration
from app.services.images import StoredImage
from app.services.slots import state_errors_mapped
from app.services.urls import ImageUrls

_KEY_LIFETIME_SECONDS = 86_400.0
_LOCK_POLL_SECONDS = 0.05
_ABANDONED_SECONDS = 86_400
"""Age in seconds after which the lock file of a killed process is removed."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS outcome (
    key TEXT PRIMARY KEY,              -- digest of the client and its idempotency key
    request TEXT NOT NULL,             -- digest of the request
    result TEXT NOT NULL,              -- JSON
    is_final INTEGER NOT NULL,         -- 0 for an error after which the request may be sent again
    made_at REAL NOT NULL,             -- in seconds since the epoch, like expires_at
    expires_at REAL NOT NULL
) WITHOUT ROWID
"""

_DELETE_SURPLUS = """
DELETE FROM outcome WHERE expires_at < ? OR key IN (
    SELECT key FROM (
        SELECT key, count(*) OVER latest_first AS number, sum(length(result)) OVER latest_first AS size
        FROM outcome WINDOW latest_first AS (ORDER BY made_at DESC, key)
    ) WHERE number > ? OR size > ?
)
"""

_MAX_ROWS = 10_000
_MAX_RESULT_BYTES = 16 * 1024 * 1024
_LOCKED_TIMEOUT_SECONDS = 10.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class IdempotencyRecord:
    """The outcome of a request. `result` is JSON, either the generated images or an error.

    If `is_final` is False, only requests that arrived before `made_at` get this outcome. `made_at` is in
    seconds since the epoch.
    """

    request: str
    result: str
    is_final: bool
    made_at: float

    @classmethod
    def from_images(cls, request: str, generations: Sequence[StoredGeneration]) -> "IdempotencyRecord":
        """Create the record of a successful request."""
        images = []
        for generation in generations:
            image = asdict(generation.image)
            del image["url"]
            facts = {"model": generation.model, "seed": generation.seed, "time": generation.time.isoformat()}
            images.append(image | facts)
        return cls(request, json.dumps({"images": images}), True, time.time())

    @classmethod
    def from_error(cls, request: str, error: AppError, is_final: bool) -> "IdempotencyRecord":
        """Create the record of a failed request. If `is_final` is False, the request may be sent again."""
        result = {"code": error.code, "message": error.message, "retry_after": error.retry_after}
        return cls(request, json.dumps(result), is_final, time.time())

    def generations(self, urls: ImageUrls) -> list[StoredGeneration]:
        """Return the images with their current URLs. If the request failed, raise its error."""
        result = json.loads(self.result)
        if "code" in result:
            raise _error_from(result)
        return [_generation_from(image, urls) for image in result["images"]]


def _generation_from(fields: dict[str, Any], urls: ImageUrls) -> StoredGeneration:
    model, seed, drawn_at = fields.pop("model"), fields.pop("seed"), fields.pop("time")
    info = fields.pop("info", None)  # missing in records of older versions
    image = StoredImage(url=urls.url_of(fields["key"]), info=info and ImageInfo(**info), **fields)
    return StoredGeneration(image, model, seed, datetime.fromisoformat(drawn_at))


def _error_from(fields: dict[str, Any]) -> AppError:
    """Return an error of the class whose code is in `fields`, or an `AppError` if there is no such class."""
    classes = [AppError]
    for error_class in classes:
        if error_class.code == fields["code"]:
            error = error_class(fields["message"])
            error.retry_after = fields.get("retry_after")
            return error
        classes += error_class.__subclasses__()
    return AppError()


class IdempotencyRecords:
    """A SQLite table of records in the file at `path`. The oldest records are deleted to stay within the
    limits.

    Each call opens a connection, so that no connection is shared with other threads or forked processes.
    Calls are rare enough for this. Methods raise `StateUnavailable` if the file can't be used.
    """

    def __init__(self, path: Path, max_rows: int = _MAX_ROWS, max_bytes: int = _MAX_RESULT_BYTES) -> None:
        self._path = path
        self._limits = (max_rows, max_bytes)

    def find(self, key: str) -> IdempotencyRecord | None:
        """Return the record of the request with this key, or None if there is no record."""
        with self._connection() as database:
            row = database.execute(
                "SELECT request, result, is_final, made_at FROM outcome WHERE key = ? AND expires_at >= ?",
                (key, time.time()),
            ).fetchone()
        return row and IdempotencyRecord(row[0], row[1], bool(row[2]), row[3])

    def save(self, key: str, record: IdempotencyRecord, lifetime: float = _KEY_LIFETIME_SECONDS) -> None:
        """Keep the record for `lifetime` seconds after it was made."""
        row = (key, record.request, record.result, record.is_final, record.made_at, record.made_at + lifetime)
        with self._connection() as database:
            database.execute("BEGIN IMMEDIATE")
            database.execute("INSERT OR REPLACE INTO outcome VALUES (?, ?, ?, ?, ?, ?)", row)
            database.execute(_DELETE_SURPLUS, (time.time(), *self._limits))
            database.execute("COMMIT")

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        with state_errors_mapped():
            self._path.parent.mkdir(parents=True, exist_ok=True)
            database = sqlite3.connect(self._path, _LOCKED_TIMEOUT_SECONDS, isolation_level=None)
            with closing(database):
                database.execute(_SCHEMA)
                yield database


class IdempotencyKeys:
    """Allows one request per key at a time on this machine. `directory` holds the lock files."""

    def __init__(self, directory: Path, records: IdempotencyRecords) -> None:
        self._directory = directory
        self._records = records

    @contextmanager
    def claim(self, key: str, request: str, deadline: float) -> Iterator[IdempotencyRecord | None]:
        """Yield the outcome of the request, or None if the caller must do the work.

        If this yields None, the caller holds the key for the duration of the block and must call `save`
        before leaving the block. If it doesn't call `save`, the next request with the key does the work.

        Raises `IdempotencyKeyReused` if the key was sent with a different request, `IdempotencyKeyInUse` if
        another request still holds the key at `deadline` (a time of `time.monotonic`), and
        `StateUnavailable`.
        """
        arrived = time.time()
        while not (record := self._find(key, request, arrived)):
            with self._lock(key, request, deadline) as is_ours:
                # Another request may have saved a record between `_find` and `_lock`.
                if is_ours and not self._find(key, request, arrived):
                    yield None
                    return
        yield record

    def save(self, key: str, record: IdempotencyRecord) -> bool:
        """Save the record of a claimed key. If that fails, log a warning and return False.

        The images have been paid for, so the client must get them even if the outcome can't be recorded.
        """
        try:
            self._records.save(key, record)
        except StateUnavailable:
            _log.warning("The outcome of a generation could not be recorded in STATE_DIR", exc_info=True)
            return False
        with suppress(OSError, StateUnavailable):  # the next request tries again
            self._remove_abandoned_files()
        return True

    def _find(self, key: str, request: str, arrived: float) -> IdempotencyRecord | None:
        record = self._records.find(key)
        if record is None or not (record.is_final or record.made_at >= arrived):
            return None
        if record.request != request:
            raise IdempotencyKeyReused
        return record

    @contextmanager
    def _lock(self, key: str, request: str, deadline: float) -> Iterator[bool]:
        """Hold the lock of the key during the block and yield True.

        If another request holds the lock, wait until the lock is released, then yield False. The lock file
        contains the digest of the request that holds the lock.
        """
        path = self._directory / key
        with self._open(path) as descriptor:
            if not try_lock(descriptor):
                _wait_until_unlocked(descriptor, request, deadline)
                yield False
            elif not os.fstat(descriptor).st_nlink:  # another request removed the file after we opened it
                yield False
            else:
                with state_errors_mapped():
                    os.pwrite(descriptor, request.encode(), 0)
                try:
                    yield True
                finally:
                    with suppress(OSError):  # closing releases the lock, and the file is removed later
                        path.unlink()

    @contextmanager
    def _open(self, path: Path) -> Iterator[int]:
        with ExitStack() as stack:
            with state_errors_mapped():
                self._directory.mkdir(parents=True, exist_ok=True)
                descriptor = stack.enter_context(opened(path))
            yield descriptor

    def _remove_abandoned_files(self) -> None:
        """Remove old lock files, which killed processes left behind."""
        for path in self._directory.iterdir():
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                    with self._open(path) as descriptor:
                        if try_lock(descriptor):
                            path.unlink()


def _wait_until_unlocked(descriptor: int, request: str, deadline: float) -> None:
    if os.pread(descriptor, 1024, 0) not in (b"", request.encode()):
        raise IdempotencyKeyReused
    while not try_lock(descriptor, SHARED):  # shared, so that waiting requests don't block each other
        if time.monotonic() > deadline:
            raise IdempotencyKeyInUse
        time.sleep(_LOCK_POLL_SECONDS)
