"""Code shared by bulk imports and exports: results, concurrency, and metadata files.

A store can keep metadata with an image. An export writes the metadata to a file in the exported directory:

    .metadata/<path of the image>.json    {"sha256": digest of the image's file, "metadata": names and values}

An import uses the metadata file only if the image's file still has that digest.
"""

import hashlib
import json
import re
import threading
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from app.core.errors import AppError
from app.core.object_metadata import MAX_METADATA_BYTES
from app.core.objects import NO_METADATA

T = TypeVar("T")

METADATA_DIRECTORY = ".metadata"

_MAX_METADATA_FILE_BYTES = 64 * 1024

_METADATA_NAME = re.compile(r"[a-z0-9-]+\Z")
_METADATA_VALUE = re.compile(r"(?! )[\x20-\x7e]*(?<! )\Z")

_QUEUED_PER_THREAD = 4
"""Maximum number of submitted items per thread. With this many items, no thread becomes idle while another
thread works on a slow item."""


class BulkOutcome(StrEnum):
    """What happened to a file or an image."""

    DONE = "done"
    UNCHANGED = "there_already"
    SKIPPED = "skipped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class BulkResult:
    """The outcome for a file or an image. `name` is its path or key.

    `reason` says why the item was not processed, or what was left out; it may be empty.
    """

    name: str
    outcome: BulkOutcome
    reason: str = ""

    @classmethod
    def failed(cls, name: str, error: AppError | OSError) -> "BulkResult":
        """Create the result for an item that failed with `error`."""
        reason = str(error) if isinstance(error, AppError) else error.strerror
        return cls(name, BulkOutcome.FAILED, reason or type(error).__name__)


@dataclass
class BulkReport:
    """Counts outcomes and collects the results that have a reason. Threads can share a report."""

    counts: Counter[BulkOutcome] = field(default_factory=Counter)
    remarks: list[BulkResult] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, result: BulkResult) -> None:
        """Add a result."""
        with self._lock:
            self.counts[result.outcome] += 1
            if result.reason:
                self.remarks.append(result)


def run_concurrently(
    work: Callable[[T], BulkResult], items: Iterable[T], concurrency: int, report: BulkReport
) -> Generator[None, None, None]:
    """Call `work` with each item in `concurrency` threads and add the results to `report`.

    Yield once for each item. When the generator is closed or interrupted, items in progress are finished, and
    no further items are started.
    """
    pool = ThreadPoolExecutor(concurrency)
    pending: deque[Future[None]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(lambda item: report.add(work(item)), item))
            if len(pending) >= _QUEUED_PER_THREAD * concurrency:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


class UnusableMetadata(ValueError):
    """Raised if a metadata file is unreadable, belongs to different bytes, or has names or values that can't
    be stored.
    """


def metadata_path(name: str) -> Path:
    """Return the path of the metadata file for the image at `name`. Both are relative to the same root."""
    return Path(METADATA_DIRECTORY, f"{name}.json")


def serialize_metadata(digest: str, metadata: Mapping[str, str]) -> bytes:
    """Return the content of a metadata file. `digest` is the SHA-256 digest of the image's file, in hex."""
    return json.dumps({"sha256": digest, "metadata": dict(metadata)}, indent=1).encode()


def read_metadata(root: Path, name: str, data: bytes) -> Mapping[str, str]:
    """Return the metadata for the image at `name` below `root`, whose file contains `data`.

    The result is empty if there is no metadata file. Raises `UnusableMetadata`.
    """
    try:
        with (root / metadata_path(name)).open("rb") as file:
            loaded = json.loads(file.read(_MAX_METADATA_FILE_BYTES))
    except FileNotFoundError:
        return NO_METADATA
    except (OSError, ValueError, RecursionError) as exc:
        raise UnusableMetadata(f"can't be read: {type(exc).__name__}") from exc
    metadata = loaded.get("metadata") if isinstance(loaded, dict) else None
    if not isinstance(metadata, dict) or loaded.get("sha256") != hashlib.sha256(data).hexdigest():
        raise UnusableMetadata("belongs to different bytes")
    if not _can_be_stored(metadata):
        raise UnusableMetadata("has names or values that can't be stored")
    return metadata


def _can_be_stored(metadata: Mapping[str, object]) -> bool:
    """Return whether `BaseStore.put` accepts the metadata."""
    size = sum(len(name) + len(str(value)) for name, value in metadata.items())
    return size <= MAX_METADATA_BYTES and all(
        _METADATA_NAME.match(name) and isinstance(value, str) and _METADATA_VALUE.match(value)
        for name, value in metadata.items()
    )
