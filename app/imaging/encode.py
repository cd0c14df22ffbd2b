"""Writing a picture that we hold as pixels, in any mode of Pillow, without metadata."""

from collections.abc import Callable
from io import BytesIO
from typing import Any

from PIL import Image

from app.core.errors import UndecodableImage
from app.core.objects import ImageFormat

_GREY_MODES = {"1", "L", "LA", "La", "I", "F"}
_COLOUR_MODES = {"P", "PA", "RGB", "RGBA", "RGBX", "RGBa"}
_PNG_MODES = {"1", "L", "LA", "P", "RGB", "RGBA", "I;16"}
_OPAQUE = 128
"""Alpha from which on a GIF, which knows only all or nothing, shows a pixel."""

_OPTIONS: dict[str, dict[str, Any]] = {
    "png": {"optimize": False},
    "jpeg": {"quality": 90},
    "gif": {},
    "webp": {"quality": 90},
    "avif": {"quality": 75},
}


def encode_image(image: Image.Image, format: ImageFormat) -> bytes:
    """The picture's current frame as a file. What the format can't hold is converted to the nearest.

    16-bit grey becomes 8-bit except in PNG; values of mode F are taken as 0…255; JPEG puts transparent
    pictures on white; GIF gets 256 colours. The colour profile stays where the kind of colours does.
    Raises UndecodableImage where the format can't hold the size.
    """
    try:
        prepared = _PREPARE[format.name](image)
        options = _OPTIONS[format.name] | {"icc_profile": _profile(image, prepared)}
        # Writers take comments and more out of `info`.
        prepared.info = {key: value for key, value in prepared.info.items() if key == "transparency"}
        buffer = BytesIO()
        prepared.save(buffer, format.pillow, **options)
    except (OSError, ValueError, MemoryError, SystemError) as error:
        message = f"An image of {image.width} × {image.height} can't be written as {format.name}."
        raise UndecodableImage(message, detail=repr(error)) from error
    return buffer.getvalue()


def _profile(source: Image.Image, prepared: Image.Image) -> bytes | None:
    """The source's colour profile unless the numbers now mean another kind of colours."""
    kept = _is_grey(source) == _is_grey(prepared) and (_is_grey(source) or source.mode in _COLOUR_MODES)
    return source.info.get("icc_profile") if kept else None


def _is_grey(image: Image.Image) -> bool:
    return image.mode in _GREY_MODES or image.mode.startswith("I;16")


def _for_png(image: Image.Image) -> Image.Image:
    if image.mode in _PNG_MODES:
        return image.copy()
    if image.mode == "I" or image.mode.startswith("I;16"):
        return image.convert("I").convert("I;16")
    return _eight_bits(image)


def _for_jpeg(image: Image.Image) -> Image.Image:
    picture = _eight_bits(image)
    if picture.mode != "RGBA":
        return picture
    paper = Image.new("RGB", picture.size, "white")
    paper.paste(picture, mask=picture.getchannel("A"))
    return paper


def _for_gif(image: Image.Image) -> Image.Image:
    picture = _eight_bits(image)
    if picture.mode != "RGBA":
        return picture if picture.mode == "L" else picture.quantize(256)
    transparent = 255
    paletted = picture.convert("RGB").quantize(transparent)
    paletted.paste(transparent, mask=picture.getchannel("A").point(lambda alpha: 255 * (alpha < _OPAQUE)))
    paletted.info["transparency"] = transparent
    return paletted


def _eight_bits(image: Image.Image) -> Image.Image:
    """The same picture as L, RGB or RGBA."""
    if image.mode == "I" or image.mode.startswith("I;16"):
        return image.convert("I").point(lambda value: value * (1 / 257)).convert("L")
    if image.mode == "La":
        # Pillow has no way from here to RGBA.
        image = image.convert("LA")
    if image.has_transparency_data:
        return image.convert("RGBA")
    return image.convert("L" if _is_grey(image) else "RGB")


_PREPARE: dict[str, Callable[[Image.Image], Image.Image]] = {
    "png": _for_png,
    "jpeg": _for_jpeg,
    "gif": _for_gif,
    "webp": _eight_bits,
    "avif": _eight_bits,
}
