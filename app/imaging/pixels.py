"""Convert pixels: to eight bits, to sRGB, to and from premultiplied alpha, and onto a background."""

from functools import lru_cache
from io import BytesIO

from PIL import Image, ImageCms

TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The transposition that makes an image upright, keyed by its EXIF orientation (CIPA DC-008, 4.6.4 A)."""

_PREMULTIPLIED = {"RGBA": "RGBa", "LA": "La"}
_STRAIGHT = {premultiplied: straight for straight, premultiplied in _PREMULTIPLIED.items()}

_INTENT = ImageCms.Intent.RELATIVE_COLORIMETRIC
_FLAGS = ImageCms.Flags.BLACKPOINTCOMPENSATION
"""Relative colorimetric with black point compensation is how browsers show images on an sRGB screen."""

_PROFILE_MODES = {"GRAY": "L", "RGB ": "RGB", "CMYK": "CMYK"}
"""The mode of the pixels to which a profile applies, keyed by its colour space (ICC.1, 7.2.6)."""

_PROBE = bytes(value for step in range(0, 256, 51) for value in (step, 255 - step, step // 2, step, 0, 255))
_SAME = 2
"""Maximum difference between the results of two profiles that are considered to be the same."""

_MAX_16_BIT = 65_535


def to_eight_bits(image: Image.Image) -> Image.Image:
    """Return the picture in one of the modes L, LA, RGB, RGBA, CMYK and YCbCr."""
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _from_16_bits(image)
    if image.mode in ("L", "1"):
        return image.convert("LA" if image.has_transparency_data else "L")
    if image.mode in ("CMYK", "YCbCr", "LA"):
        return image
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def _from_16_bits(image: Image.Image) -> Image.Image:
    wide = image.convert("I")
    grey = wide.point([(value + 128) // 257 for value in range(_MAX_16_BIT + 1)], "L")
    transparent = image.info.get("transparency")
    if not isinstance(transparent, int):
        return grey
    alpha = wide.point([255 * (value != transparent) for value in range(_MAX_16_BIT + 1)], "L")
    return Image.merge("LA", (grey, alpha))


def premultiplied(image: Image.Image) -> Image.Image:
    """Return the picture with its colours multiplied by alpha.

    Such pixels can be averaged: the colours of transparent pixels, which are often black, have no effect.
    """
    mode = _PREMULTIPLIED.get(image.mode)
    return image.convert(mode) if mode else image


def straight(image: Image.Image) -> Image.Image:
    """Return the picture with its colours no longer multiplied by alpha."""
    mode = _STRAIGHT.get(image.mode)
    return image.convert(mode) if mode else image


def has_transparency(image: Image.Image) -> bool:
    """Return whether the current frame, which must have been loaded, has transparent pixels.

    This looks at the alpha channel. For a transparent colour in a palette or in the header, it does not check
    whether any pixel has this colour.
    """
    if image.mode in ("RGBA", "LA", "PA"):
        return image.getchannel("A").getextrema() != (255, 255)
    return image.has_transparency_data


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Return an 8-bit picture in sRGB, in mode L, LA, RGB or RGBA.

    `profile` is the picture's ICC profile, or empty. It is ignored if it is damaged or made for other pixels.
    A grey picture remains grey. A picture in mode YCbCr is returned unchanged if no conversion is needed.
    """
    alpha = image.getchannel("A") if image.mode in ("RGBA", "LA") else None
    colours = {"RGBA": "RGB", "LA": "L"}.get(image.mode, image.mode)
    transform = _transform(profile, "RGB" if colours == "YCbCr" else colours)
    if transform is None:
        return image.convert("RGB") if colours == "CMYK" else image
    picture = image.convert("RGB") if colours == "YCbCr" else image.convert(colours)
    result = ImageCms.applyTransform(picture, transform)
    assert result is not None
    if colours == "L":
        result = result.convert("L")
    if alpha is not None:
        result.putalpha(alpha)
    result.info = {}
    return result


@lru_cache(maxsize=4)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return the transform from a profile to sRGB, or None if it is not needed or not possible.

    `mode` is the mode of the pixels.
    """
    if not profile:
        return None
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        expected = _PROFILE_MODES.get(source.profile.xcolor_space)
        if mode != expected:
            return None
        transform = ImageCms.buildTransform(source, _srgb(), mode, "RGB", _INTENT, _FLAGS)
        return None if mode != "CMYK" and _changes_nothing(transform, mode) else transform
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


@lru_cache(maxsize=1)
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def _changes_nothing(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Return whether the transform maps a few test colours to themselves.

    Most images have a profile of sRGB, of which there are many slightly different ones.
    """
    pixels = len(_PROBE) // 3
    before = Image.frombytes("RGB", (pixels, 1), _PROBE).convert(mode)
    after = ImageCms.applyTransform(before, transform)
    assert after is not None
    pairs = zip(before.convert("RGB").tobytes(), after.tobytes(), strict=True)
    return all(abs(first - second) <= _SAME for first, second in pairs)


def flattened(image: Image.Image, background: str) -> Image.Image:
    """Return an 8-bit picture on a background, which is given as six hexadecimal digits, without alpha."""
    if image.mode not in ("RGBA", "LA"):
        return image
    canvas = Image.new("RGB", image.size, f"#{background}")
    canvas.paste(image.convert("RGB"), mask=image.getchannel("A"))
    return canvas
