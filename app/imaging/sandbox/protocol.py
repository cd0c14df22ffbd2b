"""What the worker and the decoder processes agree on: messages, files, and resource limits.

Messages are lines of JSON, which can't contain code. The worker checks each field of what it reads, since
an image may have taken control of the child that wrote it.
"""

import json
import os
from dataclasses import asdict, dataclass
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


def encode_job(limits: ImageLimits) -> bytes:
    """Encode the limits that the image is checked against."""
    return _encode(asdict(limits))


def decode_job(line: bytes) -> ImageLimits:
    """Decode a line that `encode_job` wrote."""
    fields = json.loads(line)
    return ImageLimits(**{**fields, "formats": tuple(fields["formats"])})


def encode_checked(checked: CheckedImage, *, changed: bool) -> bytes:
    """Encode the facts of a checked image; `changed` if the bytes to store differ from those received."""
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
    """Encode why the image is refused; `memory` is true if the child ran out of memory."""
    texts = {"message": error.message[:_MAX_TEXT_CHARACTERS], "detail": error.detail[:_MAX_TEXT_CHARACTERS]}
    return _encode({"refused": error.code, **texts, "memory": isinstance(error.__cause__, MemoryError)})


def encode_exit(status: int, cpu: float, memory: int) -> bytes:
    """Encode how a child ended: its wait(2) status, its CPU seconds and its peak memory in bytes."""
    return _encode({"status": status, "cpu": cpu, "memory": memory})


def encode_start_failure(reason: str) -> bytes:
    """Encode why no child could be started."""
    return _encode({"unstarted": reason})


def decode_answers(received: bytes) -> list[dict[str, Any]]:
    """Return the fields of each line; raise ValueError if one is not a JSON object."""
    try:
        answers = [json.loads(line) for line in received.splitlines()]
    except RecursionError as exc:
        raise ValueError("nested too deeply") from exc
    if not all(isinstance(answer, dict) for answer in answers):
        raise ValueError(f"not an object: {received[:100]!r}")
    return answers


def refusal_in(answer: dict[str, Any]) -> AppError:
    """Return the error that `encode_refusal` wrote; raise ValueError for anything else."""
    texts = [answer.get("message"), answer.get("detail")]
    kind = _REFUSALS.get(str(answer.get("refused")))
    if kind is None or not all(map(_is_text, texts)):
        raise ValueError("not a refusal")
    return kind(answer["message"], detail=answer["detail"])


def checked_in(answer: dict[str, Any], data: bytes, limits: ImageLimits) -> CheckedImage:
    """Return the image that `encode_checked` wrote, with `data` as its bytes.

    Raises ValueError if a field is invalid or exceeds `limits`, or if `data` has another format's signature.
    """
    width, height, frames = (_positive(answer.get(name)) for name in ("width", "height", "frames"))
    image_format = FORMATS.get(str(answer.get("format")))
    try:
        limits.check((width, height), frames)
        sniffed = sniff_format(data, limits.formats)
    except AppError as exc:
        raise ValueError(str(exc)) from exc
    if image_format is None or image_format != sniffed:
        raise ValueError("bytes of another format")
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
    """Write all of `data` at the file's position."""
    remaining = memoryview(data)
    while remaining:
        remaining = remaining[os.write(descriptor, remaining) :]


def read_all(descriptor: int, max_bytes: int) -> bytes:
    """Return all bytes of the file; raise UndecodableImage if there are more than `max_bytes`."""
    size = os.fstat(descriptor).st_size
    if size > max_bytes:
        raise UndecodableImage(detail=f"a file of {size} bytes")
    data = bytearray()
    while piece := os.pread(descriptor, size - len(data), len(data)):
        data += piece
    return bytes(data)


_MIB = 1 << 20

_SURVEY_CPU_SECONDS = 6
"""For parsing the container, before a decoder runs."""
_SURVEY_MEMORY_BYTES = 32 * _MIB
_SURVEY_COPIES = 6
"""Memory for parsing, as a multiple of the file's size: copies, and the parts that are kept."""

_DECODING_CPU_SECONDS = 6
_CPU_SECONDS_PER_MEGAPIXEL = 1.5
"""Four times what the slowest valid images take, PNG and lossy WebP that are turned upright."""
_DECODING_BYTES_PER_PIXEL = 30
_DECODING_COPIES = 20
"""For the worst valid images known, WebP that is turned upright; see docs/limits.md. What an encoder needs
for noise grows with the file, the rest with the pixels."""

_WALL_SECONDS = 20.0
_WALL_SECONDS_PER_CPU_SECOND = 3.0
"""Wall-clock limits stop a process that waits instead of computing; they leave room for a busy machine."""

_FORMAT_OVERHEAD_BYTES = _MIB
_MAX_REENCODING_GROWTH = 16
"""A strongly compressed WebP that is encoded again at a high quality grows about eight times."""
_MAX_BYTES_PER_PIXEL = 8
"""Bytes of an uncompressed pixel of 16-bit RGBA."""


@dataclass(frozen=True, slots=True)
class ResourceLimits:
    """Limits of a child: CPU time, and address space in addition to the host's."""

    cpu_seconds: int
    memory_bytes: int

    @property
    def wall_seconds(self) -> float:
        """Return the wall-clock limit in seconds."""
        return _WALL_SECONDS + _WALL_SECONDS_PER_CPU_SECOND * self.cpu_seconds


def survey_limits(file_size: int) -> ResourceLimits:
    """Return the limits while only the file's size in bytes is known."""
    return ResourceLimits(_SURVEY_CPU_SECONDS, _SURVEY_MEMORY_BYTES + _SURVEY_COPIES * file_size)


def decoding_limits(file_size: int, pixels: int) -> ResourceLimits:
    """Return the limits for all work on an image of `pixels` pixels, in all frames together."""
    cpu_seconds = _DECODING_CPU_SECONDS + round(pixels / 1e6 * _CPU_SECONDS_PER_MEGAPIXEL)
    return ResourceLimits(
        _SURVEY_CPU_SECONDS + cpu_seconds,
        _SURVEY_MEMORY_BYTES + _DECODING_BYTES_PER_PIXEL * pixels + _DECODING_COPIES * file_size,
    )


def max_stored_bytes(file_size: int, pixels: int) -> int:
    """Return the most bytes that may be stored for an image received as a file of `file_size` bytes.

    An image that is turned upright is compressed again. It may grow, up to the size of its uncompressed
    pixels.
    """
    growth = min(_MAX_REENCODING_GROWTH * file_size, 2 * file_size + _MAX_BYTES_PER_PIXEL * pixels)
    return _FORMAT_OVERHEAD_BYTES + growth
