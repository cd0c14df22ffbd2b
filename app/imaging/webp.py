"""WebP (RFC 9649): a walk over the RIFF chunks that keeps those needed to draw."""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from app.core.errors import UndecodableImage
from app.imaging.survey import (
    UPRIGHT,
    ByteReader,
    ImageLimits,
    PartCount,
    Survey,
    bounded,
    check_profile,
    orientation_of,
)

_FRAME_PARTS = {b"ALPH", b"VP8 ", b"VP8L"}
_KEPT = _FRAME_PARTS | {b"VP8X", b"ICCP", b"ANIM", b"ANMF"}
_HEAD = 12
_FRAME_HEAD = 16
_EXIF_FLAG, _XMP_FLAG, _ANIMATION_FLAG = 0x08, 0x04, 0x02
_LOSSY_START = b"\x9d\x01\x2a"
_LOSSLESS_START = 0x2F


class _Chunk(NamedTuple):
    kind: bytes
    payload: bytes
    padding: bytes

    def encoded(self) -> bytes:
        return self.kind + len(self.payload).to_bytes(4, "little") + self.payload + self.padding


def survey_webp(data: bytes, limits: ImageLimits) -> Survey:
    """Walk to the end that the RIFF header gives.

    Raises UndecodableImage if a chunk is cut, or if a picture is not as large as its frame or canvas;
    TooManyPixels. The canvas is checked here because the decoder allocates it as soon as it is made.
    """
    found = list(bounded(_chunks(data, _HEAD, _end(data))))
    frames = sum(chunk.kind == b"ANMF" for chunk in found)
    canvas = _canvas(found[0])
    limits.check(canvas, max(1, frames))
    orientations = [orientation_of(chunk.payload) for chunk in found if chunk.kind == b"EXIF"]
    # Without VP8X the first chunk is the whole image, whatever follows.
    found = found if found[0].kind == b"VP8X" else found[:1]
    in_frames = PartCount()
    _check_pictures(found, canvas, in_frames)
    body = b"WEBP" + b"".join(_cleaned(chunk, in_frames).encoded() for chunk in found if chunk.kind in _KEPT)
    return Survey(
        b"RIFF" + len(body).to_bytes(4, "little") + body,
        *canvas,
        frames=max(1, frames),
        orientation=orientations[0] if orientations and not frames else UPRIGHT,
    )


def _check_pictures(found: list[_Chunk], canvas: tuple[int, int], in_frames: PartCount) -> None:
    """Refuse pictures of another size than their frame or canvas, and what decoders take differently."""
    kinds = Counter(chunk.kind for chunk in found)
    animated = found[0].kind == b"VP8X" and bool(found[0].payload[0] & _ANIMATION_FLAG)
    if max(kinds[b"VP8X"], kinds[b"ICCP"], kinds[b"ANIM"]) > 1 or bool(kinds[b"ANMF"]) != animated:
        raise UndecodableImage(detail=f"chunks {dict(kinds)}")
    for chunk in found:
        check_profile(len(chunk.payload) * (chunk.kind == b"ICCP"))
        if chunk.kind == b"ANMF":
            reader = ByteReader(chunk.payload)
            left, top = 2 * reader.little(3), 2 * reader.little(3)
            size = reader.little(3) + 1, reader.little(3) + 1
            if left + size[0] > canvas[0] or top + size[1] > canvas[1]:
                raise UndecodableImage(detail=f"a frame of {size} at {left}, {top} on {canvas}")
            parts = in_frames.bounded(_chunks(chunk.payload, _FRAME_HEAD, len(chunk.payload)))
            _check_picture(list(parts), size)
    if not animated:
        _check_picture(found, canvas)
    elif kinds.keys() & _FRAME_PARTS:
        raise UndecodableImage(detail="a still image in an animation")


def _check_picture(parts: list[_Chunk], size: tuple[int, int]) -> None:
    """Refuse anything but one picture of this size, with alpha before it or without (RFC 9649, 2.7)."""
    drawn = [part for part in parts if part.kind in _FRAME_PARTS]
    pictures = [part for part in drawn if part.kind != b"ALPH"]
    if len(pictures) != 1 or len(drawn) > 2 or drawn[-1] is not pictures[0] or _canvas(pictures[0]) != size:
        raise UndecodableImage(detail=f"pictures {[part.kind for part in drawn]} not of {size}")


def is_lossless(data: bytes) -> bool:
    """Whether a still image keeps its pixels exactly; an alpha channel always does."""
    return any(chunk.kind == b"VP8L" for chunk in _chunks(data, _HEAD, _end(data)))


def _end(data: bytes) -> int:
    end = 8 + int.from_bytes(data[4:8], "little")
    if not _HEAD < end <= len(data):
        raise UndecodableImage(detail=f"the RIFF header says {end} bytes, there are {len(data)}")
    return end


def _chunks(data: bytes, start: int, end: int) -> Iterator[_Chunk]:
    reader = ByteReader(data, start, end)
    while reader.left:
        kind, length = reader.take(4), reader.little(4)
        payload = reader.take(length)
        # Some writers leave out the padding byte of the last chunk.
        yield _Chunk(kind, payload, reader.take(min(length % 2, reader.left)))


def _canvas(chunk: _Chunk) -> tuple[int, int]:
    """Width and height in pixels as the head of an image or picture has them (RFC 9649, 2.5 to 2.7)."""
    kind, payload, _ = chunk
    reader = ByteReader(payload)
    if kind == b"VP8X":
        reader.take(4)
        return reader.little(3) + 1, reader.little(3) + 1
    if kind == b"VP8 ":
        reader.take(3)
        start = reader.take(3)
        width, height = reader.little(2) & 0x3FFF, reader.little(2) & 0x3FFF
        return _known(start == _LOSSY_START, width, height)
    start_byte, bits = reader.big(1), reader.little(4)
    known = kind == b"VP8L" and start_byte == _LOSSLESS_START
    return _known(known, (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)


def _known(known: bool, width: int, height: int) -> tuple[int, int]:
    if not known:
        raise UndecodableImage(detail="a chunk that is no image header")
    return width, height


def _cleaned(chunk: _Chunk, in_frames: PartCount) -> _Chunk:
    """The chunk without a mention of EXIF and XMP, and a frame without parts that aren't drawn."""
    if chunk.kind == b"VP8X":
        flags = chunk.payload[0] & ~(_EXIF_FLAG | _XMP_FLAG)
        return chunk._replace(payload=bytes((flags,)) + chunk.payload[1:10])
    if chunk.kind == b"ANMF":
        parts = in_frames.bounded(_chunks(chunk.payload, _FRAME_HEAD, len(chunk.payload)))
        drawn = b"".join(part.encoded() for part in parts if part.kind in _FRAME_PARTS)
        return _Chunk(chunk.kind, chunk.payload[:_FRAME_HEAD] + drawn, b"\0" * (len(drawn) % 2))
    return chunk
