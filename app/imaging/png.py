"""PNG and APNG (W3C PNG, third edition): a walk over the chunks that keeps those needed to draw."""

import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

from app.core.errors import UndecodableImage
from app.imaging.survey import UPRIGHT, ByteReader, ImageLimits, Survey, bounded, orientation_of

SIGNATURE = b"\x89PNG\r\n\x1a\n"

FRAMES = {b"IDAT", b"acTL", b"fcTL", b"fdAT"}
_COLOUR = {b"gAMA", b"cHRM", b"sRGB", b"cICP", b"mDCV", b"cLLI", b"iCCP", b"sBIT"}
_KEPT = FRAMES | _COLOUR | {b"IHDR", b"PLTE", b"IEND", b"tRNS", b"bKGD", b"pHYs"}
_SINGLE = {b"PLTE", b"iCCP", b"acTL"}
"""Chunks that may occur once (5.6). Several profiles would each unpack to the decoder's limit."""
_FRAME_CONTROL = 26
"""Bytes of `fcTL` (11.3.6.2)."""
_CODE_POINTS = 4
"""Bytes of `cICP` (11.3.2.6): primaries, transfer, matrix (0 for RGB), and whether the range is full."""
_MAX_SIDE = 1_000_000
"""Pixels of a side: libpng's default limit, which browsers keep."""
_PREVIOUS, _OVER = 2, 1
"""The highest of the operations that dispose of a frame, and of those that blend it with what is there."""
_ANCILLARY = 0x20
"""Bit of a type's first letter: set where a decoder may ignore the chunk (5.4)."""


class Chunk(NamedTuple):
    """One chunk; `raw` is all of it, with length and checksum."""

    kind: bytes
    payload: bytes
    raw: bytes


_END = b"\0\0\0\0IEND\xaeB`\x82"

_PALETTE = 3
_CHANNELS = {0: 1, 2: 3, _PALETTE: 1, 4: 2, 6: 4}
"""Samples of a pixel by colour type (11.2.1)."""
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""First column and row of each pass of an interlaced image, and how far apart they are (8.2)."""
_INFLATED_AT_ONCE = 1 << 18


def chunks(data: bytes) -> Iterator[Chunk]:
    """Yield every chunk up to IEND, which is added if the file ends before or within it.

    Raises UndecodableImage if the file ends elsewhere.
    """
    reader = ByteReader(data, len(SIGNATURE))
    kind = b""
    while kind != b"IEND":
        start = reader.position
        if reader.left < len(_END) and data.endswith(_END[: reader.left]):
            yield Chunk(b"IEND", b"", _END)
            return
        length, kind = reader.big(4), reader.take(4)
        payload = reader.take(length)
        reader.take(4)
        yield Chunk(kind, payload, data[start : reader.position])


def survey_png(data: bytes, limits: ImageLimits) -> Survey:
    """Walk to IEND.

    Raises UndecodableImage if chunks are cut, damaged or in conflict, and TooManyPixels.
    """
    walk = _Walk(limits)
    size = len(SIGNATURE)
    for chunk in bounded(chunks(data)):
        walk.add(chunk)
        size += len(chunk.raw)
    return replace(walk.survey(), missing_end=_END[len(_END) - max(0, size - len(data)) :])


class _Walk:
    """Reads chunks one by one; `pieces` collects those that are kept."""

    def __init__(self, limits: ImageLimits) -> None:
        self.limits = limits
        self.pieces = [SIGNATURE]
        self.size = (0, 0)
        self.orientation = UPRIGHT
        self.seen: Counter[bytes] = Counter()
        self.announced = 0
        self.needs_palette = False
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
        if max(self.size) > _MAX_SIDE:
            raise UndecodableImage(detail=f"{self.size}: a side that browsers don't draw")
        reader.skip(1)
        self.needs_palette = reader.big(1) == _PALETTE
        if reader.big(1):
            raise UndecodableImage(detail="an unknown compression")

    def _palette(self, reader: ByteReader) -> None:
        if not reader.left:
            raise UndecodableImage(detail="an empty palette")

    def _code_points(self, reader: ByteReader) -> None:
        """Refuse colours that PNG can't have: Chromium draws nothing then. Another length is ignored."""
        if reader.left == _CODE_POINTS:
            reader.skip(2)
            if reader.big(1) or reader.big(1) > 1:
                raise UndecodableImage(detail="cICP with a matrix, or an unknown range")

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
        if self.needs_palette and not self.seen[b"PLTE"]:
            raise UndecodableImage(detail="no palette before the pixels")
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
    b"PLTE": _Walk._palette,
    b"cICP": _Walk._code_points,
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


def check_rows(data: bytes) -> None:
    """Raise UndecodableImage unless the compressed data of every frame has all of its rows.

    Costs a third of decoding the image. Bytes behind the last row, which no decoder reads, are ignored.
    """
    header, size, begins, missing = b"", (0, 0), True, 0
    rows: _Rows | None = None
    for chunk in chunks(data):
        if chunk.kind == b"IHDR":
            header, size = chunk.payload, _size(chunk.payload, 0)
        elif chunk.kind == b"fcTL":
            size, begins = _size(chunk.payload, 4), True
        elif chunk.kind in (b"IDAT", b"fdAT"):
            if begins or rows is None:
                missing += rows.left if rows else 0
                rows, begins = _Rows(header, size), False
            rows.add(chunk.payload[4:] if chunk.kind == b"fdAT" else chunk.payload)
    if rows is None or rows.left or missing:
        raise UndecodableImage(detail="rows are missing")


def _size(payload: bytes, at: int) -> tuple[int, int]:
    reader = ByteReader(payload, at)
    return reader.big(4), reader.big(4)


class _Rows:
    """Inflates the rows of one frame of `size`; `left` is how many bytes of them are missing.

    `header` is the payload of IHDR.
    """

    def __init__(self, header: bytes, size: tuple[int, int]) -> None:
        bits = header[8] * _CHANNELS[header[9]]
        self.left = 0
        for left, top, across, down in _PASSES if header[12] else ((0, 0, 1, 1),):
            width, height = -(-(size[0] - left) // across), -(-(size[1] - top) // down)
            self.left += height * (1 + (width * bits + 7) // 8) if width > 0 and height > 0 else 0
        self._stream = zlib.decompressobj()

    def add(self, compressed: bytes) -> None:
        """Inflate the next piece of the frame's data, as far as rows are missing."""
        while compressed and self.left and not self._stream.eof:
            inflated = self._stream.decompress(compressed, min(self.left, _INFLATED_AT_ONCE))
            self.left -= len(inflated)
            compressed = self._stream.unconsumed_tail
