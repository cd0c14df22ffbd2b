"""Sand dunes with a bright windward and a dark lee side."""

import math

from PIL import Image, ImageChops, ImageFilter

from app.generators.builtin.colour import mix, multiply
from app.generators.builtin.facets import outline_from_light, slopes
from app.generators.builtin.land import local_colour, paint_layer
from app.generators.builtin.noise import Line, rolling_line
from app.generators.builtin.picture import Picture, Point

_COUNT = 5


def sand_dunes(picture: Picture) -> Line:
    """Dunes from the horizon down to the lower edge; gives the crest of the nearest."""
    crest = _crest(picture, 0)
    for index in range(_COUNT):
        crest = _crest(picture, index)
        _paint_dune(picture, crest, index / (_COUNT - 1))
    return crest


def _crest(picture: Picture, index: int) -> Line:
    near = index / (_COUNT - 1)
    line, rate = rolling_line(picture.rng(f"dune {index}"), 2, 0.14), 1.8 - 0.9 * near
    base = picture.horizon + (picture.height - picture.horizon) * (0.04 + 0.66 * math.pow(near, 1.4))
    height = (0.13 + 0.17 * near) * picture.unit

    def crest(x: float) -> float:
        ridge = 1 - math.pow(abs(2 * line(picture.span(x) * rate) - 1), 1.2)
        return base - height * (ridge - 0.5)

    return crest


def _paint_dune(picture: Picture, crest: Line, near: float) -> None:
    palette, sand = picture.palette, local_colour(picture, "sand")
    distance = 0.62 * (1 - near)
    sunny = mix(palette.lit(sand, distance), palette.glow, 0.28)
    low = mix(
        palette.lit(multiply(sand, mix(sand, (255, 255, 255), 0.4)), distance), palette.shadow, 0.1 * near
    )
    mask = paint_layer(picture, crest, sunny, low, picture.unit * (0.16 + 0.2 * near))
    lee = _lee(picture, crest).filter(ImageFilter.GaussianBlur(picture.unit * (0.001 + 0.006 * near)))
    picture.lay(ImageChops.multiply(lee, mask), mix(low, palette.shadow, 0.34), 0.7)


def _lee(picture: Picture, crest: Line) -> Image.Image:
    """The mask of the slip faces: under each crest a sickle that ends in the valley behind it."""
    stencil, outline = picture.stencil(), outline_from_light(picture, crest)
    for top, valley in slopes(picture, outline):
        side = outline[top : valley + 1]
        (x, y), (end, low) = side[0], side[-1]
        hang = (x + 0.12 * (end - x), low + 0.9 * (low - y) + 0.05 * picture.unit)
        stencil.polygon([*side, *reversed(_bow((x, y), hang, (end, low)))])
    return stencil.mask()


def _bow(start: Point, pull: Point, end: Point) -> list[Point]:
    """A quadratic Bézier curve."""
    curve = []
    for step in range(25):
        t = step / 24
        a, b, c = (1 - t) ** 2, 2 * t * (1 - t), t * t
        curve.append((a * start[0] + b * pull[0] + c * end[0], a * start[1] + b * pull[1] + c * end[1]))
    return curve
