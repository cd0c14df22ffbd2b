"""ThumbHash: a placeholder of about 25 bytes for an image (https://evanw.github.io/thumbhash/).

The placeholder holds the lowest frequencies of a cosine transform: of the lightness, of two colour
differences and of the alpha channel. The transform is separable, so it is computed first along the rows and
then along the columns, which is about a hundred times faster than the reference implementation in Python.
"""

import base64
import math
from collections.abc import Sequence
from operator import mul
from typing import NamedTuple

from PIL import Image

from app.imaging.pixels import TRANSPOSITIONS, premultiplied, straight, to_eight_bits
from app.imaging.survey import UPRIGHT

_SAMPLED_SIDE = 256
"""Maximum width and height of the pixels picked from the image. Averaging all pixels of a large image would
take much longer, and the placeholder would look the same."""
_SIDE = 16
"""Maximum width and height of the copy that is transformed. No frequency higher than 7 is kept."""

_LIGHTNESS_TERMS, _LIGHTNESS_TERMS_WITH_ALPHA, _COLOUR_TERMS, _ALPHA_TERMS = 7, 5, 3, 5


def thumbhash(image: Image.Image, orientation: int = UPRIGHT) -> str:
    """Return the ThumbHash of the current frame in Base64. Colour profiles are not taken into account.

    `orientation` is the EXIF orientation of the frame. The placeholder is upright.
    """
    sample = image.resize(_fitted(image.size, _SAMPLED_SIDE), Image.Resampling.NEAREST)
    small = premultiplied(to_eight_bits(sample)).resize(_fitted(image.size, _SIDE), Image.Resampling.BOX)
    small = straight(small)
    if small.mode not in ("RGBA", "LA"):
        small = small.convert("RGB")
    if orientation in TRANSPOSITIONS:
        small = small.transpose(TRANSPOSITIONS[orientation])
    return base64.b64encode(encode_rgba(small.size, small.convert("RGBA").tobytes())).decode()


def encode_rgba(size: tuple[int, int], rgba: bytes) -> bytes:
    """Return the ThumbHash of a picture of at most 100 × 100 pixels, given as rows of RGBA."""
    width, height = size
    alphas = [value / 255 for value in rgba[3::4]]
    total = sum(alphas)
    has_alpha = total < width * height
    colours = [[value / 255 for value in rgba[band::4]] for band in range(3)]
    if has_alpha:
        colours = [_on_average(band, alphas, total) for band in colours]
    longest = max(size)
    terms = _LIGHTNESS_TERMS_WITH_ALPHA if has_alpha else _LIGHTNESS_TERMS
    across, down = max(1, _round(terms * width / longest)), max(1, _round(terms * height / longest))
    red, green, blue = colours
    lightness = [(r + g + b) / 3 for r, g, b in zip(red, green, blue, strict=True)]
    yellow_blue = [(r + g) / 2 - b for r, g, b in zip(red, green, blue, strict=True)]
    red_green = [r - g for r, g in zip(red, green, strict=True)]
    channels = [
        _transform(lightness, size, max(_COLOUR_TERMS, across), max(_COLOUR_TERMS, down)),
        _transform(yellow_blue, size, _COLOUR_TERMS, _COLOUR_TERMS),
        _transform(red_green, size, _COLOUR_TERMS, _COLOUR_TERMS),
    ]
    if has_alpha:
        channels.append(_transform(alphas, size, _ALPHA_TERMS, _ALPHA_TERMS))
    return _pack(channels, across, down, is_landscape=width > height)


class _Frequencies(NamedTuple):
    """The average of a channel, its other terms in 0…1, and the factor by which they were scaled."""

    average: float
    terms: list[float]
    scale: float


def _fitted(size: tuple[int, int], side: int) -> tuple[int, int]:
    scale = min(1, side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _round(value: float) -> int:
    return math.floor(value + 0.5)


def _on_average(band: list[float], alphas: list[float], total: float) -> list[float]:
    """Return the band with transparent pixels blended into the average of the opaque ones."""
    average = sum(map(mul, band, alphas)) / total if total else 0
    return [average * (1 - alpha) + alpha * value for value, alpha in zip(band, alphas, strict=True)]


def _cosines(length: int, term: int) -> list[float]:
    return [math.cos(math.pi / length * term * (at + 0.5)) for at in range(length)]


def _transform(channel: Sequence[float], size: tuple[int, int], across: int, down: int) -> _Frequencies:
    width, height = size
    rows = [channel[start : start + width] for start in range(0, width * height, width)]
    columns = [
        [sum(map(mul, row, cosines)) for row in rows]
        for cosines in (_cosines(width, term) for term in range(across))
    ]
    found = [
        sum(map(mul, columns[x], _cosines(height, y))) / (width * height)
        for y in range(down)
        for x in range(across)
        if x * down < across * (down - y)
    ]
    average, *terms = found
    scale = max(map(abs, terms), default=0)
    return _Frequencies(average, [0.5 + 0.5 / scale * term for term in terms] if scale else terms, scale)


def _pack(channels: list[_Frequencies], across: int, down: int, *, is_landscape: bool) -> bytes:
    """Return the bytes of the hash. The fourth channel, alpha, may be missing."""
    lightness, yellow_blue, red_green, *alpha = channels
    header = (
        _round(63 * lightness.average)
        | _round(31.5 + 31.5 * yellow_blue.average) << 6
        | _round(31.5 + 31.5 * red_green.average) << 12
        | _round(31 * lightness.scale) << 18
        | bool(alpha) << 23
        | (down if is_landscape else across) << 24
        | _round(63 * yellow_blue.scale) << 27
        | _round(63 * red_green.scale) << 33
        | is_landscape << 39
    ).to_bytes(5, "little")
    for each in alpha:
        header += bytes((_round(15 * each.average) | _round(15 * each.scale) << 4,))
    halves = [_round(15 * term) for channel in channels for term in channel.terms]
    halves += [0] * (len(halves) % 2)
    return header + bytes(low | high << 4 for low, high in zip(halves[::2], halves[1::2], strict=True))
