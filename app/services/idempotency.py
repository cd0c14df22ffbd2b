"""Doing a request once, however often it is sent, across threads, processes and restarts.

Whoever does it holds a lock on a file named for its key. The kernel lets go of that however a process ends,
so no key stays locked. The others wait for that lock, and find the outcome in the ledger.

What came of requests that must not be done twice: a SQLite table of outcomes, bounded in rows and bytes.

A database connection serves one statement: outcomes are read and written once in many seconds, and nothing is
shared between threads or with the parent of a fork. Rows hold digests of keys, never a key.

Outcomes as JSON and back: the images that were stored, or the error that the first to ask was answered.
"""

import json
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from app.core.errors import AppError, IdempotencyKeyInUse, IdempotencyKeyReused, StateUnavailable
from app.core.system import SHARED, lock_now, opened
from app.services.drawing import StoredGeneration
from app.services.images import StoredImage
from app.services.slots import state_errors_mapped

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


_log = logging.getLogger(__name__)


def outcome_of(
    request: str, work: Callable[[], Sequence[StoredGeneration]], *final: type[AppError]
) -> Outcome:
    """What comes of `work`, errors included; it may be tried again after those that are not `final`."""
    result: dict[str, Any]
    try:
        result, is_final = {"images": [_to_dict(generation) for generation in work()]}, True
    except AppError as exc:
        result = {"code": exc.code, "message": exc.message, "retry_after": exc.retry_after}
        is_final = isinstance(exc, final)
        _log.warning("generation failed: %s", exc)
    return Outcome(request, json.dumps(result), is_final, time.time())


def generations_in(outcome: Outcome, url_of: Callable[[str], str]) -> list[StoredGeneration]:
    """The images of an outcome, with their URLs as of today; raises the error that it was."""
    result = json.loads(outcome.result)
    if "code" in result:
        raise _error_of(result)
    return [_from_dict(image, url_of) for image in result["images"]]


def keys_in(outcome: Outcome) -> list[str]:
    """The keys of an outcome's images; none of an error."""
    return [image["key"] for image in json.loads(outcome.result).get("images", [])]


def _to_dict(generation: StoredGeneration) -> dict[str, Any]:
    image = asdict(generation.image)
    del image["url"]
    return {
        **image,
        "model": generation.model,
        "seed": generation.seed,
        "time": generation.time.isoformat(),
    }


def _from_dict(record: dict[str, Any], url_of: Callable[[str], str]) -> StoredGeneration:
    model, seed, time_text = record.pop("model"), record.pop("seed"), record.pop("time")
    image = StoredImage(url=url_of(record["key"]), **record)
    return StoredGeneration(image, model, seed, datetime.fromisoformat(time_text))


def _error_of(record: dict[str, Any]) -> AppError:
    """An error of the class that has this code."""
    classes = [AppError]
    for known in classes:
        if known.code == record["code"]:
            error = known(record["message"])
            error.retry_after = record.get("retry_after")
            return error
        classes += known.__subclasses__()
    return AppError()


_LOOK_SECONDS = 0.05
_ABANDONED_SECONDS = 86_400


@dataclass(frozen=True, slots=True)
class Rules:
    """How many seconds an outcome is remembered, how many a request waits for it, and which ones count.

    `on_kept` is called, under the key's lock, once the outcome of new work is in the ledger.
    """

    lifetime: float
    patience: float
    counts: Callable[[Outcome], bool] = lambda outcome: True
    on_kept: Callable[[Outcome], None] = lambda outcome: None


class Once:
    """Runs work under keys, which are digests; their locks lie in `directory`."""

    def __init__(self, directory: Path, ledger: Ledger) -> None:
        self._directory = directory
        self._ledger = ledger

    def run(self, key: str, request: str, rules: Rules, work: Callable[[], Outcome]) -> Outcome:
        """The outcome of `work`, or that of an earlier or simultaneous run under the same key.

        Raises `IdempotencyKeyReused` where that run's request was another, `IdempotencyKeyInUse` where it
        takes too long, and `StateUnavailable`.
        """
        arrived, deadline = time.time(), time.monotonic() + rules.patience
        while True:
            if found := self._found(key, request, arrived, rules):
                return found
            with self._claim(key, request, deadline) as is_ours:
                # Another may have done it between our look into the ledger and our claim.
                if is_ours and (found := self._found(key, request, arrived, rules)):
                    return found
                if is_ours:
                    return self._do(key, rules, work)

    def _do(self, key: str, rules: Rules, work: Callable[[], Outcome]) -> Outcome:
        """What was paid for is answered, even where it can't be remembered."""
        outcome = work()
        try:
            self._ledger.keep(key, outcome, rules.lifetime)
            rules.on_kept(outcome)
            with state_errors_mapped():
                self._sweep()
        except StateUnavailable:
            _log.warning("the outcome of a generation could not be kept", exc_info=True)
        return outcome

    def _found(self, key: str, request: str, arrived: float, rules: Rules) -> Outcome | None:
        """A failure that may be tried again counts for those who waited for it, and not for the next."""
        outcome = self._ledger.recall(key)
        if outcome is None or not (outcome.is_final or outcome.made_at >= arrived):
            return None
        if outcome.request != request:
            raise IdempotencyKeyReused
        return outcome if rules.counts(outcome) else None

    @contextmanager
    def _claim(self, key: str, request: str, deadline: float) -> Iterator[bool]:
        """Hold the key in this block, or where another holds it, wait until it no longer does."""
        path = self._directory / key
        with self._opened(path) as descriptor:
            if not lock_now(descriptor):
                _wait(descriptor, request, deadline)
                yield False
            elif not os.fstat(descriptor).st_nlink:  # removed by another between our open and our lock
                yield False
            else:
                with state_errors_mapped():
                    os.pwrite(descriptor, request.encode(), 0)
                try:
                    yield True
                finally:
                    with suppress(OSError):  # what is left is swept, and the lock on it ends here
                        path.unlink()

    @contextmanager
    def _opened(self, path: Path) -> Iterator[int]:
        with ExitStack() as stack:
            with state_errors_mapped():
                self._directory.mkdir(parents=True, exist_ok=True)
                descriptor = stack.enter_context(opened(path))
            yield descriptor

    def _sweep(self) -> None:
        """Remove what killed processes left, under keys that nobody used again."""
        for path in self._directory.iterdir():
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                    with self._opened(path) as descriptor:
                        if lock_now(descriptor):
                            path.unlink()


def _wait(descriptor: int, request: str, deadline: float) -> None:
    """Many can wait at once, for a shared lock shuts none of them out."""
    if os.pread(descriptor, 1024, 0) not in (b"", request.encode()):
        raise IdempotencyKeyReused
    while not lock_now(descriptor, SHARED):
        if time.monotonic() > deadline:
            raise IdempotencyKeyInUse
        time.sleep(_LOOK_SECONDS)
