"""Turn the pixels of a still image upright, so that it no longer needs an EXIF orientation.

`exif_orientation` in `survey` reads the orientation, and `check` decides whether to turn the image.

JPEG and WebP are decoded, turned and encoded again at the same quality. PNG keeps its depth and colour type,
which Pillow alone can't do: it reads 16 bits of a colour as 8, and turns 2 or 4 bits of grey into 8. So it
gets a proxy: a file of the same compressed rows whose header declares another kind of pixel, of the same size
in bits, which Pillow reads and writes unchanged. Row filters (W3C PNG, 9.2) depend only on that size. Pixels
of 6 or 8 bytes have no such proxy: their high and low bytes are read one after the other, and the rows are
encoded here.
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
from app.imaging.decode import open_image
from app.imaging.jpeg_segments import segments
from app.imaging.survey import QUARTER_TURNED

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The transposition that makes each EXIF orientation upright (CIPA DC-008, 4.6.4 A)."""

_SUBSAMPLED_4_2_0 = 2
"""Pillow's number for colours at half resolution in both directions."""
_LOSSY_WEBP_QUALITY = 92
"""The file doesn't say at which quality it was encoded; at 92 a second generation isn't visible."""
_LOSSLESS_WEBP_EFFORT = 20
"""Above 25 the encoder takes a third more memory and twice the time for files that are a quarter smaller."""


def upright(data: bytes, format: ImageFormat, orientation: int, size: tuple[int, int]) -> bytes:
    """Return the still image `data`, which has no metadata, turned by `orientation` 2…8, in the same format.

    `size` is its width and height in pixels before that. Raises UndecodableImage if a decoder finds another
    size, and whatever Pillow raises if it can't decode.
    """
    turn, quarter = TURNS[orientation], orientation in QUARTER_TURNED
    if format.name == "png":
        return _turn_png(data, turn, size, quarter=quarter)
    with open_image(data, format, size) as image:
        image.load()
        turned = image.transpose(turn)
        options = {"icc_profile": image.info.get("icc_profile"), **_same_quality(image, data)}
    try:
        result = _encode(turned, format, options)
    except OSError:
        # A progressive JPEG must fit into a buffer that Pillow guesses, too small for very noisy pictures.
        result = _encode(turned, format, options | {"progressive": False})
    return _with_density(result, data, quarter=quarter) if format.name == "jpeg" else result


def _encode(image: Image.Image, format: ImageFormat, options: dict[str, Any]) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format.pillow, **options)
    return buffer.getvalue()


def _same_quality(image: ImageFile.ImageFile, data: bytes) -> dict[str, Any]:
    """Return the options that make Pillow encode at the quality of `image`."""
    if not isinstance(image, JpegImageFile):
        lossless = webp.is_lossless(data)
        quality = _LOSSLESS_WEBP_EFFORT if lossless else _LOSSY_WEBP_QUALITY
        return {"lossless": lossless, "quality": quality, "exact": True}
    tables = dict.fromkeys(component[3] for component in image.layer)
    return {
        "qtables": [image.quantization[table] for table in tables],
        # Colours halved in one direction would be halved in the other one too after a quarter turn.
        "subsampling": 2 if get_sampling(image) == _SUBSAMPLED_4_2_0 else 0,
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


_GREY, _COLOUR, _PALETTE, _GREY_ALPHA, _COLOUR_ALPHA = 0, 2, 3, 4, 6
_PROXIES = {
    **{(bits, _GREY): (bits, _PALETTE) for bits in (1, 2, 4)},
    (16, _GREY): (8, _GREY_ALPHA),
    (16, _GREY_ALPHA): (8, _COLOUR_ALPHA),
}
"""Depth and colour type in the file, and in the proxy if that has others."""
_WIDE_PIXELS = {(16, _COLOUR): ("RGB;16B", "RGB;16L"), (16, _COLOUR_ALPHA): ("RGBA;16B", "RGBA;16L")}
"""Raw modes with which Pillow reads the high bytes and, claiming the other byte order, the low bytes."""

_ROWS_AT_ONCE = 32
_SUB_FILTER, _UP_FILTER = 1, 2
"""Store the difference from the pixel to the left, or from the one above (W3C PNG, 9.2)."""
_FILTER_COSTS = [min(value, 256 - value) for value in range(256)]


def _turn_png(data: bytes, turn: Image.Transpose, size: tuple[int, int], *, quarter: bool) -> bytes:
    """Return the PNG `data`, of `size` and without metadata, with its pixels turned.

    `quarter` is true if the sides swap. Depth, colour type and all chunks stay, except those of an animation
    of one frame. Raises what Pillow raises.
    """
    chunks = list(png.chunks(data))
    header = chunks[0].payload
    kind = header[8], header[9]
    if kind in _WIDE_PIXELS:
        compressed = _turn_wide_pixels(data, kind, turn, size)
    else:
        compressed = _turn_with_proxy(chunks, kind, turn, size)
    width, height = size[::-1] if quarter else size
    pieces = [png.SIGNATURE, _chunk(b"IHDR", struct.pack(">II", width, height) + header[8:12] + b"\0")]
    for chunk in chunks:
        if chunk.kind == b"pHYs" and quarter:
            across, down = chunk.payload[:4], chunk.payload[4:8]
            pieces.append(_chunk(b"pHYs", down + across + chunk.payload[8:]))
        elif chunk.kind not in png.FRAMES | {b"IHDR", b"IEND"}:
            pieces.append(chunk.raw)
    return b"".join([*pieces, *compressed, chunks[-1].raw])


def _chunk(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


def _turn_with_proxy(
    chunks: list[png.Chunk], kind: tuple[int, int], turn: Image.Transpose, size: tuple[int, int]
) -> Iterator[bytes]:
    """Yield the IDAT chunks of the turned picture, as Pillow writes them."""
    header = chunks[0].payload
    bits, colour = _PROXIES.get(kind, kind)
    pieces = [png.SIGNATURE, _chunk(b"IHDR", header[:8] + bytes((bits, colour)) + header[10:])]
    if colour == _PALETTE:
        pieces.append(_chunk(b"PLTE", bytes(3 << bits)))
    rows = [chunk.raw for chunk in chunks if chunk.kind == b"IDAT"]
    with open_image(b"".join([*pieces, *rows, chunks[-1].raw]), FORMATS["png"], size) as image:
        image.load()
        turned = image.transpose(turn)
    result = _encode(turned, FORMATS["png"], {"bits": bits} if colour == _PALETTE else {})
    return (chunk.raw for chunk in png.chunks(result) if chunk.kind == b"IDAT")


def _turn_wide_pixels(
    data: bytes, kind: tuple[int, int], turn: Image.Transpose, size: tuple[int, int]
) -> Iterator[bytes]:
    """Yield the IDAT chunks of the turned picture, of pixels of 6 or 8 bytes."""
    halves = []
    for raw_mode in _WIDE_PIXELS[kind]:
        with open_image(data, FORMATS["png"], size) as image:
            image.tile = [image.tile[0]._replace(args=raw_mode)]
            image.load()
            halves.append(image.transpose(turn))
    compressor = zlib.compressobj()
    for rows in _filtered_rows(*halves):
        if piece := compressor.compress(rows):
            yield _chunk(b"IDAT", piece)
    yield _chunk(b"IDAT", compressor.flush())


def _filtered_rows(high: Image.Image, low: Image.Image) -> Iterator[bytes]:
    """Yield rows of alternating high and low bytes, several at a time, each row with its filter in front."""
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
        candidates = [
            (_SUB_FILTER, ImageChops.subtract_modulo(rows, left)),
            (_UP_FILTER, ImageChops.subtract_modulo(rows, up)),
        ]
        filter_type, filtered = min(candidates, key=lambda candidate: _filter_cost(candidate[1]))
        written = Image.new("L", (rows.width + 1, rows.height), filter_type)
        written.paste(filtered, (1, 0))
        yield written.tobytes()


def _filter_cost(rows: Image.Image) -> int:
    """Return the sum of all differences, which is small if the rows will compress well (12.7)."""
    return sum(count * cost for count, cost in zip(rows.histogram(), _FILTER_COSTS, strict=True))
