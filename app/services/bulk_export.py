"""Export the store's images into a directory."""

import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO, Self

from app.core.errors import AppError, InvalidKey, NotFound, StoreError, UnsupportedImage
from app.core.object_keys import check_readable, digest_in
from app.core.object_metadata import without_info
from app.core.objects import FORMATS
from app.core.system import sync
from app.imaging.sniff import sniff_format
from app.services.bulk import METADATA_DIRECTORY, BulkOutcome, BulkResult, metadata_path, serialize_metadata
from app.services.images import ListedImage
from app.stores.base import BaseStore

_CHUNK_BYTES = 256 * 1024

_SNIFFED_BYTES = 1024
"""Number of bytes at the start of a file that are enough to tell its format."""


class Exporter:
    """Writes images to files below `root`. The path of each file below `root` is the key of the image.

    Create an exporter with `Exporter.into`.

    Files are written atomically, and their mtime is set to the modification time of the image. If a file with
    the size and the modification time of the image exists, the image is not exported again. If only the mtime
    differs, the file is compared with the digest in the image's key, if the key contains one. The metadata
    file (see `app.services.bulk`) is written before the image.
    """

    def __init__(self, store: BaseStore, root: Path, temporary: Path) -> None:
        self._store = store
        self._root = root
        self._temporary = temporary

    @classmethod
    @contextmanager
    def into(cls, store: BaseStore, directory: Path) -> Iterator[Self]:
        """Yield an exporter that writes to `directory`, which is created if missing. Raises `OSError`."""
        directory.mkdir(parents=True, exist_ok=True)
        root = directory.resolve()
        with TemporaryDirectory(prefix=".export-", dir=root) as temporary:
            yield cls(store, root, Path(temporary))

    def export_image(self, image: ListedImage) -> BulkResult:
        """Write the image to its file."""
        try:
            if image.key.startswith(f"{METADATA_DIRECTORY}/"):
                raise InvalidKey(
                    f"An import would not read images in {METADATA_DIRECTORY}. Copy this image yourself."
                )
            path = self._path(image.key)
            if _is_exported(path, image):
                return BulkResult(image.key, BulkOutcome.UNCHANGED)
            self._write(image, path)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            reason = "its path needs a directory where there is a file, or a file where there is a directory"
            return BulkResult(image.key, BulkOutcome.FAILED, reason)
        except (AppError, OSError) as exc:
            return BulkResult.failed(image.key, exc)
        return BulkResult(image.key, BulkOutcome.DONE)

    def _path(self, key: str) -> Path:
        """Return the path of the file for a key. Raise `InvalidKey` if the path is not below the root."""
        check_readable(key)
        path = self._root / key
        if not path.parent.resolve().is_relative_to(self._root):
            raise InvalidKey("A symbolic link in its path leads outside the directory.")
        return path

    def _write(self, image: ListedImage, path: Path) -> None:
        """Write the image to a temporary file, write the metadata file, then rename the temporary file."""
        with self._temporary_path() as written:
            metadata, digest = self._fetch(image, written)
            if kept := without_info(metadata):  # an import computes the facts about the picture again
                self._write_metadata(image.key, serialize_metadata(digest, kept))
            path.parent.mkdir(parents=True, exist_ok=True)
            written.replace(path)

    def _write_metadata(self, key: str, content: bytes) -> None:
        path = self._path(metadata_path(key).as_posix())
        with self._temporary_path() as written:
            with open(written, "xb") as file:
                file.write(content)
                file.flush()
                sync(file.fileno())
            path.parent.mkdir(parents=True, exist_ok=True)
            written.replace(path)

    @contextmanager
    def _temporary_path(self) -> Iterator[Path]:
        """Yield a path for a new file. If the file still has this path after the block, remove it."""
        path = self._temporary / secrets.token_hex(16)
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def _fetch(self, image: ListedImage, path: Path) -> tuple[Mapping[str, str], str]:
        """Write the image to a new file at `path`. Return a tuple: its metadata and its SHA-256 in hex.

        Raises `NotFound` if the image was deleted since it was listed, and `StoreError` if its size differs
        from the listing although its modification time is not later.
        """
        stored = self._store.get(image.key)
        if stored is None:
            raise NotFound
        facts = stored.facts
        with stored, open(path, "x+b") as file:
            if facts.size != image.size and facts.last_modified <= image.last_modified:
                raise StoreError(detail=f"{facts.size} bytes, but {image.size} in the listing")
            shutil.copyfileobj(stored.body, file, _CHUNK_BYTES)
            if file.tell() != facts.size:
                raise StoreError(detail=f"{file.tell()} bytes instead of {facts.size}")
            file.flush()
            if facts.content_encoding:
                _check_not_encoded(file, facts.content_encoding)
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            modified = facts.last_modified.timestamp()
            with suppress(OSError):  # if this fails, the next export may fetch the image again
                os.utime(file.fileno(), (modified, modified))
            sync(file.fileno())
        return facts.metadata, digest


def _check_not_encoded(file: BinaryIO, codings: str) -> None:
    """Raise `UnsupportedImage` unless the file is already an image without decoding `codings`.

    The Content-Encoding header alone does not show whether the bytes are encoded: some programs set
    Content-Encoding to values such as `base64` or `utf-8` although the bytes are not encoded.
    """
    file.seek(0)
    try:
        sniff_format(file.read(_SNIFFED_BYTES), tuple(FORMATS))
    except UnsupportedImage as exc:
        raise UnsupportedImage(
            f"It is stored with Content-Encoding: {codings}, so its bytes alone are not an image. "
            "Fetch it with a client that can decode it, such as curl --compressed."
        ) from exc


def _is_exported(path: Path, image: ListedImage) -> bool:
    """Return whether the file at `path` already contains the image.

    The sizes must be equal. In addition, the mtime of the file must equal the modification time of the image,
    or the SHA-256 of the file must match the digest in the image's key.
    """
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    if not stat.S_ISREG(found.st_mode) or found.st_size != image.size:
        return False
    if int(found.st_mtime) == int(image.last_modified.timestamp()):
        return True
    digest = digest_in(image.key)
    if digest is None:
        return False
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest().startswith(digest)
