"""Deep space: nebulae, stars and a ringed planet."""

import math

from PIL import ImageChops, ImageFilter

from app.generators.builtin.colour import BLACK, Colour, adjust, mix
from app.generators.builtin.noise import cloudy
from app.generators.builtin.palette import NAMED
from app.generators.builtin.picture import Picture, Point, ramp
from app.generators.builtin.sky import paint_stars


def paint_space(picture: Picture) -> None:
    """The whole picture; there is no ground here."""
    sky = [mix(colour, BLACK, 0.55) for colour in picture.palette.sky[:2]]
    picture.image.paste(ramp((sky[0], sky[1], sky[0]), picture.size))
    _nebula(picture)
    paint_stars(picture, picture.height * 1.6, 1.6)
    if picture.scene.has("planet", default=True):
        _planet(picture)


def _hues(picture: Picture) -> tuple[Colour, Colour]:
    named = [NAMED[name] for name in picture.scene.colours]
    if named:
        return named[0], named[-1] if len(named) > 1 else adjust(named[0], turn=0.12)
    pairs = (("purple", "teal"), ("pink", "blue"), ("orange", "blue"), ("teal", "purple"))
    first, second = picture.rng("hues").choice(pairs)
    return NAMED[first], NAMED[second]


def _nebula(picture: Picture) -> None:
    cells = (
        max(2, round(3 * picture.width / picture.unit)),
        max(2, round(3 * picture.height / picture.unit)),
    )
    lanes = cloudy(picture.rng("lanes"), picture.size, (cells[0] * 2, cells[1] * 2), 0.45)
    for index, colour in enumerate(_hues(picture)):
        veil = cloudy(picture.rng(f"nebula {index}"), picture.size, cells, 0.36)
        veil = ImageChops.multiply(veil, lanes if index else ImageChops.invert(lanes))
        veil = veil.point([min(255, round(v**1.7 / 52)) for v in range(256)])
        picture.shine(veil, mix(colour, picture.palette.light, 0.15))


def _planet(picture: Picture) -> None:
    rng, unit = picture.rng("planet"), picture.unit
    centre = (picture.width * rng.uniform(0.36, 0.64), picture.height * rng.uniform(0.46, 0.6))
    radius, (first, second) = unit * rng.uniform(0.15, 0.21), _hues(picture)
    lit = mix(first, picture.palette.light, 0.5)
    picture.shine(picture.halo(centre, radius * 1.9, 2.4), second, 0.5)
    if rng.random() < 0.7:
        tilt = rng.uniform(-0.45, 0.45)
        _ring(picture, centre, radius, tilt, lit, (math.pi, math.tau))
        _globe(picture, centre, radius, lit, second)
        _ring(picture, centre, radius, tilt, lit, (0.0, math.pi))
    else:
        _globe(picture, centre, radius, lit, second)


def _globe(picture: Picture, centre: Point, radius: float, lit: Colour, band: Colour) -> None:
    disc = picture.stencil()
    disc.ellipse(centre, radius, radius)
    mask = disc.mask()
    picture.lay(mask, lit)
    bands = cloudy(picture.rng("bands"), picture.size, (2, round(26 * picture.height / picture.unit)), 0.3)
    picture.lay(ImageChops.multiply(mask, bands), mix(band, lit, 0.3), 0.9)
    day = picture.stencil()
    away = radius * (0.42 if picture.light_from_left else -0.42)
    day.ellipse((centre[0] - away, centre[1] - radius * 0.34), radius * 0.98, radius * 0.98)
    night = ImageChops.invert(day.mask().filter(ImageFilter.GaussianBlur(radius * 0.2)))
    picture.lay(ImageChops.multiply(night, mask), mix(picture.palette.sky[0], BLACK, 0.65), 0.94)


def _ring(
    picture: Picture, centre: Point, radius: float, tilt: float, colour: Colour, half: tuple[float, float]
) -> None:
    for inner, outer, strength in ((1.35, 1.62, 0.75), (1.66, 1.8, 0.5), (1.86, 2.02, 0.3)):
        band = picture.stencil()
        angles = [half[0] + (half[1] - half[0]) * step / 60 for step in range(61)]
        edge = [_on_ring(centre, radius * outer, tilt, a) for a in angles]
        band.polygon([*edge, *(_on_ring(centre, radius * inner, tilt, a) for a in reversed(angles))])
        picture.lay(band.mask(), colour, strength)


def _on_ring(centre: Point, radius: float, tilt: float, angle: float) -> Point:
    x, y = math.cos(angle) * radius, math.sin(angle) * radius * 0.26
    turned = (x * math.cos(tilt) - y * math.sin(tilt), x * math.sin(tilt) + y * math.cos(tilt))
    return centre[0] + turned[0], centre[1] + turned[1]
