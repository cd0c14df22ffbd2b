"""Import the images of a directory into the store."""

import errno
import mimetypes
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from app.core.errors import AppError, TooLarge, UnsupportedImage
from app.core.object_keys import content_addressed_key, imported_key, is_plain_name
from app.core.object_metadata import name_metadata
from app.core.objects import FORMATS
from app.imaging.check import CleanedImage, clean_image, decode_image
from app.imaging.sniff import sniff_format
from app.services.bulk import (
    METADATA_DIRECTORY,
    BulkOutcome,
    BulkReport,
    BulkResult,
    UnusableMetadata,
    read_metadata,
)
from app.services.images import ImageService

_MEDIA_TYPES = mimetypes.MimeTypes()
"""Python's built-in table of media types, which does not depend on the system's configuration."""

_SNIFFED_BYTES = 4096
"""Number of bytes to read from a file that is too large to import. These bytes
show whether the file is an image."""


def find_files(root: Path, report: BulkReport) -> list[str]:
    """Return the paths of the regular files below `root`, relative to `root` and in a stable order.

    Hidden files, hidden directories, symbolic links and special files are added to `report` as skipped.
    Directories that can't be read are added as failed.
    """

    def report_unreadable(exc: OSError) -> None:
        report.add(BulkResult.failed(os.path.relpath(exc.filename, root), exc))

    def is_wanted(path: Path) -> bool:
        reason = _reason_to_skip(root / path)
        if reason:
            report.add(BulkResult(path.as_posix(), BulkOutcome.SKIPPED, reason))
        return not reason

    found: list[str] = []
    for parent, directories, names in os.walk(root, onerror=report_unreadable):
        below = Path(parent).relative_to(root)
        if parent == str(root) and METADATA_DIRECTORY in directories:  # each file is read with its image
            directories.remove(METADATA_DIRECTORY)
        directories[:] = sorted(name for name in directories if is_wanted(below / name))
        found += (path.as_posix() for name in sorted(names) if is_wanted(path := below / name))
    return found


def _reason_to_skip(path: Path) -> str:
    """Return why a file or directory is skipped, or an empty string if it is not skipped."""
    if path.name.startswith("."):
        return "hidden"
    try:
        mode = path.lstat().st_mode
    except OSError:  # reading the file will fail too, and the failure is reported then
        return ""
    if stat.S_ISLNK(mode):
        return "a symbolic link"
    return "" if stat.S_ISREG(mode) or stat.S_ISDIR(mode) else "a special file"


class Importer:
    """Stores the images below `root`. Upload limits apply, and stored images are never replaced.

    By default, an object key is made from the image's bytes. With `keep_names`, the key is the file's path
    below `root`, adapted to the characters that are allowed in keys. In both cases `folder` is prepended. If
    an export wrote metadata for an image, the metadata is stored with the image. Files that are not images
    are skipped. With `strict`, they count as failed.

    An image that is already stored is recognized without being decoded, so it is cheap to repeat an import
    that was interrupted.

    Raises `InvalidKey` for an invalid `folder`.
    """

    def __init__(
        self,
        service: ImageService,
        root: Path,
        *,
        folder: str | None = None,
        keep_names: bool = False,
        strict: bool = False,
    ) -> None:
        content_addressed_key(b"", FORMATS["png"], folder)  # reports a bad folder once, not for each file
        self._service = service
        self._root = root
        self._folder = folder
        self._keep_names = keep_names
        self._strict = strict

    def import_file(self, path: str) -> BulkResult:
        """Store the image in the file at `path`, which is relative to the root."""
        try:
            return self._import_file(path)
        except UnsupportedImage as exc:
            if self._strict or _is_named_like_an_image(path):
                return BulkResult.failed(path, exc)
            return BulkResult(path, BulkOutcome.SKIPPED, exc.message)
        except (AppError, OSError) as exc:
            return BulkResult.failed(path, exc)

    def _import_file(self, path: str) -> BulkResult:
        data = self._read(path)
        cleaned = clean_image(data, self._service.limits)
        key = self._key(path, cleaned)
        if self._service.is_stored(key, cleaned.data):
            return BulkResult(path, BulkOutcome.UNCHANGED)
        metadata, remark = self._metadata(path, data)
        image = decode_image(cleaned, self._service.limits)
        created = self._service.import_image(key, image, metadata)
        return BulkResult(path, BulkOutcome.DONE if created else BulkOutcome.UNCHANGED, remark)

    def _read(self, path: str) -> bytes:
        limit = self._service.max_upload_bytes
        with open(self._root / path, "rb", opener=_open_regular_file) as file:
            size = os.fstat(file.fileno()).st_size
            data = file.read(limit + 1 if size <= limit else _SNIFFED_BYTES)
        if max(size, len(data)) > limit:
            sniff_format(data, self._service.limits.formats)  # a large file that is not an image is skipped
            raise TooLarge.for_image(limit)
        return data

    def _key(self, path: str, image: CleanedImage) -> str:
        if self._keep_names:
            return imported_key(path, image.data, image.format, self._folder)
        return content_addressed_key(image.data, image.format, self._folder)

    def _metadata(self, path: str, data: bytes) -> tuple[Mapping[str, str], str]:
        """Return a tuple: the metadata to store with the image, and a remark.

        The remark says why exported metadata can't be used. It is empty if there is no such problem.
        """
        metadata = name_metadata(path) if self._keep_names and not is_plain_name(path) else {}
        try:
            return {**metadata, **read_metadata(self._root, path, data)}, ""
        except UnusableMetadata as exc:
            return metadata, f"stored without its exported metadata, which {exc}"


def _is_named_like_an_image(path: str) -> bool:
    media_type = _MEDIA_TYPES.guess_type(path, strict=False)[0] or ""
    return media_type.startswith("image/") or path.lower().endswith(
        (".avif", ".heic", ".heif", ".jxl", ".webp")
    )


def _open_regular_file(path: str, flags: int) -> int:
    """Open the file. Raises `OSError` if it is not a regular file, even if it was one when it was found."""
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "This is not a regular file.")
    return descriptor
