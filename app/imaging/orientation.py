"""Rotate the pixels of a still image upright, so that it no longer needs an EXIF orientation.

`exif_orientation` in `survey` reads the orientation, and `check` decides whether to rotate the image. In this
module, rotating includes mirroring, since half of the EXIF orientations are mirrored.

JPEG and WebP images are decoded, rotated and encoded again at the same quality.

PNG images keep their bit depth and colour type. Pillow can't do this on its own: it reads 16-bit colours as
8-bit, and converts grey of 2 or 4 bits to 8 bits. Therefore, Pillow is given a proxy: a file with the same
compressed rows, whose header declares a different kind of pixel with the same number of bits. Pillow reads
and writes such pixels unchanged. Row filters (W3C PNG, 9.2) work in the proxy, too, since they depend only on
the size of a pixel. There is no proxy for pixels of 6 or 8 bytes. Pillow reads their high and low bytes
separately, and this module encodes the rows itself.
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
from app.imaging.pixels import TRANSPOSITIONS
from app.imaging.survey import SIDEWAYS_ORIENTATIONS

_SUBSAMPLED_4_2_0 = 2
"""Pillow's number for 4:2:0 subsampling: colours at half resolution in both directions."""
_LOSSY_WEBP_QUALITY = 92
"""The quality at which lossy WebP is encoded again. A WebP file doesn't say at which quality it was first
encoded. At 92, encoding it a second time causes no visible loss."""
_LOSSLESS_WEBP_EFFORT = 20
"""How much effort the encoder makes for lossless WebP, from 0 to 100. Above 25, it would need a third more
memory and twice the time, for files that are a quarter smaller."""


def rotate_upright(data: bytes, format: ImageFormat, orientation: int, size: tuple[int, int]) -> bytes:
    """Return the still image `data`, rotated upright according to its EXIF `orientation` 2…8.

    The result has the same format. `data` must have no metadata. `size` is the width and height of the image
    in pixels before the rotation. Raises UndecodableImage if the decoder finds a different size. If Pillow
    can't decode the image, its exception is passed on.
    """
    method, swaps_sides = TRANSPOSITIONS[orientation], orientation in SIDEWAYS_ORIENTATIONS
    if format.name == "png":
        return _rotate_png(data, method, size, swaps_sides=swaps_sides)
    with open_image(data, format, size) as image:
        image.load()
        rotated = image.transpose(method)
        options = {"icc_profile": image.info.get("icc_profile"), **_same_quality(image, data)}
    try:
        result = _encode(rotated, format, options)
    except OSError:
        # Pillow estimates the buffer size for a progressive JPEG. For very noisy pictures, it is too small.
        result = _encode(rotated, format, options | {"progressive": False})
    return _with_density(result, data, swaps_sides=swaps_sides) if format.name == "jpeg" else result


def _encode(image: Image.Image, format: ImageFormat, options: dict[str, Any]) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format.pillow, **options)
    return buffer.getvalue()


def _same_quality(image: ImageFile.ImageFile, data: bytes) -> dict[str, Any]:
    """Return the options with which Pillow encodes at the quality of `image`, which was read from `data`."""
    if not isinstance(image, JpegImageFile):
        lossless = webp.is_lossless(data)
        quality = _LOSSLESS_WEBP_EFFORT if lossless else _LOSSY_WEBP_QUALITY
        return {"lossless": lossless, "quality": quality, "exact": True}
    tables = dict.fromkeys(component[3] for component in image.layer)
    return {
        "qtables": [image.quantization[table] for table in tables],
        # If colours have half the resolution in one direction only, keeping the subsampling would halve it in
        # the other direction, too, after a rotation by 90°.
        "subsampling": 2 if get_sampling(image) == _SUBSAMPLED_4_2_0 else 0,
        "progressive": "progressive" in image.info,
        "keep_rgb": image.mode == "RGB" and image.info.get("adobe_transform") == 0,
    }


def _with_density(rotated: bytes, data: bytes, *, swaps_sides: bool) -> bytes:
    """Return the rotated JPEG with the density in the JFIF header of `data` (JFIF 1.02).

    Return the rotated JPEG unchanged unless both JPEGs have a JFIF header.
    """
    before, after = next(segments(data)), next(segments(rotated))
    if not (before.payload.startswith(b"JFIF\0") and after.payload.startswith(b"JFIF\0")):
        return rotated
    unit, across, down = before.payload[7:8], before.payload[8:10], before.payload[10:12]
    density = unit + (down + across if swaps_sides else across + down)
    return rotated[: after.start + 7] + density + rotated[after.start + 12 :]


_GREY, _COLOUR, _PALETTE, _GREY_ALPHA, _COLOUR_ALPHA = 0, 2, 3, 4, 6
_PROXIES = {
    **{(bits, _GREY): (bits, _PALETTE) for bits in (1, 2, 4)},
    (16, _GREY): (8, _GREY_ALPHA),
    (16, _GREY_ALPHA): (8, _COLOUR_ALPHA),
}
"""Bit depth and colour type of the proxy, keyed by the bit depth and colour type of the file. A proxy for any
other file has the same bit depth and colour type as the file."""
_WIDE_PIXELS = {(16, _COLOUR): ("RGB;16B", "RGB;16L"), (16, _COLOUR_ALPHA): ("RGBA;16B", "RGBA;16L")}
"""Two raw modes of Pillow, keyed by bit depth and colour type. Pillow reads the high bytes with the first
mode, and the low bytes with the second, which declares the wrong byte order."""

_ROWS_AT_ONCE = 32
_SUB_FILTER, _UP_FILTER = 1, 2
"""Filters that store the difference from the pixel to the left, or from the pixel above (W3C PNG, 9.2)."""
_FILTER_COSTS = [min(value, 256 - value) for value in range(256)]


def _rotate_png(data: bytes, method: Image.Transpose, size: tuple[int, int], *, swaps_sides: bool) -> bytes:
    """Return the PNG `data`, which has no metadata, with its pixels rotated.

    `size` is its width and height before the rotation. `swaps_sides` is true if the rotation swaps the two.
    The bit depth, the colour type and all chunks are kept, except the chunks of an animation with a single
    frame. Exceptions that Pillow raises are passed on.
    """
    chunks = list(png.chunks(data))
    header = chunks[0].payload
    kind = header[8], header[9]
    if kind in _WIDE_PIXELS:
        compressed = _rotate_16_bit(data, kind, method, size)
    else:
        compressed = _rotate_with_proxy(chunks, kind, method, size)
    width, height = size[::-1] if swaps_sides else size
    pieces = [png.SIGNATURE, _chunk(b"IHDR", struct.pack(">II", width, height) + header[8:12] + b"\0")]
    for chunk in chunks:
        if chunk.kind == b"pHYs" and swaps_sides:
            across, down = chunk.payload[:4], chunk.payload[4:8]
            pieces.append(_chunk(b"pHYs", down + across + chunk.payload[8:]))
        elif chunk.kind not in png.FRAMES | {b"IHDR", b"IEND"}:
            pieces.append(chunk.raw)
    return b"".join([*pieces, *compressed, chunks[-1].raw])


def _chunk(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


def _rotate_with_proxy(
    chunks: list[png.Chunk], kind: tuple[int, int], method: Image.Transpose, size: tuple[int, int]
) -> Iterator[bytes]:
    """Yield the IDAT chunks of the rotated picture, as written by Pillow.

    `kind` is the bit depth and the colour type of the file.
    """
    header = chunks[0].payload
    bits, colour = _PROXIES.get(kind, kind)
    pieces = [png.SIGNATURE, _chunk(b"IHDR", header[:8] + bytes((bits, colour)) + header[10:])]
    if colour == _PALETTE:
        pieces.append(_chunk(b"PLTE", bytes(3 << bits)))
    rows = [chunk.raw for chunk in chunks if chunk.kind == b"IDAT"]
    with open_image(b"".join([*pieces, *rows, chunks[-1].raw]), FORMATS["png"], size) as image:
        image.load()
        rotated = image.transpose(method)
    result = _encode(rotated, FORMATS["png"], {"bits": bits} if colour == _PALETTE else {})
    return (chunk.raw for chunk in png.chunks(result) if chunk.kind == b"IDAT")


def _rotate_16_bit(
    data: bytes, kind: tuple[int, int], method: Image.Transpose, size: tuple[int, int]
) -> Iterator[bytes]:
    """Yield the IDAT chunks of the rotated picture, whose pixels have 6 or 8 bytes.

    `kind` is the bit depth and the colour type of the file, a key of `_WIDE_PIXELS`.
    """
    halves = []
    for raw_mode in _WIDE_PIXELS[kind]:
        with open_image(data, FORMATS["png"], size) as image:
            image.tile = [image.tile[0]._replace(args=raw_mode)]
            image.load()
            halves.append(image.transpose(method))
    compressor = zlib.compressobj()
    for rows in _filtered_rows(*halves):
        if piece := compressor.compress(rows):
            yield _chunk(b"IDAT", piece)
    yield _chunk(b"IDAT", compressor.flush())


def _filtered_rows(high: Image.Image, low: Image.Image) -> Iterator[bytes]:
    """Yield rows of alternating high and low bytes, each row preceded by its filter type.

    Several rows are yielded at a time.
    """
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
    """Return the sum of the absolute differences. If it is small, the rows compress well (W3C PNG, 12.7)."""
    return sum(count * cost for count, cost in zip(rows.histogram(), _FILTER_COSTS, strict=True))
