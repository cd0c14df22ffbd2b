"""From the store into a directory."""

import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO, Self

from app.core.errors import AppError, InvalidKey, NotFound, StoreError, UnsupportedImage
from app.core.object_keys import check_readable, digest_in
from app.core.objects import FORMATS
from app.core.system import sync
from app.imaging.sniff import sniff_format
from app.services import bulk as sidecars
from app.services.bulk import Outcome, Result, failure
from app.stores.base import BaseStore

_CHUNK = 256 * 1024

_HEAD = 1024
"""Bytes of a file that say which format it has."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """An image as the store lists it; `size` is in bytes."""

    key: str
    size: int
    last_modified: datetime


class Exporter:
    """Writes images to files below `root`, by their keys; made by `into`.

    A file appears whole, with the time at which the store says that it was last changed. That and its size
    tell whether it is there already; without the time, the digest in its key does. What the store keeps with
    an image is written before it, as `app.services.bulk` describes.
    """

    def __init__(self, store: BaseStore, root: Path, aside: Path) -> None:
        self._store = store
        self._root = root
        self._aside = aside

    @classmethod
    @contextmanager
    def into(cls, store: BaseStore, directory: Path) -> Iterator[Self]:
        """An exporter into `directory`, which is made where it is missing. Raises `OSError`."""
        directory.mkdir(parents=True, exist_ok=True)
        root = directory.resolve()
        with TemporaryDirectory(prefix=".export-", dir=root) as aside:
            yield cls(store, root, Path(aside))

    def bring(self, wanted: Wanted) -> Result:
        """Write the image to its file."""
        try:
            if wanted.key.startswith(f"{sidecars.DIRECTORY}/"):
                raise InvalidKey(
                    f"Files in {sidecars.DIRECTORY} are not images for an import. Copy it yourself."
                )
            path = self._path(wanted.key)
            if _is_there(path, wanted):
                return Result(wanted.key, Outcome.THERE)
            self._write(wanted, path)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            reason = "its path needs a directory where there is a file, or a file where there is a directory"
            return Result(wanted.key, Outcome.FAILED, reason)
        except (AppError, OSError) as exc:
            return failure(wanted.key, exc)
        return Result(wanted.key, Outcome.DONE)

    def _path(self, key: str) -> Path:
        """Where the image goes. Raises `InvalidKey` for a key that leads elsewhere than below the root."""
        check_readable(key)
        path = self._root / key
        if not path.parent.resolve().is_relative_to(self._root):
            raise InvalidKey("A symbolic link leads out of the directory there.")
        return path

    def _write(self, wanted: Wanted, path: Path) -> None:
        """Write the image aside and sync it, then its metadata, then move it into place by one rename."""
        with self._written_aside() as written:
            metadata, digest = self._fetch(wanted, written)
            if metadata:
                self._write_sidecar(wanted.key, sidecars.dump(digest, metadata))
            path.parent.mkdir(parents=True, exist_ok=True)
            written.replace(path)

    @contextmanager
    def _written_aside(self) -> Iterator[Path]:
        written = self._aside / secrets.token_hex(16)
        try:
            yield written
        finally:
            written.unlink(missing_ok=True)

    def _write_sidecar(self, key: str, content: bytes) -> None:
        path = self._path(sidecars.sidecar_path(Path(), key).as_posix())
        with self._written_aside() as written:
            with open(written, "xb") as file:
                file.write(content)
                file.flush()
                sync(file.fileno())
            path.parent.mkdir(parents=True, exist_ok=True)
            written.replace(path)

    def _fetch(self, wanted: Wanted, written: Path) -> tuple[Mapping[str, str], str]:
        """Write the image to the file `written`; return its metadata and the SHA-256 of its bytes.

        Raises `StoreError` if it is not the one that was listed.
        """
        stored = self._store.get(wanted.key)
        if stored is None:
            raise NotFound
        with stored, open(written, "x+b") as file:
            if stored.facts.size != wanted.size and stored.facts.last_modified <= wanted.last_modified:
                raise StoreError(detail=f"{stored.facts.size} bytes, but {wanted.size} in the listing")
            shutil.copyfileobj(stored.body, file, _CHUNK)
            if file.tell() != stored.facts.size:
                raise StoreError(detail=f"{file.tell()} bytes instead of {stored.facts.size}")
            file.flush()
            _check_decoded(file, stored.facts.content_encoding)
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            changed = stored.facts.last_modified.timestamp()
            with suppress(OSError):  # refused: a named image is fetched again next time
                os.utime(file.fileno(), (changed, changed))
            sync(file.fileno())
        return stored.facts.metadata, digest


def _check_decoded(file: BinaryIO, codings: str) -> None:
    """Raise `UnsupportedImage` if somebody has to undo `codings` before the file is an image.

    Programs also write there what is no coding of the bytes, such as `base64` and `utf-8`.
    """
    if not codings:
        return
    file.seek(0)
    try:
        sniff_format(file.read(_HEAD), tuple(FORMATS))
    except UnsupportedImage as exc:
        raise UnsupportedImage(
            f"It is stored with Content-Encoding: {codings}, so its bytes alone are no image. "
            "Fetch it with a client that can decode it, such as curl --compressed."
        ) from exc


def _is_there(path: Path, wanted: Wanted) -> bool:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    if not stat.S_ISREG(found.st_mode) or found.st_size != wanted.size:
        return False
    same_time = int(found.st_mtime) == int(wanted.last_modified.timestamp())
    return same_time or _has_digest(path, digest_in(wanted.key))


def _has_digest(path: Path, digest: str | None) -> bool:
    """Whether the file is the image that a content-addressed key stands for, whenever it was written."""
    if digest is None:
        return False
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest().startswith(digest)
