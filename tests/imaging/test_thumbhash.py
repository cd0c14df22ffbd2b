"""Our ThumbHash equals that of the reference algorithm (https://github.com/evanw/thumbhash)."""

import base64
import math
import random

import pytest
from PIL import Image

from app.imaging.thumbhash import encode_rgba, thumbhash

from .samples import picture


def rounded(value: float) -> int:
    """Return what JavaScript's Math.round returns."""
    return math.floor(value + 0.5)


def encoded_channel(
    channel: list[float], nx: int, ny: int, *, size: tuple[int, int]
) -> tuple[float, list[float], float]:
    """Return the first term, the other terms in 0…1, and their scale."""
    width, height = size
    terms = [
        sum(
            channel[x + y * width]
            * math.cos(math.pi / width * cx * (x + 0.5))
            * math.cos(math.pi / height * cy * (y + 0.5))
            for y in range(height)
            for x in range(width)
        )
        / (width * height)
        for cy in range(ny)
        for cx in range(nx)
        if cx * ny < nx * (ny - cy)
    ]
    scale = max(map(abs, terms[1:]), default=0)
    return terms[0], [0.5 + 0.5 / scale * term for term in terms[1:]] if scale else terms[1:], scale


def reference(width: int, height: int, rgba: bytes) -> bytes:
    """Return the hash, computed term by term as in the reference implementation in JavaScript."""
    pixels = [tuple(value / 255 for value in rgba[at : at + 4]) for at in range(0, len(rgba), 4)]
    total = sum(pixel[3] for pixel in pixels)
    average = [sum(pixel[3] * pixel[band] for pixel in pixels) / (total or 1) for band in range(3)]
    has_alpha = total < width * height
    limit = 5 if has_alpha else 7
    lx = max(1, math.floor(limit * width / max(width, height) + 0.5))
    ly = max(1, math.floor(limit * height / max(width, height) + 0.5))
    blended = [[average[b] * (1 - p[3]) + p[3] * p[b] for b in range(3)] for p in pixels]
    channels = [
        ([sum(colour) / 3 for colour in blended], max(3, lx), max(3, ly)),
        ([(colour[0] + colour[1]) / 2 - colour[2] for colour in blended], 3, 3),
        ([colour[0] - colour[1] for colour in blended], 3, 3),
    ]
    if has_alpha:
        channels.append(([pixel[3] for pixel in pixels], 5, 5))
    encoded = [encoded_channel(*channel, size=(width, height)) for channel in channels]
    (l_dc, _, l_scale), (p_dc, _, p_scale), (q_dc, _, q_scale) = encoded[:3]
    landscape = width > height
    header24 = rounded(63 * l_dc) | rounded(31.5 + 31.5 * p_dc) << 6 | rounded(31.5 + 31.5 * q_dc) << 12
    header24 |= rounded(31 * l_scale) << 18 | has_alpha << 23
    header16 = (ly if landscape else lx) | rounded(63 * p_scale) << 3 | rounded(63 * q_scale) << 9
    header16 |= landscape << 15
    found = [header24 & 255, header24 >> 8 & 255, header24 >> 16, header16 & 255, header16 >> 8]
    if has_alpha:
        found.append(rounded(15 * encoded[3][0]) | rounded(15 * encoded[3][2]) << 4)
    start = len(found)
    for index, term in enumerate(term for _, ac, _ in encoded for term in ac):
        if index % 2 == 0:
            found.append(0)
        found[start + index // 2] |= rounded(15 * term) << (index % 2 * 4)
    return bytes(found)


@pytest.mark.parametrize("size", [(1, 1), (24, 16), (9, 24), (1, 24), (24, 1), (5, 5), (10, 7)])
@pytest.mark.parametrize("alpha", [False, True])
def test_the_hash_equals_the_reference(size: tuple[int, int], alpha: bool) -> None:
    """The picture is noise, as terms of symmetric pictures are often rounded in both directions."""
    noise = Image.frombytes("RGBA", size, random.Random(7).randbytes(4 * size[0] * size[1]))
    if not alpha:
        noise.putalpha(255)
    assert encode_rgba(size, noise.tobytes()) == reference(*size, noise.tobytes())


def test_a_transparent_picture_has_a_hash() -> None:
    assert encode_rgba((4, 4), bytes(64)) == reference(4, 4, bytes(64))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16"])
@pytest.mark.parametrize("size", [(1, 1), (300, 200), (1, 3000), (3000, 1)])
def test_every_picture_has_a_short_hash(mode: str, size: tuple[int, int]) -> None:
    image = picture(size=size).convert("L").convert(mode) if mode == "I;16" else picture(mode=mode, size=size)
    found = base64.b64decode(thumbhash(image), validate=True)
    assert 5 <= len(found) <= 30


def test_the_hash_is_that_of_the_upright_picture() -> None:
    upright = picture()
    stored = upright.transpose(Image.Transpose.ROTATE_90)
    assert thumbhash(stored, 6) == thumbhash(upright)
    assert thumbhash(stored) != thumbhash(upright)
