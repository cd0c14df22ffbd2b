"""Makes pictures that cost as much to decode and to encode as photos of a camera with 12 megapixels.

A picture has what photos have: a sky with a gradient, hills with sharp edges, textures whose contrast falls
with their frequency, a blurred background, some text, and the noise of a sensor. Each seed makes a different
picture, and the same one on each run.
"""

import io
import random
from collections.abc import Iterator

from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont, ImageOps

SIZE = (4000, 3000)
"""Width and height of a picture in pixels."""

_QUALITY = 91
"""The JPEG quality with which a picture has about 3 MB."""

_LAYERS = 5
_OCTAVES = 8
_SHADES = ((-15, 8), (0, 35), (20, 78))
"""Hue relative to the others, and lightness in per cent."""

_TEXTURES_SCALE = 2
"""Layers are painted at half the size of the picture and then enlarged, as no lens resolves single pixels."""

_GRAIN = 0.05
"""The share of the sensor's noise in the picture."""

_TAG_SIDE = 16
"""The side of the square that makes a copy of a picture unique, in pixels."""

_WORDS = ["Open all year", "Bakery", "No entry", "24 h", "Sea view", "Platform 9", "Fresh fish"]


def photo(seed: int, size: tuple[int, int] = SIZE) -> Image.Image:
    """Return the picture of this seed."""
    chance = random.Random(seed)
    small = (size[0] // _TEXTURES_SCALE, size[1] // _TEXTURES_SCALE)
    picture = _sky(chance, small)
    for layer in range(_LAYERS):
        texture = _coloured(chance, _clouds(chance, small, detail=0.6 + 0.06 * layer))
        mask = _hills(chance, small, top=0.3 + 0.6 * layer / _LAYERS)
        picture.paste(texture, mask=mask)
        if layer == 1:
            picture = picture.filter(ImageFilter.GaussianBlur(3))  # out of focus
    _write(chance, picture)
    picture = picture.resize(size, Image.Resampling.BICUBIC)
    grain = Image.merge("RGB", [_noise(chance, size)] * 3)
    return Image.blend(picture, grain, _GRAIN)


def copies(picture: Image.Image, count: int) -> Iterator[bytes]:
    """Yield JPEGs of the picture that differ in a few pixels, so that no cache takes one for another."""
    corner = picture.crop((0, 0, _TAG_SIDE, _TAG_SIDE))
    chance = random.Random(count)
    for _ in range(count):
        picture.paste(_noise(chance, corner.size).convert("RGB"), (0, 0))
        yield jpeg(picture)
    picture.paste(corner, (0, 0))


def jpeg(picture: Image.Image) -> bytes:
    """Return the picture as a JPEG of a camera's quality."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_QUALITY, subsampling="4:2:0")
    return buffer.getvalue()


def _noise(chance: random.Random, size: tuple[int, int]) -> Image.Image:
    return Image.frombytes("L", size, chance.randbytes(size[0] * size[1]))


def _clouds(chance: random.Random, size: tuple[int, int], detail: float, finest: int = 0) -> Image.Image:
    """Return fractal noise. Each octave has `detail` times the contrast of the coarser one.

    The octaves end `2 ** finest` pixels wide.
    """
    clouds = _noise(chance, (size[0] >> _OCTAVES, size[1] >> _OCTAVES))
    weight = 0.5
    for octave in reversed(range(finest, _OCTAVES)):
        finer = (size[0] >> octave, size[1] >> octave)
        clouds = Image.blend(clouds.resize(finer, Image.Resampling.BICUBIC), _noise(chance, finer), weight)
        weight = detail * weight / (1 + detail * weight)
    return ImageOps.autocontrast(clouds.resize(size, Image.Resampling.BICUBIC), cutoff=0.5)


def _coloured(chance: random.Random, clouds: Image.Image) -> Image.Image:
    """Return the clouds in shades of similar colours."""
    hue = chance.randrange(360)
    saturation = chance.randrange(10, 45)
    shades = [f"hsl({(hue + shift) % 360}, {saturation}%, {lightness}%)" for shift, lightness in _SHADES]
    dark, middle, light = shades
    return ImageOps.colorize(clouds, dark, light, middle)


def _sky(chance: random.Random, size: tuple[int, int]) -> Image.Image:
    gradient = Image.linear_gradient("L").resize(size)
    soft = _clouds(chance, size, detail=0.5, finest=3)
    return _coloured(chance, Image.blend(gradient, soft, 0.3))


def _hills(chance: random.Random, size: tuple[int, int], top: float) -> Image.Image:
    """Return a mask of what is below a rugged line, which is at the height `top` on average."""
    shape = _clouds(chance, size, detail=0.55, finest=1)
    height = Image.linear_gradient("L").resize(size)
    both = ImageChops.add(shape, height, scale=2)
    limit = int(64 + 110 * top)
    return both.point([min(255, max(0, (value - limit) * 24)) for value in range(256)])


def _write(chance: random.Random, picture: Image.Image) -> None:
    """Write some words, on boards of one colour."""
    draw = ImageDraw.Draw(picture)
    for word in chance.sample(_WORDS, 4):
        font = ImageFont.load_default(chance.choice((40, 60, 90, 140)))
        place = (chance.randrange(picture.width * 3 // 4), chance.randrange(picture.height * 9 // 10))
        left, top, right, bottom = draw.textbbox(place, word, font=font)
        board = (left - 20, top - 20, right + 20, bottom + 20)
        colours = [f"hsl({chance.randrange(360)}, 60%, {lightness}%)" for lightness in (90, 20)]
        chance.shuffle(colours)
        draw.rounded_rectangle(board, 15, fill=colours[0])
        draw.text(place, word, font=font, fill=colours[1])
