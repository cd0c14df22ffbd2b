"""Idempotency keys: a request sent again with the same key gets the first one's response, and does no work.

This holds across threads, worker processes and restarts. While a process works on a key it holds the lock
on a file of that name. The kernel releases the lock however the process ends, so no key stays in use. Other
requests with the key wait for the lock, then find the outcome in a SQLite table.

Keys and requests are digests here: neither an idempotency key nor a prompt is written to disk.
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
from app.core.system import SHARED, opened, try_lock
from app.services.drawing import StoredGeneration
from app.services.images import StoredImage
from app.services.slots import state_errors_mapped
from app.services.urls import ImageUrls

_KEY_LIFETIME_SECONDS = 86_400.0
_LOCK_POLL_SECONDS = 0.05
_ABANDONED_SECONDS = 86_400
"""The age at which the lock file of a killed process is removed."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS outcome (
    key TEXT PRIMARY KEY,              -- digest of the client and its idempotency key
    request TEXT NOT NULL,             -- digest of the request
    result TEXT NOT NULL,              -- JSON
    is_final INTEGER NOT NULL,         -- 0: an error after which the request may be sent again
    made_at REAL NOT NULL,             -- seconds since the epoch, like expires_at
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
    """The outcome of a request: `result` is JSON, either the generated images or an error.

    If it is not `is_final`, it only answers requests that were waiting for it. `made_at` is in seconds since
    the epoch.
    """

    request: str
    result: str
    is_final: bool
    made_at: float

    @classmethod
    def of_images(cls, request: str, generations: Sequence[StoredGeneration]) -> "IdempotencyRecord":
        """Make the record of a request that succeeded."""
        images = []
        for generation in generations:
            image = asdict(generation.image)
            del image["url"]
            facts = {"model": generation.model, "seed": generation.seed, "time": generation.time.isoformat()}
            images.append(image | facts)
        return cls(request, json.dumps({"images": images}), True, time.time())

    @classmethod
    def of_error(cls, request: str, error: AppError, is_final: bool) -> "IdempotencyRecord":
        """Make the record of a request that failed; unless `is_final` it may be sent again."""
        result = {"code": error.code, "message": error.message, "retry_after": error.retry_after}
        return cls(request, json.dumps(result), is_final, time.time())

    def generations(self, urls: ImageUrls) -> list[StoredGeneration]:
        """Return the images, with the URLs that they have now. Raise the error if the request failed."""
        result = json.loads(self.result)
        if "code" in result:
            raise _error_from(result)
        return [_generation_from(image, urls) for image in result["images"]]


def _generation_from(fields: dict[str, Any], urls: ImageUrls) -> StoredGeneration:
    model, seed, drawn_at = fields.pop("model"), fields.pop("seed"), fields.pop("time")
    image = StoredImage(url=urls.url_of(fields["key"]), **fields)
    return StoredGeneration(image, model, seed, datetime.fromisoformat(drawn_at))


def _error_from(fields: dict[str, Any]) -> AppError:
    """Return an error of the class with this code."""
    classes = [AppError]
    for error_class in classes:
        if error_class.code == fields["code"]:
            error = error_class(fields["message"])
            error.retry_after = fields.get("retry_after")
            return error
        classes += error_class.__subclasses__()
    return AppError()


class IdempotencyRecords:
    """A SQLite table of records in the file at `path`, limited in rows and bytes: the oldest are deleted.

    Each call opens a connection: calls are rare, and nothing is shared with threads or forked processes.
    Methods raise `StateUnavailable`.
    """

    def __init__(self, path: Path, max_rows: int = _MAX_ROWS, max_bytes: int = _MAX_RESULT_BYTES) -> None:
        self._path = path
        self._limits = (max_rows, max_bytes)

    def find(self, key: str) -> IdempotencyRecord | None:
        """Return the record of the request with this key, None if there is none."""
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
    """Lets one request per key do its work at a time, on this machine. `directory` holds the lock files."""

    def __init__(self, directory: Path, records: IdempotencyRecords) -> None:
        self._directory = directory
        self._records = records

    @contextmanager
    def claim(self, key: str, request: str, deadline: float) -> Iterator[IdempotencyRecord | None]:
        """Yield the record that answers the request, or None if the caller must do the work.

        In that case the caller holds the key during the block, and calls `save` before it ends. Otherwise
        other requests with the key do the work.

        Raises `IdempotencyKeyReused` if the key was sent with another request, `IdempotencyKeyInUse` if
        another process holds it at `deadline` (of `time.monotonic`), and `StateUnavailable`.
        """
        arrived = time.time()
        while not (record := self._find(key, request, arrived)):
            with self._lock(key, request, deadline) as is_ours:
                # Another process may have saved a record between the look-up and the lock.
                if is_ours and not self._find(key, request, arrived):
                    yield None
                    return
        yield record

    def save(self, key: str, record: IdempotencyRecord) -> bool:
        """Save the record of a claimed key. If that fails log a warning and return False.

        The work has been paid for, so its result must reach the client even if it can't be recorded.
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
        """Hold the key's lock during the block; yield False if another process held it and has released it.

        The file contains the request's digest.
        """
        path = self._directory / key
        with self._open(path) as descriptor:
            if not try_lock(descriptor):
                _wait_until_unlocked(descriptor, request, deadline)
                yield False
            elif not os.fstat(descriptor).st_nlink:  # another process removed it after we had opened it
                yield False
            else:
                with state_errors_mapped():
                    os.pwrite(descriptor, request.encode(), 0)
                try:
                    yield True
                finally:
                    with suppress(OSError):  # the lock ends all the same, and the file is removed later
                        path.unlink()

    @contextmanager
    def _open(self, path: Path) -> Iterator[int]:
        with ExitStack() as stack:
            with state_errors_mapped():
                self._directory.mkdir(parents=True, exist_ok=True)
                descriptor = stack.enter_context(opened(path))
            yield descriptor

    def _remove_abandoned_files(self) -> None:
        """Remove the lock files of killed processes whose keys were not used again."""
        for path in self._directory.iterdir():
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                    with self._open(path) as descriptor:
                        if try_lock(descriptor):
                            path.unlink()


def _wait_until_unlocked(descriptor: int, request: str, deadline: float) -> None:
    if os.pread(descriptor, 1024, 0) not in (b"", request.encode()):
        raise IdempotencyKeyReused
    while not try_lock(descriptor, SHARED):  # shared: the requests that wait do not exclude each other
        if time.monotonic() > deadline:
            raise IdempotencyKeyInUse
        time.sleep(_LOCK_POLL_SECONDS)
