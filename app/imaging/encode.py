"""Encode a Pillow image of any mode as a file without metadata."""

from collections.abc import Callable
from io import BytesIO
from typing import Any

from PIL import Image

from app.core.errors import UndecodableImage
from app.core.objects import ImageFormat

_GREY_MODES = {"1", "L", "LA", "La", "I", "F"}
_COLOUR_MODES = {"P", "PA", "RGB", "RGBA", "RGBX", "RGBa"}
_PNG_MODES = {"1", "L", "LA", "P", "RGB", "RGBA", "I;16"}
_GIF_OPAQUE_ALPHA = 128
"""Minimum alpha of the pixels that become opaque in a GIF, which has no partial transparency. All other
pixels become transparent."""

_OPTIONS: dict[str, dict[str, Any]] = {
    "png": {"optimize": False},
    "jpeg": {"quality": 90},
    "gif": {},
    "webp": {"quality": 90},
    "avif": {"quality": 75},
}


def encode_image(image: Image.Image, format: ImageFormat) -> bytes:
    """Return the image's current frame as a file. Pixels that the format can't hold are converted.

    16-bit grey is reduced to 8 bits, except in PNG. In mode F, values from 0 to 255 are expected. For
    JPEG, transparent images are put on a white background. For GIF, colours are reduced to a palette of 256.
    The colour profile is kept unless a colour image becomes grey or a grey image becomes coloured. Raises
    UndecodableImage if the format can't hold an image of this size.
    """
    try:
        prepared = _CONVERTERS[format.name](image)
        options = _OPTIONS[format.name] | {"icc_profile": _profile(image, prepared)}
        # Pillow's writers save comments and other metadata that they find in `info`.
        prepared.info = {key: value for key, value in prepared.info.items() if key == "transparency"}
        buffer = BytesIO()
        prepared.save(buffer, format.pillow, **options)
    except (OSError, ValueError, MemoryError, SystemError) as error:
        message = (
            f"An image of {image.width} × {image.height} pixels can't be encoded as {format.name}."
            " Use a different size or format."
        )
        raise UndecodableImage(message, detail=repr(error)) from error
    return buffer.getvalue()


def _profile(source: Image.Image, prepared: Image.Image) -> bytes | None:
    """Return the colour profile of `source` if it still applies to the pixel values in `prepared`."""
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
    background = Image.new("RGB", picture.size, "white")
    background.paste(picture, mask=picture.getchannel("A"))
    return background


def for_gif(image: Image.Image) -> Image.Image:
    """Return the picture in mode L, or in mode P with a palette of 256 colours and 1-bit transparency."""
    picture = _eight_bits(image)
    if picture.mode != "RGBA":
        return picture if picture.mode == "L" else picture.quantize(256)
    transparent = 255
    paletted = picture.convert("RGB").quantize(transparent)
    mask = picture.getchannel("A").point(lambda alpha: 255 * (alpha < _GIF_OPAQUE_ALPHA))
    paletted.paste(transparent, mask=mask)
    paletted.info["transparency"] = transparent
    return paletted


def _eight_bits(image: Image.Image) -> Image.Image:
    """Return the same picture in mode L, RGB or RGBA."""
    if image.mode == "I" or image.mode.startswith("I;16"):
        return image.convert("I").point(lambda value: value * (1 / 257)).convert("L")
    if image.mode == "La":
        # Pillow can't convert La to RGBA directly.
        image = image.convert("LA")
    if image.has_transparency_data:
        return image.convert("RGBA")
    return image.convert("L" if _is_grey(image) else "RGB")


_CONVERTERS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "png": _for_png,
    "jpeg": _for_jpeg,
    "gif": for_gif,
    "webp": _eight_bits,
    "avif": _eight_bits,
}
