"""Turning the pixels so that a picture needs no EXIF orientation any more."""

from io import BytesIO
from typing import Any

from PIL import Image, ImageFile
from PIL.JpegImagePlugin import JpegImageFile, get_sampling

from app.formats import ImageFormat
from app.imaging import webp
from app.imaging.decode import opened
from app.imaging.exif import QUARTER_TURNED
from app.imaging.jpeg_segments import segments
from app.imaging.png_turn import turn

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
