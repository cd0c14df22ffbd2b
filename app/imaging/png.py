"""PNG and APNG (W3C PNG, third edition): a walk over the chunks that keeps those needed to draw."""

import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

from app.errors import UndecodableImage
from app.imaging.bytereader import ByteReader
from app.imaging.exif import UPRIGHT, orientation_of
from app.imaging.limits import ImageLimits
from app.imaging.survey import Survey, bounded

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_DRAWING = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"bKGD", b"pHYs", b"acTL", b"fcTL", b"fdAT"}
COLOUR = (b"gAMA", b"cHRM", b"sRGB", b"cICP", b"mDCV", b"cLLI")
_KEPT = _DRAWING | {*COLOUR, b"iCCP", b"sBIT"}
_SINGLE = {b"PLTE", b"iCCP", b"acTL"}
"""Chunks that may occur once (5.6). Several profiles would each unpack to the decoder's limit."""
_FRAME_CONTROL = 26
"""Bytes of `fcTL` (11.3.6.2)."""
_PREVIOUS, _OVER = 2, 1
"""The highest of the operations that dispose of a frame, and of those that blend it with what is there."""
_ANCILLARY = 0x20
"""Bit of a type's first letter: set where a decoder may ignore the chunk (5.4)."""


class Chunk(NamedTuple):
    """One chunk; `raw` is all of it, with length and checksum."""

    kind: bytes
    payload: bytes
    raw: bytes


def chunks(data: bytes) -> Iterator[Chunk]:
    """Every chunk up to and including IEND; raises UndecodableImage where there is none."""
    reader = ByteReader(data, len(SIGNATURE))
    kind = b""
    while kind != b"IEND":
        start = reader.position
        length, kind = reader.big(4), reader.take(4)
        payload = reader.take(length)
        reader.take(4)
        yield Chunk(kind, payload, data[start : reader.position])


def survey_png(data: bytes, limits: ImageLimits) -> Survey:
    """Walk to IEND.

    Raises UndecodableImage if chunks are cut, damaged or in conflict, and TooManyPixels.
    """
    walk = _Walk(limits)
    for chunk in bounded(chunks(data)):
        walk.add(chunk)
    return walk.survey()


class _Walk:
    """Reads chunks one by one; `pieces` collects those that are kept."""

    def __init__(self, limits: ImageLimits) -> None:
        self.limits = limits
        self.pieces = [SIGNATURE]
        self.size = (0, 0)
        self.orientation = UPRIGHT
        self.seen: Counter[bytes] = Counter()
        self.announced = 0
        # Pixels before the first frame control are for still viewers; Pillow counts them as a frame.
        self.default_image = False

    def add(self, chunk: Chunk) -> None:
        """Read the next chunk."""
        _check_chunk(chunk, first=not self.seen)
        self.seen[chunk.kind] += 1
        if chunk.kind in _SINGLE and self.seen[chunk.kind] > 1:
            raise UndecodableImage(detail=f"{chunk.kind!r} is there twice")
        if chunk.kind == b"eXIf":
            self.orientation = orientation_of(chunk.payload)
        elif reader := _READERS.get(chunk.kind):
            reader(self, ByteReader(chunk.payload))
        if chunk.kind in _KEPT:
            self.pieces.append(chunk.raw)

    def _header(self, reader: ByteReader) -> None:
        if reader.left != 13:
            raise UndecodableImage(detail=f"IHDR of {reader.left} bytes")
        self.size = reader.big(4), reader.big(4)
        self.limits.check(self.size, 1)

    def _animation(self, reader: ByteReader) -> None:
        if reader.left != 8 or self.seen[b"IDAT"]:
            raise UndecodableImage(detail="acTL is wrong or too late")
        self.announced = reader.big(4)
        self.limits.check(self.size, self.announced)

    def _frame(self, reader: ByteReader) -> None:
        """Refuse a frame that does not lie on the canvas, and one whose operations are unknown.

        Browsers show the still image alone of a file with one of those.
        """
        if reader.left != _FRAME_CONTROL:
            raise UndecodableImage(detail=f"fcTL of {reader.left} bytes")
        reader.skip(4)
        width, height, left, top = (reader.big(4) for _ in range(4))
        reader.skip(4)  # the delay
        if reader.big(1) > _PREVIOUS or reader.big(1) > _OVER:
            raise UndecodableImage(detail="a frame with an unknown operation")
        if not (width and height) or left + width > self.size[0] or top + height > self.size[1]:
            raise UndecodableImage(detail=f"a frame of {width} × {height} at {left}, {top} on {self.size}")

    def _pixels(self, _reader: ByteReader) -> None:
        self.default_image |= bool(self.announced) and not self.seen[b"fcTL"]

    def survey(self) -> Survey:
        """Return what was found, after the last chunk."""
        if self.seen[b"fcTL"] != self.announced:
            detail = f"acTL announces {self.announced} frames, there are {self.seen[b'fcTL']}"
            raise UndecodableImage(detail=detail)
        frames = max(1, self.announced + self.default_image)
        self.limits.check(self.size, frames)
        orientation = self.orientation if frames == 1 else UPRIGHT
        return Survey(b"".join(self.pieces), *self.size, frames=frames, orientation=orientation)


_READERS: dict[bytes, Callable[[_Walk, ByteReader], None]] = {
    b"IHDR": _Walk._header,
    b"acTL": _Walk._animation,
    b"fcTL": _Walk._frame,
    b"IDAT": _Walk._pixels,
}


def _check_chunk(chunk: Chunk, *, first: bool) -> None:
    """Refuse what decoders take differently: a wrong order, a wrong checksum, an unknown critical chunk."""
    if first != (chunk.kind == b"IHDR"):
        raise UndecodableImage(detail="IHDR is not the first chunk")
    if chunk.kind not in _KEPT:
        if not chunk.kind[0] & _ANCILLARY:
            raise UndecodableImage(detail=f"unknown critical chunk {chunk.kind!r}")
    elif zlib.crc32(chunk.raw[4:-4]) != int.from_bytes(chunk.raw[-4:], "big"):
        raise UndecodableImage(detail=f"wrong checksum of {chunk.kind!r}")
    if chunk.kind == b"IEND" and chunk.payload:
        raise UndecodableImage(detail="IEND is not empty")
