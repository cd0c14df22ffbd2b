"""Turning the pixels so that a picture needs no EXIF orientation any more.

Turning the pixels of a PNG without changing how they are stored.

Pillow reads 16 bits of a colour as 8, and makes 8 of 2 or 4 bits of grey. So it gets a stand-in: a file of
the same compressed rows whose header gives another kind of pixel, as large in bits, that it reads and writes
as they are. The filters of rows (W3C PNG, 9.2) depend on nothing but that size. No other kind has 6 or 8
bytes: of those, high and low bytes are read one after the other, and the rows are written here.
"""

import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from typing import Any

from PIL import Image, ImageChops, ImageFile
from PIL.JpegImagePlugin import JpegImageFile, get_sampling

from app.core.objects import FORMATS, ImageFormat
from app.imaging import png, webp
from app.imaging.decode import opened
from app.imaging.jpeg_segments import segments
from app.imaging.survey import QUARTER_TURNED

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


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes each orientation upright (CIPA DC-008, 4.6.4 A)."""

_HALVED_BOTH_WAYS = 2
_LOSSY_WEBP_QUALITY = 92
"""The file doesn't tell the quality that it was written with; at 92 a second generation isn't seen."""

_LOSSLESS_WEBP_EFFORT = 20
"""Above 25 the encoder takes a third more memory and twice the time for files that are a quarter smaller."""


def upright(data: bytes, format: ImageFormat, orientation: int, size: tuple[int, int]) -> bytes:
    """The still image without metadata in `data`, turned by `orientation` 2…8, in the same format.

    `size` is its width and height in pixels before that. Raises UndecodableImage if a decoder finds another
    one, and whatever Pillow raises if it can't decode.
    """
    quarter = orientation in QUARTER_TURNED
    if format.name == "png":
        return turn(data, _TURNS[orientation], size, quarter=quarter)
    with opened(data, format, size) as image:
        image.load()
        turned = image.transpose(_TURNS[orientation])
        options = {"icc_profile": image.info.get("icc_profile"), **_options(image, data)}
    try:
        result = _saved(turned, format, options)
    except OSError:
        # A progressive JPEG must fit into a buffer that Pillow guesses, too small for very noisy pictures.
        result = _saved(turned, format, options | {"progressive": False})
    return _with_density(result, data, quarter=quarter) if format.name == "jpeg" else result


def _saved(image: Image.Image, format: ImageFormat, options: dict[str, Any]) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format.pillow, **options)
    return buffer.getvalue()


def _options(image: ImageFile.ImageFile, data: bytes) -> dict[str, Any]:
    """What Pillow's writer has to be told so that the quality stays as it was."""
    if isinstance(image, JpegImageFile):
        return _jpeg_options(image)
    if webp.is_lossless(data):
        return {"lossless": True, "quality": _LOSSLESS_WEBP_EFFORT, "exact": True}
    return {"lossless": False, "quality": _LOSSY_WEBP_QUALITY, "exact": True}


def _jpeg_options(image: JpegImageFile) -> dict[str, Any]:
    """The same quantisation tables, and colours that are halved only if they were halved both ways.

    Colours halved in one direction would be halved in the other one too after a quarter turn.
    """
    tables = dict.fromkeys(component[3] for component in image.layer)
    return {
        "qtables": [image.quantization[table] for table in tables],
        "subsampling": 2 if get_sampling(image) == _HALVED_BOTH_WAYS else 0,
        "progressive": "progressive" in image.info,
        "keep_rgb": image.mode == "RGB" and image.info.get("adobe_transform") == 0,
    }


def _with_density(turned: bytes, data: bytes, *, quarter: bool) -> bytes:
    """Return the turned JPEG with the density in the JFIF header of `data` (JFIF 1.02), if both have one."""
    before, after = next(segments(data)), next(segments(turned))
    if not (before.payload.startswith(b"JFIF\0") and after.payload.startswith(b"JFIF\0")):
        return turned
    unit, across, down = before.payload[7:8], before.payload[8:10], before.payload[10:12]
    density = unit + (down + across if quarter else across + down)
    return turned[: after.start + 7] + density + turned[after.start + 12 :]
