"""Functions that paint the subjects of pictures, using sky, land, water, plants and things."""

import math
from collections.abc import Callable

from PIL import ImageChops, ImageFilter

from painter.canvas import Line, Picture, Point, cloud_noise, smooth_line, vertical_gradient
from painter.land import (
    hill_line,
    local_colour,
    paint_dunes,
    paint_far_ridges,
    paint_hills,
    paint_layer,
    paint_mountains,
    paint_volcano,
    silhouette,
)
from painter.palette import BLACK, NAMED, WHITE, Colour, adjust, mix
from painter.plants import (
    draw_cactus,
    draw_palm,
    paint_flowers,
    paint_forest_row,
    paint_grass,
    paint_lone_trees,
    paint_palm_grove,
    paint_plants,
    pine_colour,
)
from painter.sky import paint_fog_bank, paint_stars
from painter.things import paint_boat, paint_house_on, paint_lighthouse, paint_skyline
from painter.water import mound_line, paint_beach, paint_headland, paint_lake, paint_water

_SHEET_COUNT = 9
"""Number of sheets of colour in an abstract picture."""


def _mountains(picture: Picture) -> None:
    """Paint hazy ridges, rugged mountains, sometimes a lake, and pines in front."""
    paint_far_ridges(picture, picture.horizon, 0.3, 3)
    paint_mountains(picture, picture.horizon + 0.02 * picture.unit, 0.36)
    foot = hill_line(picture, "foot", picture.horizon + 0.03 * picture.unit, 0.05, 2.2)
    paint_fog_bank(picture, "valley", picture.horizon - 0.02 * picture.unit, 0.6, 0.12)
    colour = pine_colour(picture, 0.34)
    paint_forest_row(picture, "foot", foot, 0.045, 0.34)
    paint_layer(picture, foot, colour, mix(colour, picture.palette.haze, 0.5), picture.unit * 0.08)
    if paint_lake(picture, default=picture.rng("lake").random() < 0.5):
        return
    for index, (low, tall) in enumerate(((0.13, 0.075), (0.25, 0.15))):
        crest = hill_line(picture, f"slope {index}", picture.horizon + low * picture.unit, 0.13, 1.5)
        colour = pine_colour(picture, 0.24 - 0.2 * index)
        paint_forest_row(picture, f"slope {index}", crest, tall, 0.24 - 0.2 * index)
        paint_layer(picture, crest, colour, mix(colour, picture.palette.shadow, 0.5), picture.unit * 0.2)
    paint_house_on(picture, crest)


def _sea(picture: Picture) -> None:
    """Paint open water, possibly with a distant coast, a boat, a beach and a headland."""
    if picture.rng("coast").random() < 0.6 or picture.scene.has("mountains"):
        paint_far_ridges(picture, picture.horizon, 0.1, 2)
    paint_water(picture, picture.horizon)
    if picture.scene.has("boat"):
        paint_boat(picture, picture.horizon)
    if picture.scene.has("beach") or picture.scene.has("palms"):
        paint_beach(picture)
    if picture.scene.has_any("lighthouse", "house"):
        paint_headland(picture)


def _forest(picture: Picture) -> None:
    """Paint rows of trees with mist between them. Each row is larger and darker than the one behind it."""
    paint_far_ridges(picture, picture.horizon, 0.24, 2)
    if picture.scene.has("mountains"):
        paint_mountains(picture, picture.horizon, 0.36)
    crest = _paint_wood_row(picture, 0)
    for index in range(1, 5):
        paint_fog_bank(picture, f"mist {index}", crest(picture.width / 2) + 0.04 * picture.unit, 0.5, 0.1)
        crest = _paint_wood_row(picture, index)
    if not paint_lake(picture, 0.2):
        paint_house_on(picture, crest)


def _paint_wood_row(picture: Picture, index: int) -> Line:
    """Paint a row of trees, from 0 (the farthest) to 4 (the nearest), and return the crest of its ground."""
    near = index / 4
    distance = 0.74 * (1 - near) ** 1.2
    base = picture.horizon + (0.36 * near**1.2 - 0.05) * picture.unit
    crest, colour = hill_line(picture, f"wood {index}", base, 0.1, 1.4), pine_colour(picture, distance)
    paint_forest_row(picture, f"wood {index}", crest, 0.1 + 0.2 * near, distance)
    misty = mix(colour, picture.palette.haze, 0.3 * (1 - near))
    paint_layer(picture, crest, colour, misty, picture.unit * 0.14)
    return crest


def _meadow(picture: Picture) -> None:
    """Paint a lake if the scene has one, else rolling hills with grass, flowers, and trees or a house."""
    paint_far_ridges(picture, picture.horizon + 0.02 * picture.unit, 0.16, 2)
    if paint_lake(picture, 0.0):
        return
    crest = paint_hills(picture, picture.horizon)
    back = hill_line(
        picture, "hill 2", picture.horizon + (picture.height - picture.horizon) * 0.42, 0.17, 1.17
    )
    palette = picture.palette
    grass = palette.lit(local_colour(picture, "grass"), 0.0)
    if not picture.scene.has_any("winter", "snow"):
        paint_grass(picture, crest, grass)
        if picture.scene.has_any("flowers", "spring"):
            paint_flowers(picture, back, [mix(c, palette.ambient, 0.25) for c in _flower_colours(picture)])
    if picture.scene.has("house"):
        paint_house_on(picture, back)
    elif picture.scene.has("trees", default=True):
        paint_lone_trees(picture, back)


def _flower_colours(picture: Picture) -> list[Colour]:
    named = [NAMED[name] for name in picture.scene.colours if name not in ("green", "black")]
    return named or [NAMED["red"], NAMED["yellow"], NAMED["pink"], NAMED["white"]]


def _desert(picture: Picture) -> None:
    """Paint dunes in front of distant mesas, with cacti, palms or a house if the prompt names them."""
    paint_far_ridges(picture, picture.horizon, 0.12, 2)
    crest = paint_dunes(picture)
    if picture.scene.has("cactus"):
        paint_plants(picture, draw_cactus, crest, (0.1, 0.22, 0.07), "cactus")
    if picture.scene.has("palms"):
        paint_plants(picture, draw_palm, crest, (0.24, 0.3, 0.2), "palms")
    paint_house_on(picture, crest)


def _city(picture: Picture) -> None:
    """Paint a skyline over water."""
    paint_far_ridges(picture, picture.horizon, 0.14, 2)
    paint_skyline(picture, picture.horizon)
    paint_water(picture, picture.horizon)
    if picture.scene.has("boat"):
        paint_boat(picture, picture.horizon)


def _island(picture: Picture) -> None:
    """Paint an island with palms in open water."""
    paint_far_ridges(picture, picture.horizon, 0.07, 1)
    middle = picture.column_from_light(0.64)
    crest = mound_line(picture, middle, picture.horizon + 2, 0.075, 0.34)
    sand = picture.palette.lit(local_colour(picture, "sand"), 0.12)
    paint_layer(picture, crest, mix(pine_colour(picture, 0.12), sand, 0.2), sand, picture.unit * 0.09)
    if picture.scene.has("palms", default=picture.scene.has("trees", default=True)):
        paint_palm_grove(picture, middle, crest)
    if picture.scene.has("lighthouse"):
        paint_lighthouse(picture, lambda _: crest(middle))
    paint_water(picture, picture.horizon)
    if picture.scene.has("boat"):
        paint_boat(picture, picture.horizon)


def _volcano(picture: Picture) -> None:
    """Paint a volcano that rises from the sea."""
    paint_far_ridges(picture, picture.horizon, 0.08, 1)
    paint_volcano(picture, picture.horizon + 2)
    paint_water(picture, picture.horizon)
    if picture.scene.has("boat"):
        paint_boat(picture, picture.horizon)


LANDSCAPES: dict[str, Callable[[Picture], None]] = {
    "mountains": _mountains,
    "sea": _sea,
    "forest": _forest,
    "meadow": _meadow,
    "desert": _desert,
    "city": _city,
    "island": _island,
    "volcano": _volcano,
}
"""The functions for subjects with a sky, keyed by subject. They paint what is below and in front of the
sky."""


def paint_abstract(picture: Picture) -> None:
    """Paint flowing sheets of colour, like cut paper, from back to front. Each sheet casts a soft shadow."""
    colours = _sheet_colours(picture)
    picture.image.paste(
        vertical_gradient((mix(colours[0], WHITE, 0.55), mix(colours[0], WHITE, 0.15)), picture.size)
    )
    picture.add_light(
        picture.glow_mask((picture.sun[0], picture.height * 0.1), picture.unit * 0.7), WHITE, 0.5
    )
    for index in range(_SHEET_COUNT):
        _paint_sheet(picture, index, _colour_at(colours, index / (_SHEET_COUNT - 1)))


def _sheet_colours(picture: Picture) -> list[Colour]:
    named = [NAMED[name] for name in picture.scene.colours]
    if not named:
        return [*reversed(picture.palette.sky), picture.palette.shadow]
    if len(named) == 1:
        return [mix(named[0], WHITE, 0.5), named[0], adjust(named[0], hue_shift=0.06, value=0.5)]
    return [*named, adjust(named[0], value=0.45)]


def _colour_at(colours: list[Colour], place: float) -> Colour:
    at = place * (len(colours) - 1)
    index = min(int(at), len(colours) - 2)
    return mix(colours[index], colours[index + 1], at - index)


def _paint_sheet(picture: Picture, index: int, colour: Colour) -> None:
    line = smooth_line(picture.rng(f"sheet {index}"), 2, 0.25)
    base, swing = picture.height * (0.2 + 0.78 * index / _SHEET_COUNT), 0.34 * picture.unit
    rise = 0.12 * picture.unit * (1 if picture.light_from_left else -1)
    unit = picture.unit

    def crest(x: float) -> float:
        return (
            base
            + rise * picture.units_from_centre(x)
            - swing * (line(picture.units_from_centre(x) * 1.3 + index * 0.21) - 0.5)
        )

    _paint_shadow(picture, crest)
    paint_layer(picture, crest, mix(colour, WHITE, 0.16), adjust(colour, value=0.82), unit * 0.34)
    rim = ImageChops.subtract(
        silhouette(picture, crest), silhouette(picture, lambda x: crest(x) + unit * 0.0025)
    )
    picture.fill(rim, WHITE, 0.3)


def _paint_shadow(picture: Picture, crest: Line) -> None:
    mask = silhouette(picture, lambda x: crest(x) - picture.unit * 0.012)
    picture.fill(mask.filter(ImageFilter.GaussianBlur(picture.unit * 0.016)), picture.palette.shadow, 0.42)


def paint_space(picture: Picture) -> None:
    """Paint nebulae, stars and a planet. They fill the whole picture."""
    sky = [mix(colour, BLACK, 0.55) for colour in picture.palette.sky[:2]]
    picture.image.paste(vertical_gradient((sky[0], sky[1], sky[0]), picture.size))
    _paint_nebula(picture)
    paint_stars(picture, picture.height * 1.6, 1.6)
    if picture.scene.has("planet", default=True):
        _paint_planet(picture)


def _space_colours(picture: Picture) -> tuple[Colour, Colour]:
    named = [NAMED[name] for name in picture.scene.colours]
    if named:
        return named[0], named[-1] if len(named) > 1 else adjust(named[0], hue_shift=0.12)
    pairs = (("purple", "teal"), ("pink", "blue"), ("orange", "blue"), ("teal", "purple"))
    first, second = picture.rng("hues").choice(pairs)
    return NAMED[first], NAMED[second]


def _paint_nebula(picture: Picture) -> None:
    cells = (
        max(2, round(3 * picture.width / picture.unit)),
        max(2, round(3 * picture.height / picture.unit)),
    )
    lanes = cloud_noise(picture.rng("lanes"), picture.size, (cells[0] * 2, cells[1] * 2), 0.45)
    for index, colour in enumerate(_space_colours(picture)):
        veil = cloud_noise(picture.rng(f"nebula {index}"), picture.size, cells, 0.36)
        veil = ImageChops.multiply(veil, lanes if index else ImageChops.invert(lanes))
        veil = veil.point([min(255, round(v**1.7 / 52)) for v in range(256)])
        picture.add_light(veil, mix(colour, picture.palette.light, 0.15))


def _paint_planet(picture: Picture) -> None:
    rng, unit = picture.rng("planet"), picture.unit
    centre = (picture.width * rng.uniform(0.36, 0.64), picture.height * rng.uniform(0.46, 0.6))
    radius, (first, second) = unit * rng.uniform(0.15, 0.21), _space_colours(picture)
    lit = mix(first, picture.palette.light, 0.5)
    picture.add_light(picture.glow_mask(centre, radius * 1.9, 2.4), second, 0.5)
    if rng.random() < 0.7:
        tilt = rng.uniform(-0.45, 0.45)
        _paint_ring(picture, centre, radius, tilt, lit, (math.pi, math.tau))
        _paint_globe(picture, centre, radius, lit, second)
        _paint_ring(picture, centre, radius, tilt, lit, (0.0, math.pi))
    else:
        _paint_globe(picture, centre, radius, lit, second)


def _paint_globe(picture: Picture, centre: Point, radius: float, lit: Colour, band: Colour) -> None:
    disc = picture.stencil()
    disc.ellipse(centre, radius, radius)
    mask = disc.mask()
    picture.fill(mask, lit)
    bands = cloud_noise(
        picture.rng("bands"), picture.size, (2, round(26 * picture.height / picture.unit)), 0.3
    )
    picture.fill(ImageChops.multiply(mask, bands), mix(band, lit, 0.3), 0.9)
    day = picture.stencil()
    away = radius * (0.42 if picture.light_from_left else -0.42)
    day.ellipse((centre[0] - away, centre[1] - radius * 0.34), radius * 0.98, radius * 0.98)
    night = ImageChops.invert(day.mask().filter(ImageFilter.GaussianBlur(radius * 0.2)))
    picture.fill(ImageChops.multiply(night, mask), mix(picture.palette.sky[0], BLACK, 0.65), 0.94)


def _paint_ring(
    picture: Picture, centre: Point, radius: float, tilt: float, colour: Colour, half: tuple[float, float]
) -> None:
    for inner, outer, strength in ((1.35, 1.62, 0.75), (1.66, 1.8, 0.5), (1.86, 2.02, 0.3)):
        band = picture.stencil()
        angles = [half[0] + (half[1] - half[0]) * step / 60 for step in range(61)]
        edge = [_on_ring(centre, radius * outer, tilt, a) for a in angles]
        band.polygon([*edge, *(_on_ring(centre, radius * inner, tilt, a) for a in reversed(angles))])
        picture.fill(band.mask(), colour, strength)


def _on_ring(centre: Point, radius: float, tilt: float, angle: float) -> Point:
    x, y = math.cos(angle) * radius, math.sin(angle) * radius * 0.26
    rotated = (x * math.cos(tilt) - y * math.sin(tilt), x * math.sin(tilt) + y * math.cos(tilt))
    return centre[0] + rotated[0], centre[1] + rotated[1]
