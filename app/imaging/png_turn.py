"""Turning the pixels of a PNG without changing how they are stored.

Pillow reads 16 bits of a colour as 8, and makes 8 of 2 or 4 bits of grey. So it gets a stand-in: a file of
the same compressed rows whose header gives another kind of pixel, as large in bits, that it reads and writes
as they are. The filters of rows (W3C PNG, 9.2) depend on nothing but that size. No other kind has 6 or 8
bytes: of those, high and low bytes are read one after the other, and the rows are written here.
"""

import struct
import zlib
from collections.abc import Iterator
from io import BytesIO

from PIL import Image, ImageChops

from app.formats import FORMATS
from app.imaging import png
from app.imaging.decode import opened

_GREY, _COLOUR, _PALETTE, _GREY_ALPHA, _COLOUR_ALPHA = 0, 2, 3, 4, 6
_STAND_INS = {
    **{(bits, _GREY): (bits, _PALETTE) for bits in (1, 2, 4)},
    (16, _GREY): (8, _GREY_ALPHA),
    (16, _GREY_ALPHA): (8, _COLOUR_ALPHA),
}
"""Depth and colour type in the file, and in the stand-in if that is another."""
_DEEP = {(16, _COLOUR): ("RGB;16B", "RGB;16L"), (16, _COLOUR_ALPHA): ("RGBA;16B", "RGBA;16L")}
"""How Pillow reads the high bytes, and those that are high in another byte order: the low ones."""

_ROWS_AT_ONCE = 32
_SUB, _UP = 1, 2
"""Filters: the difference from the pixel to the left, and from the one above (9.2)."""
_COSTS = [min(value, 256 - value) for value in range(256)]


def turn(data: bytes, how: Image.Transpose, size: tuple[int, int], *, quarter: bool) -> bytes:
    """Return the PNG `data`, of `size` and without metadata, with its pixels turned.

    `quarter` is true if the sides swap. Depth, colour type and all chunks stay, save those of an animation
    of one frame. Raises what Pillow raises.
    """
    found = list(png.chunks(data))
    header = found[0].payload
    kind = header[8], header[9]
    compressed = _deep(data, kind, how, size) if kind in _DEEP else _stand_in(found, kind, how, size)
    width, height = size[::-1] if quarter else size
    pieces = [png.SIGNATURE, _chunk(b"IHDR", struct.pack(">II", width, height) + header[8:12] + b"\0")]
    for chunk in found:
        if chunk.kind == b"pHYs" and quarter:
            across, down = chunk.payload[:4], chunk.payload[4:8]
            pieces.append(_chunk(b"pHYs", down + across + chunk.payload[8:]))
        elif chunk.kind not in png.FRAMES | {b"IHDR", b"IEND"}:
            pieces.append(chunk.raw)
    return b"".join([*pieces, *compressed, found[-1].raw])


def _chunk(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


def _stand_in(
    found: list[png.Chunk], kind: tuple[int, int], how: Image.Transpose, size: tuple[int, int]
) -> Iterator[bytes]:
    """Yield the IDAT chunks of the turned picture, as Pillow writes them."""
    header = found[0].payload
    bits, colour = _STAND_INS.get(kind, kind)
    pieces = [png.SIGNATURE, _chunk(b"IHDR", header[:8] + bytes((bits, colour)) + header[10:])]
    if colour == _PALETTE:
        pieces.append(_chunk(b"PLTE", bytes(3 << bits)))
    rows = [chunk.raw for chunk in found if chunk.kind == b"IDAT"]
    with opened(b"".join([*pieces, *rows, found[-1].raw]), FORMATS["png"], size) as image:
        image.load()
        turned = image.transpose(how)
    buffer = BytesIO()
    turned.save(buffer, "PNG", **({"bits": bits} if colour == _PALETTE else {}))
    return (chunk.raw for chunk in png.chunks(buffer.getvalue()) if chunk.kind == b"IDAT")


def _deep(data: bytes, kind: tuple[int, int], how: Image.Transpose, size: tuple[int, int]) -> Iterator[bytes]:
    """Yield the IDAT chunks of the turned picture, of pixels of 6 or 8 bytes."""
    high, low = (_half(data, way, how, size) for way in _DEEP[kind])
    compressor = zlib.compressobj()
    for rows in _filtered(high, low):
        if piece := compressor.compress(rows):
            yield _chunk(b"IDAT", piece)
    yield _chunk(b"IDAT", compressor.flush())


def _half(data: bytes, way: str, how: Image.Transpose, size: tuple[int, int]) -> Image.Image:
    with opened(data, FORMATS["png"], size) as image:
        image.tile = [image.tile[0]._replace(args=way)]
        image.load()
        return image.transpose(how)


def _filtered(high: Image.Image, low: Image.Image) -> Iterator[bytes]:
    """Yield rows of alternating high and low bytes, some at a time, each with its filter before it."""
    pixel = 2 * len(high.getbands())
    above = Image.new("L", (pixel * high.width, 1))
    for top in range(0, high.height, _ROWS_AT_ONCE):
        box = 0, top, high.width, min(top + _ROWS_AT_ONCE, high.height)
        parts = high.crop(box).tobytes(), low.crop(box).tobytes()
        both = bytearray(2 * len(parts[0]))
        both[::2], both[1::2] = parts
        rows = Image.frombytes("L", (above.width, box[3] - top), bytes(both))
        left, up = Image.new("L", rows.size), Image.new("L", rows.size)
        left.paste(rows, (pixel, 0))
        up.paste(above)
        up.paste(rows, (0, 1))
        above = rows.crop((0, rows.height - 1, rows.width, rows.height))
        ways = [(_SUB, ImageChops.subtract_modulo(rows, left)), (_UP, ImageChops.subtract_modulo(rows, up))]
        way, filtered = min(ways, key=lambda each: _cost(each[1]))
        written = Image.new("L", (rows.width + 1, rows.height), way)
        written.paste(filtered, (1, 0))
        yield written.tobytes()


def _cost(rows: Image.Image) -> int:
    """Return the sum of all differences, which is small if the rows will compress well (12.7)."""
    return sum(count * cost for count, cost in zip(rows.histogram(), _COSTS, strict=True))
