"""The messages and files that the worker and the decoder processes exchange.

The worker sends a job. The child reports its result or why the image was refused, and the host reports how
the child ended. Each message is a line of JSON, which can't contain code. The worker validates each field of
the reports, since an image may have taken control of the child that wrote them.
"""

import json
import os
import re
from dataclasses import asdict, astuple
from typing import Any, NamedTuple

from app.core.errors import AppError, TooManyPixels, UndecodableImage, UnsupportedImage, VariantFailed
from app.core.object_metadata import ImageInfo
from app.core.objects import ImageFormat
from app.core.variant_specs import MAX_SIDE, VariantSpec
from app.imaging.check import CheckedImage
from app.imaging.sniff import sniff_format
from app.imaging.survey import ImageLimits
from app.imaging.variants import MadeVariant, VariantRequest

KINDS = ("check", "describe", "make")
"""The kinds of jobs."""

Report = dict[str, Any]

_REFUSALS: dict[str, type[AppError]] = {
    error.code: error for error in (UnsupportedImage, UndecodableImage, TooManyPixels, VariantFailed)
}
_MAX_TEXT_CHARACTERS = 500

_FORMAT_OVERHEAD_BYTES = 1 << 20
_MAX_REENCODING_GROWTH = 16
"""Maximum factor by which a file may grow when it is encoded again. A strongly compressed WebP image
becomes about eight times larger when it is encoded again at a high quality."""
_MAX_BYTES_PER_PIXEL = 8
"""Maximum size of an uncompressed pixel. Pixels in 16-bit RGBA have this size."""
_MAX_BYTES_PER_VARIANT_PIXEL = 5
"""Maximum size of a pixel in a variant: uncompressed RGBA in 8 bits, and what a PNG adds to noise."""

_THUMBHASH = re.compile(r"[A-Za-z0-9+/]{6,60}={0,2}", re.ASCII)


class Job(NamedTuple):
    """What a child is to do with an image: check it, describe it, or make a variant of it.

    `kind` is one of `KINDS`. `limits` apply to the image. `request` is the variant to make, or None.
    """

    kind: str
    limits: ImageLimits
    request: VariantRequest | None = None

    @property
    def max_pixels(self) -> int:
        """Return the maximum number of pixels to decode and to encode."""
        return self.limits.max_pixels + (self.request.max_pixels if self.request else 0)

    def max_result_bytes(self, file_size: int) -> int:
        """Return the maximum size in bytes of the child's result, for a file of `file_size` bytes."""
        if self.request is None:
            return max_stored_bytes(file_size, self.limits.max_pixels)
        return max_variant_bytes(self.request.max_pixels)


def encode_job(job: Job) -> bytes:
    """Encode a job."""
    request = {"request": asdict(job.request)} if job.request else {}
    return _encode({"kind": job.kind, "limits": asdict(job.limits), **request})


def decode_job(line: bytes) -> Job:
    """Return the job encoded by `encode_job`."""
    fields = json.loads(line)
    limits = ImageLimits(**{**fields["limits"], "formats": tuple(fields["limits"]["formats"])})
    request = fields.get("request")
    if request is not None:
        request = VariantRequest(**{**request, "spec": VariantSpec(**request["spec"])})
    return Job(fields["kind"], limits, request)


def encode_checked(checked: CheckedImage, *, changed: bool) -> bytes:
    """Encode the format of a checked image and the facts about it.

    `changed` is true if the bytes to store differ from the bytes received.
    """
    return _encode({"changed": changed, "format": checked.format.name, "info": asdict(checked.info)})


def encode_made(made: MadeVariant) -> bytes:
    """Encode everything about a variant except its bytes."""
    return _encode(
        {
            "width": made.width,
            "height": made.height,
            "frames": made.frames,
            "flattened": made.is_flattened,
            "source": [*made.source_size, made.source_frames],
        }
    )


def encode_described(info: ImageInfo) -> bytes:
    """Encode the facts about an image."""
    return _encode({"info": asdict(info)})


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


def decode_reports(received: bytes) -> list[Report]:
    """Return a dict of the fields of each line. Raises ValueError if a line is not a JSON object."""
    try:
        reports = [json.loads(line) for line in received.splitlines()]
    except RecursionError as exc:
        raise ValueError("nested too deeply") from exc
    if not all(isinstance(report, dict) for report in reports):
        raise ValueError(f"not an object: {received[:100]!r}")
    return reports


def decode_refusal(report: Report) -> AppError:
    """Return the error encoded by `encode_refusal`. Raises ValueError if `report` is not a valid refusal."""
    texts = [report.get("message"), report.get("detail")]
    kind = _REFUSALS.get(str(report.get("refused")))
    if kind is None or not all(map(_is_text, texts)):
        raise ValueError("not a refusal")
    return kind(report["message"], detail=report["detail"])


def decode_checked(report: Report, data: bytes, limits: ImageLimits) -> CheckedImage:
    """Return the image that `report`, a result of `encode_checked`, describes, with `data` as its bytes.

    Raises ValueError if a field is invalid or exceeds `limits`, or if `data` has the signature of a different
    format.
    """
    info = decode_described(report, limits)
    image_format = _sniffed(data, str(report.get("format")))
    if image_format.name not in limits.formats:
        raise ValueError("the format is not allowed")
    return CheckedImage(data, image_format, *astuple(info))


def decode_made(report: Report, data: bytes, request: VariantRequest, limits: ImageLimits) -> MadeVariant:
    """Return the variant that `report`, a result of `encode_made`, describes, with `data` as its bytes.

    Raises ValueError if a field is invalid, if the variant exceeds its limits, the box of its spec or the
    size of its source, or if `data` has the signature of a different format.
    """
    source_width, source_height, source_frames = map(_positive, report["source"])
    _check_limits(limits, source_width, source_height, source_frames)
    width, height, frames = (_positive(report.get(name)) for name in ("width", "height", "frames"))
    spec, is_padded = request.spec, request.spec.fit == "pad"
    too_wide = width > (spec.width or MAX_SIDE) or (width > source_width and not is_padded)
    too_high = height > (spec.height or MAX_SIDE) or (height > source_height and not is_padded)
    if too_wide or too_high or frames > source_frames or width * height * frames > request.max_pixels:
        raise ValueError(f"{frames} frames of {width} × {height}")
    if len(data) > max_variant_bytes(width * height * frames):
        raise ValueError(f"{len(data)} bytes for {frames} frames of {width} × {height}")
    _sniffed(data, request.format)
    is_flattened = _boolean(report.get("flattened"))
    return MadeVariant(
        data, width, height, frames, is_flattened, (source_width, source_height), source_frames
    )


def decode_described(report: Report, limits: ImageLimits) -> ImageInfo:
    """Return the facts that `report`, a result of `encode_described`, contains.

    Raises ValueError if a field is invalid or exceeds `limits`.
    """
    fields = report.get("info")
    if not isinstance(fields, dict):
        raise ValueError("no facts about the image")
    width, height, frames = (_positive(fields.get(name)) for name in ("width", "height", "frames"))
    placeholder = fields.get("thumbhash")
    if not isinstance(placeholder, str) or not _THUMBHASH.fullmatch(placeholder):
        raise ValueError(f"not a placeholder: {str(placeholder)[:100]}")
    _check_limits(limits, width, height, frames)
    return ImageInfo(width, height, frames, _boolean(fields.get("has_alpha")), placeholder)


def _check_limits(limits: ImageLimits, width: int, height: int, frames: int) -> None:
    """Raise ValueError if an image exceeds the limits."""
    try:
        limits.check((width, height), frames)
    except AppError as exc:
        raise ValueError(str(exc)) from exc


def _sniffed(data: bytes, name: str) -> ImageFormat:
    """Return the format of `data`. Raises ValueError unless its name is `name`."""
    try:
        return sniff_format(data, (name,))
    except AppError as exc:
        raise ValueError("the format does not match the bytes") from exc


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"neither true nor false: {str(value)[:100]}")
    return value


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
    """Return the contents of the file. Raises UndecodableImage if it is larger than `max_bytes`.

    The position of the file, which other processes may share, is neither used nor changed.
    """
    size = os.fstat(descriptor).st_size
    if size > max_bytes:
        raise UndecodableImage(detail=f"a file of {size} bytes")
    data = os.pread(descriptor, size, 0)  # all of it at once, except for files of several gigabytes
    while piece := os.pread(descriptor, size - len(data), len(data)):
        data += piece
    return data


def max_stored_bytes(file_size: int, pixels: int) -> int:
    """Return the maximum size in bytes of the file to store for an image.

    The received file has `file_size` bytes, and its frames together have at most `pixels` pixels. If the
    image is rotated upright, it is encoded again and may become larger. Its growth is limited to a factor of
    `_MAX_REENCODING_GROWTH`, and to the size of its uncompressed pixels plus twice the file size.
    """
    growth = min(_MAX_REENCODING_GROWTH * file_size, 2 * file_size + _MAX_BYTES_PER_PIXEL * pixels)
    return _FORMAT_OVERHEAD_BYTES + growth


def max_variant_bytes(pixels: int) -> int:
    """Return the maximum size in bytes of a variant whose frames together have `pixels` pixels."""
    return _FORMAT_OVERHEAD_BYTES + _MAX_BYTES_PER_VARIANT_PIXEL * pixels
