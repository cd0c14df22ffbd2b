"""The messages and files that the worker and the decoder processes exchange.

The worker sends a job. The child reports the checked image or why it was refused, and the host reports how
the child ended. Each message is a line of JSON, which can't contain code. The worker validates each field of
the reports, since an image may have taken control of the child that wrote them.
"""

import json
import os
from dataclasses import asdict
from typing import Any

from app.core.errors import AppError, TooManyPixels, UndecodableImage, UnsupportedImage
from app.core.objects import FORMATS
from app.imaging.check import CheckedImage
from app.imaging.sniff import sniff_format
from app.imaging.survey import ImageLimits

_REFUSALS: dict[str, type[AppError]] = {
    error.code: error for error in (UnsupportedImage, UndecodableImage, TooManyPixels)
}
_MAX_TEXT_CHARACTERS = 500

_FORMAT_OVERHEAD_BYTES = 1 << 20
_MAX_REENCODING_GROWTH = 16
"""Maximum factor by which a file may grow when it is encoded again. A strongly compressed WebP image
becomes about eight times larger when it is encoded again at a high quality."""
_MAX_BYTES_PER_PIXEL = 8
"""Maximum size of an uncompressed pixel. Pixels in 16-bit RGBA have this size."""


def encode_job(limits: ImageLimits) -> bytes:
    """Encode a job: the limits against which the image is checked."""
    return _encode(asdict(limits))


def decode_job(line: bytes) -> ImageLimits:
    """Return the limits encoded by `encode_job`."""
    fields = json.loads(line)
    return ImageLimits(**{**fields, "formats": tuple(fields["formats"])})


def encode_checked(checked: CheckedImage, *, changed: bool) -> bytes:
    """Encode the format, the size and the number of frames of a checked image.

    `changed` is true if the bytes to store differ from the bytes received.
    """
    return _encode(
        {
            "changed": changed,
            "format": checked.format.name,
            "width": checked.width,
            "height": checked.height,
            "frames": checked.frames,
        }
    )


def encode_refusal(error: AppError) -> bytes:
    """Encode the error of a refused image. The field `memory` is true if the child ran out of memory."""
    texts = {"message": error.message[:_MAX_TEXT_CHARACTERS], "detail": error.detail[:_MAX_TEXT_CHARACTERS]}
    return _encode({"refused": error.code, **texts, "memory": isinstance(error.__cause__, MemoryError)})


def encode_exit(status: int, cpu: float, memory: int) -> bytes:
    """Encode how a child ended: its wait(2) status, its CPU time in seconds, and its peak memory in bytes."""
    return _encode({"status": status, "cpu": cpu, "memory": memory})


def encode_start_failure(reason: str) -> bytes:
    """Encode why no child could be started."""
    return _encode({"unstarted": reason})


def decode_reports(received: bytes) -> list[dict[str, Any]]:
    """Return a dict of the fields of each line. Raises ValueError if a line is not a JSON object."""
    try:
        reports = [json.loads(line) for line in received.splitlines()]
    except RecursionError as exc:
        raise ValueError("nested too deeply") from exc
    if not all(isinstance(report, dict) for report in reports):
        raise ValueError(f"not an object: {received[:100]!r}")
    return reports


def decode_refusal(report: dict[str, Any]) -> AppError:
    """Return the error encoded by `encode_refusal`. Raises ValueError if `report` is not a valid refusal."""
    texts = [report.get("message"), report.get("detail")]
    kind = _REFUSALS.get(str(report.get("refused")))
    if kind is None or not all(map(_is_text, texts)):
        raise ValueError("not a refusal")
    return kind(report["message"], detail=report["detail"])


def decode_checked(report: dict[str, Any], data: bytes, limits: ImageLimits) -> CheckedImage:
    """Return the image that `report`, a result of `encode_checked`, describes, with `data` as its bytes.

    Raises ValueError if a field is invalid or exceeds `limits`, or if `data` has the signature of a different
    format.
    """
    width, height, frames = (_positive(report.get(name)) for name in ("width", "height", "frames"))
    image_format = FORMATS.get(str(report.get("format")))
    try:
        limits.check((width, height), frames)
        sniffed = sniff_format(data, limits.formats)
    except AppError as exc:
        raise ValueError(str(exc)) from exc
    if image_format is None or image_format != sniffed:
        raise ValueError("the format does not match the bytes")
    return CheckedImage(data, image_format, width, height, frames)


def _positive(value: object) -> int:
    if type(value) is not int or value < 1:
        raise ValueError(f"not a positive integer: {str(value)[:100]}")
    return value


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value.isprintable() and len(value) <= _MAX_TEXT_CHARACTERS


def _encode(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields).encode() + b"\n"


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of `data` at the current position of the file."""
    remaining = memoryview(data)
    while remaining:
        remaining = remaining[os.write(descriptor, remaining) :]


def read_all(descriptor: int, max_bytes: int) -> bytes:
    """Return the contents of the file. Raises UndecodableImage if it is larger than `max_bytes`."""
    size = os.fstat(descriptor).st_size
    if size > max_bytes:
        raise UndecodableImage(detail=f"a file of {size} bytes")
    data = bytearray()
    while piece := os.pread(descriptor, size - len(data), len(data)):
        data += piece
    return bytes(data)


def max_stored_bytes(file_size: int, pixels: int) -> int:
    """Return the maximum size in bytes of the file to store for an image.

    The received file has `file_size` bytes, and its frames together have at most `pixels` pixels. If the
    image is rotated upright, it is encoded again and may become larger. Its growth is limited to a factor of
    `_MAX_REENCODING_GROWTH`, and to the size of its uncompressed pixels plus twice the file size.
    """
    growth = min(_MAX_REENCODING_GROWTH * file_size, 2 * file_size + _MAX_BYTES_PER_PIXEL * pixels)
    return _FORMAT_OVERHEAD_BYTES + growth
