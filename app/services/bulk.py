"""What became of each file or image, counted.

What stores keep with an image besides its bytes, in files beside exported images.

    .metadata/<path of the image>.json    {"sha256": digest of the image's file, "metadata": names and values}

An import uses one only if the image's file still has the digest.

Which files of a directory are worth a look.

Many items, a few at a time.

Images in bulk: from a directory into the store, and back.
"""

import hashlib
import json
import os
import re
import stat
import threading
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from app.core.errors import AppError
from app.core.objects import NO_METADATA


class Outcome(StrEnum):
    """What became of one of them."""

    DONE = "done"
    THERE = "there_already"
    SKIPPED = "skipped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Result:
    """One of them, by its path or key; `reason` says why it was skipped or failed."""

    name: str
    outcome: Outcome
    reason: str = ""


@dataclass
class Tally:
    """Counts results, and keeps those with a reason. Threads may share it."""

    counts: Counter[Outcome] = field(default_factory=Counter)
    remarks: list[Result] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, result: Result) -> None:
        """Count one more."""
        with self._lock:
            self.counts[result.outcome] += 1
            if result.reason:
                self.remarks.append(result)


def failure(name: str, exc: AppError | OSError) -> Result:
    """The result for what could not be done."""
    told = str(exc) if isinstance(exc, AppError) else exc.strerror
    return Result(name, Outcome.FAILED, told or type(exc).__name__)


DIRECTORY = ".metadata"

_LARGEST = 64 * 1024
"""Bytes of a sidecar that are read."""

_MOST_METADATA = 2048
"""Bytes of names and values that S3 takes (https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html)."""

_NAME = re.compile(r"[a-z0-9-]+\Z")
_VALUE = re.compile(r"(?! )[\x20-\x7e]*(?<! )\Z")


class UnusableMetadata(ValueError):
    """A sidecar that belongs to other bytes, or holds what no store keeps."""


def sidecar_path(root: Path, name: str) -> Path:
    """Return where the metadata of the image at `name` below `root` is kept."""
    return root / DIRECTORY / f"{name}.json"


def dump(data_digest: str, metadata: Mapping[str, str]) -> bytes:
    """Return a sidecar's content for an image whose bytes have this SHA-256, in hex digits."""
    return json.dumps({"sha256": data_digest, "metadata": dict(metadata)}, indent=1).encode()


def load(root: Path, name: str, data: bytes) -> Mapping[str, str]:
    """Return the metadata kept for the image at `name` below `root`, whose bytes are `data`; maybe none.

    Raises `UnusableMetadata`.
    """
    try:
        with sidecar_path(root, name).open("rb") as file:
            loaded = json.loads(file.read(_LARGEST))
    except FileNotFoundError:
        return NO_METADATA
    except (OSError, ValueError, RecursionError) as exc:
        raise UnusableMetadata(f"can't be read: {type(exc).__name__}") from exc
    metadata = loaded.get("metadata") if isinstance(loaded, dict) else None
    if not isinstance(metadata, dict) or loaded.get("sha256") != hashlib.sha256(data).hexdigest():
        raise UnusableMetadata("belongs to other bytes")
    if not _can_be_kept(metadata):
        raise UnusableMetadata("has names or values that stores don't keep")
    return metadata


def _can_be_kept(metadata: Mapping[str, object]) -> bool:
    """Return whether `BaseStore.put` takes it."""
    fits = sum(len(name) + len(str(value)) for name, value in metadata.items()) <= _MOST_METADATA
    return fits and all(
        _NAME.match(name) and isinstance(value, str) and _VALUE.match(value)
        for name, value in metadata.items()
    )


def find_files(root: Path, tally: Tally) -> list[str]:
    """The regular files below `root`, by their paths below it, in order.

    Hidden ones, symbolic links and special files are left out and counted as skipped; a directory that
    can't be read counts as failed.
    """

    def unreadable(exc: OSError) -> None:
        tally.add(failure(os.path.relpath(exc.filename, root), exc))

    def wanted(path: Path) -> bool:
        why_not = _why_not(root / path)
        if why_not:
            tally.add(Result(path.as_posix(), Outcome.SKIPPED, why_not))
        return not why_not

    found: list[str] = []
    for parent, directories, names in os.walk(root, onerror=unreadable):
        below = Path(parent).relative_to(root)
        if parent == str(root) and DIRECTORY in directories:  # the importer reads it beside each image
            directories.remove(DIRECTORY)
        directories[:] = sorted(name for name in directories if wanted(below / name))
        found += (path.as_posix() for name in sorted(names) if wanted(path := below / name))
    return found


def _why_not(path: Path) -> str:
    """Why it is left out; nothing where it isn't, nor where it is gone by now: reading it will tell."""
    if path.name.startswith("."):
        return "hidden"
    try:
        mode = path.lstat().st_mode
    except OSError:
        return ""
    if stat.S_ISLNK(mode):
        return "a symbolic link"
    return "" if stat.S_ISREG(mode) or stat.S_ISDIR(mode) else "a special file"


T = TypeVar("T")

_AHEAD = 4
"""How many items per thread are handed out at a time: enough that no thread waits for a slow neighbour."""


def run(
    work: Callable[[T], Result], items: Iterable[T], concurrency: int, tally: Tally
) -> Generator[None, None, None]:
    """Do `work` on each item in `concurrency` threads and count what became of it; yields once for each.

    Where the iteration ends early, closed or interrupted, items under way are finished and counted, and no
    other is begun.
    """
    pool = ThreadPoolExecutor(concurrency)
    pending: deque[Future[None]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(lambda given: tally.add(work(given)), item))
            if len(pending) >= _AHEAD * concurrency:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
