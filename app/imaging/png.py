"""PNG and APNG (W3C PNG, third edition): parse chunks, keep those that viewers need, and count pixel rows."""

import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

from app.core.errors import UndecodableImage
from app.imaging.survey import UPRIGHT, ByteReader, ImageLimits, Survey, exif_orientation, limit_parts

SIGNATURE = b"\x89PNG\r\n\x1a\n"
FRAMES = {b"IDAT", b"acTL", b"fcTL", b"fdAT"}
_COLOUR = {b"gAMA", b"cHRM", b"sRGB", b"cICP", b"mDCV", b"cLLI", b"iCCP", b"sBIT"}
_KEPT = FRAMES | _COLOUR | {b"IHDR", b"PLTE", b"IEND", b"tRNS", b"bKGD", b"pHYs"}
_SINGLE = {b"PLTE", b"iCCP", b"acTL"}
"""Chunks that must not occur more than once (5.6). If there were several profiles, each could decompress to
the decoder's limit."""
_ANCILLARY = 0x20
"""A bit in the first letter of a chunk type. It is set if a decoder may ignore the chunk (5.4)."""
_END = b"\0\0\0\0IEND\xaeB`\x82"

_HEADER_BYTES = 13
_ANIMATION_CONTROL_BYTES = 8
_FRAME_CONTROL_BYTES = 26
"""Size of the payload of `fcTL` (11.3.6.2)."""
_CODE_POINTS_BYTES = 4
"""Size of the payload of `cICP` (11.3.2.6): colour primaries, transfer function, matrix (0 for RGB), and
whether the range is full."""
_MAX_SIDE = 1_000_000
"""Maximum width and height in pixels. This is libpng's default, which browsers use."""
_MAX_DISPOSE_OPERATION, _MAX_BLEND_OPERATION = 2, 1

_PALETTE = 3
_CHANNELS = {0: 1, 2: 3, _PALETTE: 1, 4: 2, 6: 4}
"""Number of samples in a pixel, keyed by colour type (11.2.1)."""
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""The passes of an interlaced image: the first column and the first row, and the distances between columns
and between rows (8.2)."""
_INFLATE_BYTES = 1 << 18


class Chunk(NamedTuple):
    """One chunk. `raw` is the whole chunk, including its length and checksum."""

    kind: bytes
    payload: bytes
    raw: bytes


def chunks(data: bytes) -> Iterator[Chunk]:
    """Yield every chunk up to IEND. If the file ends just before or within IEND, IEND is yielded anyway.

    Raises UndecodableImage if the file ends anywhere else.
    """
    reader = ByteReader(data, len(SIGNATURE))
    kind = b""
    while kind != b"IEND":
        start = reader.position
        if reader.remaining < len(_END) and data.endswith(_END[: reader.remaining]):
            yield Chunk(b"IEND", b"", _END)
            return
        length, kind = reader.uint_be(4), reader.read(4)
        payload = reader.read(length)
        reader.skip(4)
        yield Chunk(kind, payload, data[start : reader.position])


def survey_png(data: bytes, limits: ImageLimits) -> Survey:
    """Parse the chunks up to IEND.

    Raises TooManyPixels if the image exceeds the limits, and UndecodableImage if chunks are truncated,
    damaged or inconsistent.
    """
    parser = _PngParser(limits)
    size = len(SIGNATURE)
    for chunk in limit_parts(chunks(data)):
        parser.add(chunk)
        size += len(chunk.raw)
    return replace(parser.survey(), missing_end=_END[len(_END) - max(0, size - len(data)) :])


class _PngParser:
    """Reads the chunks of a PNG one by one, and collects the chunks to keep."""

    def __init__(self, limits: ImageLimits) -> None:
        self._limits = limits
        self._pieces = [SIGNATURE]
        self._size = (0, 0)
        self._orientation = UPRIGHT
        self._seen: Counter[bytes] = Counter()
        self._announced_frames = 0
        self._needs_palette = False
        # True if an animation has pixels before its first frame control. These pixels are for viewers that
        # don't support animations, but Pillow counts them as a frame.
        self._default_image = False

    def add(self, chunk: Chunk) -> None:
        """Read the next chunk.

        Raises UndecodableImage if the chunk is damaged or not allowed at this position, and TooManyPixels if
        the image exceeds the limits.
        """
        _check_chunk(chunk, first=not self._seen)
        self._seen[chunk.kind] += 1
        if chunk.kind in _SINGLE and self._seen[chunk.kind] > 1:
            raise UndecodableImage(detail=f"more than one {chunk.kind!r}")
        if chunk.kind == b"eXIf":
            self._orientation = exif_orientation(chunk.payload)
        elif read := _CHUNK_READERS.get(chunk.kind):
            read(self, ByteReader(chunk.payload))
        if chunk.kind in _KEPT:
            self._pieces.append(chunk.raw)

    def _read_header(self, reader: ByteReader) -> None:
        if reader.remaining != _HEADER_BYTES:
            raise UndecodableImage(detail=f"IHDR of {reader.remaining} bytes")
        self._size = reader.uint_be(4), reader.uint_be(4)
        self._limits.check(self._size, 1)
        if max(self._size) > _MAX_SIDE:
            raise UndecodableImage(detail=f"{self._size}: a side that browsers don't draw")
        reader.skip(1)
        self._needs_palette = reader.uint_be(1) == _PALETTE
        if reader.uint_be(1):
            raise UndecodableImage(detail="an unknown compression")

    def _read_palette(self, reader: ByteReader) -> None:
        if not reader.remaining:
            raise UndecodableImage(detail="an empty palette")

    def _read_code_points(self, reader: ByteReader) -> None:
        """Refuse a `cICP` chunk with colours that a PNG can't have, as Chromium doesn't draw such images.

        A `cICP` chunk of the wrong length is ignored, as in Chromium.
        """
        if reader.remaining == _CODE_POINTS_BYTES:
            reader.skip(2)
            if reader.uint_be(1) or reader.uint_be(1) > 1:
                raise UndecodableImage(detail="cICP with a matrix, or an unknown range")

    def _read_animation_control(self, reader: ByteReader) -> None:
        if reader.remaining != _ANIMATION_CONTROL_BYTES or self._seen[b"IDAT"]:
            raise UndecodableImage(detail="acTL is wrong or too late")
        self._announced_frames = reader.uint_be(4)
        self._limits.check(self._size, self._announced_frames)

    def _read_frame_control(self, reader: ByteReader) -> None:
        """Refuse a frame that extends beyond the canvas, or whose operations are unknown.

        If a file has such a frame, browsers show only the still image in the file.
        """
        if reader.remaining != _FRAME_CONTROL_BYTES:
            raise UndecodableImage(detail=f"fcTL of {reader.remaining} bytes")
        reader.skip(4)
        width, height, left, top = (reader.uint_be(4) for _ in range(4))
        reader.skip(4)  # the delay
        if reader.uint_be(1) > _MAX_DISPOSE_OPERATION or reader.uint_be(1) > _MAX_BLEND_OPERATION:
            raise UndecodableImage(detail="a frame with an unknown operation")
        if not (width and height) or left + width > self._size[0] or top + height > self._size[1]:
            raise UndecodableImage(detail=f"a frame of {width} × {height} at {left}, {top} on {self._size}")

    def _read_pixels(self, _reader: ByteReader) -> None:
        if self._needs_palette and not self._seen[b"PLTE"]:
            raise UndecodableImage(detail="no palette before the pixels")
        self._default_image |= bool(self._announced_frames) and not self._seen[b"fcTL"]

    def survey(self) -> Survey:
        """Return the survey. Call this after the last chunk."""
        if self._seen[b"fcTL"] != self._announced_frames:
            detail = f"acTL announces {self._announced_frames} frames, there are {self._seen[b'fcTL']}"
            raise UndecodableImage(detail=detail)
        frames = max(1, self._announced_frames + self._default_image)
        self._limits.check(self._size, frames)
        orientation = self._orientation if frames == 1 else UPRIGHT
        return Survey(b"".join(self._pieces), *self._size, frames=frames, orientation=orientation)


_CHUNK_READERS: dict[bytes, Callable[[_PngParser, ByteReader], None]] = {
    b"IHDR": _PngParser._read_header,
    b"PLTE": _PngParser._read_palette,
    b"cICP": _PngParser._read_code_points,
    b"acTL": _PngParser._read_animation_control,
    b"fcTL": _PngParser._read_frame_control,
    b"IDAT": _PngParser._read_pixels,
}


def _check_chunk(chunk: Chunk, *, first: bool) -> None:
    """Refuse chunks that decoders handle differently.

    These are chunks in the wrong order or with a wrong checksum, and critical chunks of an unknown type.
    """
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
    """Raise UndecodableImage unless the compressed data of every frame contains all rows of the frame.

    This takes a third of the time that decoding the image takes. Bytes after the last row are ignored, since
    no decoder reads them.
    """
    header, size, new_frame, missing = b"", (0, 0), True, 0
    rows: _RowCounter | None = None
    for chunk in chunks(data):
        if chunk.kind == b"IHDR":
            header, size = chunk.payload, _read_size(chunk.payload, 0)
        elif chunk.kind == b"fcTL":
            size, new_frame = _read_size(chunk.payload, 4), True
        elif chunk.kind in (b"IDAT", b"fdAT"):
            if new_frame or rows is None:
                missing += rows.missing if rows else 0
                rows, new_frame = _RowCounter(header, size), False
            rows.add(chunk.payload[4:] if chunk.kind == b"fdAT" else chunk.payload)
    if rows is None or rows.missing or missing:
        raise UndecodableImage(detail="rows are missing")


def _read_size(payload: bytes, at: int) -> tuple[int, int]:
    reader = ByteReader(payload, at)
    return reader.uint_be(4), reader.uint_be(4)


class _RowCounter:
    """Decompresses the rows of one frame, which has the width and height `size`.

    `missing` is the number of bytes of these rows that have not been decompressed yet. `header` is the
    payload of IHDR.
    """

    def __init__(self, header: bytes, size: tuple[int, int]) -> None:
        bits = header[8] * _CHANNELS[header[9]]
        self.missing = 0
        for left, top, across, down in _PASSES if header[12] else ((0, 0, 1, 1),):
            width, height = -(-(size[0] - left) // across), -(-(size[1] - top) // down)
            self.missing += height * (1 + (width * bits + 7) // 8) if width > 0 and height > 0 else 0
        self._stream = zlib.decompressobj()

    def add(self, compressed: bytes) -> None:
        """Decompress the next piece of the frame's data, but no further than the end of the last row."""
        while compressed and self.missing and not self._stream.eof:
            inflated = self._stream.decompress(compressed, min(self.missing, _INFLATE_BYTES))
            self.missing -= len(inflated)
            compressed = self._stream.unconsumed_tail
