"""Keep generated images on disk until they are in the store, since they have been paid for.

An image is written to disk as soon as it is generated, and is removed once the outcome of its request is
recorded. If the store is unavailable or the process is killed in between, the client can send the request
again, and the image on disk is used.

A file contains a line of JSON and the image's bytes. The number, the total size and the age of the files are
limited, and the oldest files are removed to make room. If an image can't be written to disk,
its request continues without the copy on disk.
"""

import hashlib
import json
import logging
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from errno import EFBIG
from pathlib import Path

from app.core.objects import FORMATS
from app.core.system import opened, try_lock
from app.imaging.check import CheckedImage
from app.services.drawing import DrawnImage

MAX_BYTES = 256 * 1024**2
MAX_FILES = 1_000
MAX_AGE_SECONDS = 86_400.0
"""Maximum age of a file. It equals the lifetime of an idempotency key."""

_BLOCK_BYTES = 4096
_MAX_HEADER_BYTES = 8192
_LOCK_TIMEOUT_SECONDS = 5.0
_LOCK_POLL_SECONDS = 0.02

_PARSE_ERRORS = (ValueError, TypeError, LookupError, RecursionError)
"""The exceptions that `_parse` raises for a damaged file."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class UnstoredImage:
    """A generated image, the object key under which to store it, and the time when it was generated.

    Every attempt to store the image uses the same key, so the store never gets a second copy, even if an
    earlier attempt succeeded but its response was lost.
    """

    key: str
    drawn: DrawnImage
    time: datetime


@dataclass(frozen=True, slots=True, order=True)
class _File:
    mtime: float
    path: Path
    size: int


class UnstoredImages:
    """Manages the files in `directory`. All worker processes share the directory.

    Methods identify a request by a digest, and its images by their numbers.
    """

    def __init__(
        self,
        directory: Path,
        *,
        max_bytes: int = MAX_BYTES,
        max_files: int = MAX_FILES,
        max_age: float = MAX_AGE_SECONDS,
    ) -> None:
        self._directory = directory
        self._lock = directory.with_name(f"{directory.name}.lock")
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._max_age = max_age

    def write(self, request: str, number: int, image: UnstoredImage) -> None:
        """Write an image and sync it to disk. Log a warning if that fails."""
        try:
            self._write(self._path(request, number), _serialize(image))
        except (OSError, TypeError, ValueError) as exc:  # the seed of a custom generator can have any type
            _log.warning("A generated image can't be kept in STATE_DIR until it is stored: %s", exc)

    def read(self, request: str, count: int) -> dict[int, UnstoredImage]:
        """Return those of the request's `count` images that are on disk, as a dict from numbers to images."""
        images = {number: self._read(self._path(request, number)) for number in range(count)}
        return {number: image for number, image in images.items() if image}

    def remove(self, request: str, count: int) -> None:
        """Remove the request's `count` images from disk if they exist. Log a warning if that fails."""
        for number in range(count):
            try:
                self._path(request, number).unlink(missing_ok=True)
            except OSError as exc:
                _log.warning("A stored image can't be removed from STATE_DIR: %s", exc)

    def remove_expired(self) -> None:
        """Remove files that are too old. Ignore errors."""
        with suppress(OSError):  # usually because the directory does not exist
            for file in self._files():
                if self._has_expired(file.mtime):
                    file.path.unlink(missing_ok=True)

    def _path(self, request: str, number: int) -> Path:
        return self._directory / f"{request}.{number}"

    def _write(self, path: Path, content: bytes) -> None:
        temporary = self._directory / f"{secrets.token_hex(16)}.tmp"
        try:
            with os.fdopen(self._reserve(temporary, len(content)), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            with self._locked():  # otherwise a process that adds up sizes might see neither name
                temporary.replace(path)
            _sync_directory(self._directory)
        except OSError:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise

    def _reserve(self, path: Path, size: int) -> int:
        """Create a file of `size` bytes, which the caller overwrites, and return its descriptor.

        The file counts toward the limits immediately, so the caller can write it without holding the lock.
        """
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._locked():
            self._make_room(size)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                os.truncate(descriptor, size)
            except OSError:
                os.close(descriptor)
                raise
            return descriptor

    def _make_room(self, size: int) -> None:
        """Remove expired files. Then remove the oldest files until there is room for `size` bytes."""
        if _disk_bytes(size) > self._max_bytes:
            raise OSError(EFBIG, f"{size} bytes exceed the limit of {self._max_bytes} for all images")
        self.remove_expired()
        files = sorted(self._files())
        total, removed = sum(file.size for file in files) + _disk_bytes(size), 0
        while len(files) - removed >= self._max_files or total > self._max_bytes:
            files[removed].path.unlink(missing_ok=True)
            total -= files[removed].size
            removed += 1
        if removed:
            _log.warning("%d generated images that were never stored were removed from STATE_DIR", removed)

    def _files(self) -> Iterator[_File]:
        for path in self._directory.iterdir():
            with suppress(FileNotFoundError):  # another process removed the file
                status = path.stat()
                if stat.S_ISREG(status.st_mode):
                    yield _File(status.st_mtime, path, _disk_bytes(status.st_size))

    def _has_expired(self, mtime: float) -> bool:
        """Return whether `mtime` is too far in the past, or in the future because the clock was set back."""
        return abs(time.time() - mtime) > self._max_age

    def _read(self, path: Path) -> UnstoredImage | None:
        """Return the image in a file, or None if the file is missing, too old or damaged."""
        try:
            with open(path, "rb") as file:
                if self._has_expired(os.fstat(file.fileno()).st_mtime):
                    return None
                header = file.readline(_MAX_HEADER_BYTES)
                return _parse(header, file.read(self._max_bytes))
        except FileNotFoundError:
            return None
        except OSError as exc:
            _log.warning("A generated image can't be read from STATE_DIR: %s", exc)
        except _PARSE_ERRORS as exc:
            _log.warning("A generated image in STATE_DIR is damaged: %s: %r", path, exc)
        return None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock that all processes share. Raise `TimeoutError` if it does not become free in time."""
        deadline = time.monotonic() + _LOCK_TIMEOUT_SECONDS
        with opened(self._lock) as descriptor:
            while not try_lock(descriptor):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"another process holds {self._lock}")
                time.sleep(_LOCK_POLL_SECONDS)
            yield


def _serialize(image: UnstoredImage) -> bytes:
    checked = image.drawn.checked
    header = {
        "key": image.key,
        "time": image.time.isoformat(),
        "model": image.drawn.model,
        "seed": image.drawn.seed,
        "format": checked.format.name,
        "width": checked.width,
        "height": checked.height,
        "frames": checked.frames,
        "has_alpha": checked.has_alpha,
        "thumbhash": checked.thumbhash,
        "sha256": hashlib.sha256(checked.data).hexdigest(),
    }
    return json.dumps(header).encode() + b"\n" + checked.data


def _parse(header: bytes, data: bytes) -> UnstoredImage:
    """Return the image that `_serialize` wrote. Raise one of `_PARSE_ERRORS` if the file is damaged."""
    fields = json.loads(header)
    if hashlib.sha256(data).hexdigest() != fields["sha256"]:
        raise ValueError("the bytes do not match their SHA-256")
    checked = CheckedImage(
        data,
        FORMATS[fields["format"]],
        fields["width"],
        fields["height"],
        fields["frames"],
        fields.get("has_alpha", True),  # older versions wrote no such facts
        fields.get("thumbhash", ""),
    )
    drawn = DrawnImage(checked, fields["model"], fields["seed"])
    return UnstoredImage(fields["key"], drawn, datetime.fromisoformat(fields["time"]))


def _disk_bytes(size: int) -> int:
    return -(-size // _BLOCK_BYTES) * _BLOCK_BYTES


def _sync_directory(directory: Path) -> None:
    """Sync the directory, so that a rename is durable. Ignore file systems that can't sync directories."""
    with suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
