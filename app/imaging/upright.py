"""Turning the pixels so that a picture needs no EXIF orientation any more."""

from io import BytesIO
from typing import Any

from PIL import Image, ImageFile
from PIL.JpegImagePlugin import JpegImageFile, get_sampling
from PIL.PngImagePlugin import PngInfo

from app.formats import ImageFormat
from app.imaging import png, webp
from app.imaging.decode import opened

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
    with opened(data, format, size) as image:
        image.load()
        turned = image.transpose(_TURNS[orientation])
        options = {"icc_profile": image.info.get("icc_profile"), **_options(image, data, format)}
    try:
        return _saved(turned, format, options)
    except OSError:
        # A progressive JPEG must fit into a buffer that Pillow guesses, too small for very noisy pictures.
        return _saved(turned, format, options | {"progressive": False})


def _saved(image: Image.Image, format: ImageFormat, options: dict[str, Any]) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format.pillow, **options)
    return buffer.getvalue()


def _options(image: ImageFile.ImageFile, data: bytes, format: ImageFormat) -> dict[str, Any]:
    """What Pillow's writer has to be told so that the quality stays as it was."""
    if isinstance(image, JpegImageFile):
        return _jpeg_options(image)
    if format.name == "png":
        return {"pnginfo": _colour_chunks(data), "transparency": image.info.get("transparency")}
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


def _colour_chunks(data: bytes) -> PngInfo:
    """The chunks that say what the numbers mean as colours; Pillow writes the profile by itself."""
    info = PngInfo()
    for chunk in png.chunks(data):
        if chunk.kind in png.COLOUR:
            info.add(chunk.kind, chunk.payload)
    return info
