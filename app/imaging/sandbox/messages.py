"""Messages between the processes: lines of JSON, which can't contain code; the reader checks each field.

Unnamed files that pass an image's bytes from one process to another.
"""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from app.core.errors import AppError, TooManyPixels, UndecodableImage, UnsupportedImage
from app.core.objects import FORMATS
from app.imaging.check import CheckedImage
from app.imaging.sniff import sniff_format
from app.imaging.survey import ImageLimits


def anonymous_file(data: bytes = b"") -> int:
    """Return the descriptor of a new file that holds `data`: in memory where the system can, else on disk."""
    try:
        descriptor = os.memfd_create("image")
    except (OSError, AttributeError):  # refused, or not Linux
        descriptor = _unlinked_file()
    try:
        write(descriptor, data)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def write(descriptor: int, data: bytes) -> None:
    """Write all of `data` at the file's position."""
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


def contents(descriptor: int, most: int) -> bytes:
    """Return all bytes of the file; raise UndecodableImage if there are more than `most`."""
    size = os.fstat(descriptor).st_size
    if size > most:
        raise UndecodableImage(detail=f"a file of {size} bytes")
    data = bytearray()
    while piece := os.pread(descriptor, size - len(data), len(data)):
        data += piece
    return bytes(data)


def _unlinked_file() -> int:
    """Do what `tempfile.TemporaryFile` does, without `random`, which each fork would seed again."""
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"s3-image-server-{os.urandom(16).hex()}"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    path.unlink()
    return descriptor


_REFUSALS: dict[str, type[AppError]] = {
    error.code: error for error in (UnsupportedImage, UndecodableImage, TooManyPixels)
}
_LONGEST_TEXT = 500
_LARGEST_PIXEL = 8
"""Bytes of a pixel of 16-bit RGBA that is not compressed at all."""

_FRAME_OF_A_FILE = 1 << 20
_TIMES_LARGER = 16
"""A strongly compressed WebP that is written again at a high quality grows about eight times."""


def job_line(limits: ImageLimits) -> bytes:
    """Write the limits that the image is checked against."""
    return _line(asdict(limits))


def limits_in(line: bytes) -> ImageLimits:
    """Read what `job_line` wrote."""
    fields = json.loads(line)
    return ImageLimits(**{**fields, "formats": tuple(fields["formats"])})


def checked_line(checked: CheckedImage, *, changed: bool) -> bytes:
    """Write what was found; `changed` if the bytes to store differ from those received."""
    return _line(
        {
            "changed": changed,
            "format": checked.format.name,
            "width": checked.width,
            "height": checked.height,
            "frames": checked.frames,
        }
    )


def refused_line(error: AppError) -> bytes:
    """Write why the image is refused; `memory` is true if the child ran out of memory."""
    texts = {"message": error.message[:_LONGEST_TEXT], "detail": error.detail[:_LONGEST_TEXT]}
    return _line({"refused": error.code, **texts, "memory": isinstance(error.__cause__, MemoryError)})


def ended_line(status: int, cpu: float, memory: int) -> bytes:
    """Write how the child ended (wait(2)), its CPU seconds and the most bytes that it held."""
    return _line({"status": status, "cpu": cpu, "memory": memory})


def unstarted_line(reason: str) -> bytes:
    """Write why no child could be started."""
    return _line({"unstarted": reason})


def fields_of(line: bytes) -> dict[str, Any]:
    """Read an object; raises ValueError for anything else."""
    try:
        fields = json.loads(line)
    except RecursionError as exc:
        raise ValueError("too deep") from exc
    if not isinstance(fields, dict):
        raise ValueError(f"no object: {line[:100]!r}")
    return fields


def refusal_in(answer: dict[str, Any]) -> AppError:
    """Return the error that `refused_line` wrote; raises ValueError for anything else."""
    texts = [answer.get("message"), answer.get("detail")]
    kind = _REFUSALS.get(str(answer.get("refused")))
    if kind is None or not all(map(_is_text, texts)):
        raise ValueError("no refusal")
    return kind(answer["message"], detail=answer["detail"])


def checked_in(answer: dict[str, Any], data: bytes, limits: ImageLimits) -> CheckedImage:
    """Return the image that `checked_line` wrote, with `data` as its bytes.

    A decoder that was taken over may write anything: raises ValueError if a field is invalid or exceeds
    `limits`.
    """
    width, height, frames = (_count(answer.get(name)) for name in ("width", "height", "frames"))
    image_format = FORMATS.get(str(answer.get("format")))
    try:
        limits.check((width, height), frames)
        sniffed = sniff_format(data, limits.formats)
    except AppError as exc:
        raise ValueError(str(exc)) from exc
    if image_format is None or image_format != sniffed:
        raise ValueError("bytes of another format")
    return CheckedImage(data, image_format, width, height, frames)


def most_stored(file_size: int, pixels: int) -> int:
    """Return the most bytes that may be stored for an image received as a file of `file_size` bytes.

    An image that is turned upright is compressed again. It may grow, but not beyond its uncompressed pixels.
    """
    return _FRAME_OF_A_FILE + min(_TIMES_LARGER * file_size, 2 * file_size + _LARGEST_PIXEL * pixels)


def _count(value: object) -> int:
    if type(value) is not int or value < 1:
        raise ValueError(f"no count: {str(value)[:100]}")
    return value


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value.isprintable() and len(value) <= _LONGEST_TEXT


def _line(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields).encode() + b"\n"
