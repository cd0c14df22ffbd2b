"""Images that were drawn and paid for, on disk until they are stored.

An image is written here as soon as it is drawn, and removed once the outcome of its order is in the ledger.
If the store is away or the process is killed in between, the same order, sent again, finds the image here.

Each file holds a line of JSON and the image's bytes. The total is bounded in files, bytes and time: to make
room, the oldest go first. If a file can't be written, the order goes on without it.
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
from app.core.system import lock_now, opened
from app.imaging.check import CheckedImage
from app.services.drawing import Drawn

_log = logging.getLogger(__name__)

MOST_BYTES = 256 * 1024**2
MOST_FILES = 1_000
LIFETIME = 86_400.0
"""Seconds; as long as an Idempotency-Key is remembered."""

_BLOCK = 4096
_LOCK_SECONDS = 5.0
_LOOK_SECONDS = 0.02
_LONGEST_HEADER = 8192

_DAMAGED = (ValueError, TypeError, LookupError, RecursionError)


@dataclass(frozen=True, slots=True)
class Unstored:
    """A drawn image, the object key to store it under, and when it was drawn.

    Each attempt to store it uses the same object key: a put whose answer was lost is not repeated elsewhere.
    """

    key: str
    drawn: Drawn
    time: datetime


@dataclass(frozen=True, slots=True, order=True)
class _File:
    mtime: float
    path: Path
    size: int


class Spool:
    """The files in `directory`, shared by all worker processes."""

    def __init__(
        self,
        directory: Path,
        *,
        most_bytes: int = MOST_BYTES,
        most_files: int = MOST_FILES,
        lifetime: float = LIFETIME,
    ) -> None:
        self._directory = directory
        self._lock = directory.with_name(f"{directory.name}.lock")
        self._most_bytes = most_bytes
        self._most_files = most_files
        self._lifetime = lifetime

    def keep(self, order: str, number: int, image: Unstored) -> None:
        """Write the image `number` of `order`, a digest, durably; log a warning if that fails."""
        try:
            self._write(self._path(order, number), _content(image))
        except (OSError, TypeError, ValueError) as exc:  # a custom generator's seed may be of any type
            _log.warning("A drawn image can't be kept in STATE_DIR until it is stored: %s", exc)

    def recall(self, order: str, count: int) -> dict[int, Unstored]:
        """Return those of the `count` images of `order` that are here, by their numbers."""
        found = {}
        for number in range(count):
            if image := self._read(self._path(order, number)):
                found[number] = image
        return found

    def forget(self, order: str, count: int) -> None:
        """Remove the `count` images of `order`, as far as they are here."""
        for number in range(count):
            try:
                self._path(order, number).unlink(missing_ok=True)
            except OSError as exc:
                _log.warning("A stored image can't be removed from STATE_DIR: %s", exc)

    def sweep(self) -> None:
        """Remove what is too old, if it can be removed."""
        with suppress(OSError):  # mostly because there is no such directory
            for file in self._files():
                if self._has_expired(file.mtime):
                    file.path.unlink(missing_ok=True)

    def _path(self, order: str, number: int) -> Path:
        return self._directory / f"{order}.{number}"

    def _write(self, path: Path, content: bytes) -> None:
        temporary = self._directory / f"{secrets.token_hex(16)}.tmp"
        try:
            with os.fdopen(self._reserve(temporary, len(content)), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            with self._locked():  # else who counts meanwhile may find neither name
                temporary.replace(path)
            _sync(self._directory)
        except OSError:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise

    def _reserve(self, path: Path, size: int) -> int:
        """Create a file of `size` bytes, to be overwritten, and return its descriptor.

        The lock is not held while the bytes are written: the file has its full size before, and counts.
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
        if _disk_bytes(size) > self._most_bytes:
            raise OSError(EFBIG, f"{size} bytes are more than the {self._most_bytes} that may be kept")
        self.sweep()
        files = sorted(self._files())
        total, evicted = sum(file.size for file in files) + _disk_bytes(size), 0
        while len(files) - evicted >= self._most_files or total > self._most_bytes:
            files[evicted].path.unlink(missing_ok=True)
            total -= files[evicted].size
            evicted += 1
        if evicted:
            _log.warning("%d drawn images, never stored, were removed from STATE_DIR to make room", evicted)

    def _files(self) -> Iterator[_File]:
        for path in self._directory.iterdir():
            with suppress(FileNotFoundError):  # removed since it was listed
                status = path.stat()
                if stat.S_ISREG(status.st_mode):
                    yield _File(status.st_mtime, path, _disk_bytes(status.st_size))

    def _has_expired(self, mtime: float) -> bool:
        """Files that claim to be from the future count as well: the clock may have been set back."""
        return abs(time.time() - mtime) > self._lifetime

    def _read(self, path: Path) -> Unstored | None:
        """The image in a file; None if there is no such file, or it is too old or damaged."""
        try:
            with open(path, "rb") as file:
                if self._has_expired(os.fstat(file.fileno()).st_mtime):
                    return None
                header = file.readline(_LONGEST_HEADER)
                return _image(header, file.read(self._most_bytes))
        except FileNotFoundError:
            return None
        except OSError as exc:
            _log.warning("A drawn image can't be read from STATE_DIR: %s", exc)
        except _DAMAGED as exc:
            _log.warning("A drawn image in STATE_DIR is damaged: %s: %r", path, exc)
        return None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock of all processes; raises TimeoutError, an OSError, if another one does for long."""
        deadline = time.monotonic() + _LOCK_SECONDS
        with opened(self._lock) as descriptor:
            while not lock_now(descriptor):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"another process holds {self._lock}")
                time.sleep(_LOOK_SECONDS)
            yield


def _content(image: Unstored) -> bytes:
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
        "sha256": hashlib.sha256(checked.data).hexdigest(),
    }
    return json.dumps(header).encode() + b"\n" + checked.data


def _image(header: bytes, data: bytes) -> Unstored:
    """The opposite of `_content`; raises one of `_DAMAGED`."""
    fields = json.loads(header)
    if hashlib.sha256(data).hexdigest() != fields["sha256"]:
        raise ValueError("other bytes than were written")
    size = fields["width"], fields["height"], fields["frames"]
    checked = CheckedImage(data, FORMATS[fields["format"]], *size)
    drawn = Drawn(checked, fields["model"], fields["seed"])
    return Unstored(fields["key"], drawn, datetime.fromisoformat(fields["time"]))


def _disk_bytes(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _sync(directory: Path) -> None:
    """Make a rename durable (fsync(2)); some file systems can't, and then it is found all the same."""
    with suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
