"""The scenes the painter knows: each puts land, water and what grows there below the sky.

An abstract picture: flowing sheets of colour, like cut paper, each casting a soft shadow.
"""

from collections.abc import Callable

from PIL import ImageChops, ImageFilter

from painter.canvas import Line, Picture, ramp, rolling_line
from painter.land import (
    far_ridges,
    hill_line,
    local_colour,
    meadow_hills,
    paint_layer,
    rugged_mountains,
    sand_dunes,
    silhouette,
    volcano,
)
from painter.palette import NAMED, WHITE, Colour, adjust, mix
from painter.plants import (
    cactus,
    flowers,
    forest_row,
    grass_blades,
    lone_trees,
    palm,
    palm_grove,
    pine_colour,
    plant_few,
)
from painter.sky import fog_bank
from painter.things import boat, house_on, lighthouse, paint_skyline
from painter.water import beach, headland, lake, mound, paint_water

_SHEETS = 9


def paint_abstract(picture: Picture) -> None:
    """The whole picture, from the sheet at the back to the one in front."""
    colours = _colours(picture)
    picture.image.paste(ramp((mix(colours[0], WHITE, 0.55), mix(colours[0], WHITE, 0.15)), picture.size))
    picture.shine(picture.halo((picture.sun[0], picture.height * 0.1), picture.unit * 0.7), WHITE, 0.5)
    for index in range(_SHEETS):
        _sheet(picture, index, _along(colours, index / (_SHEETS - 1)))


def _colours(picture: Picture) -> list[Colour]:
    named = [NAMED[name] for name in picture.scene.colours]
    if not named:
        return [*reversed(picture.palette.sky), picture.palette.shadow]
    if len(named) == 1:
        return [mix(named[0], WHITE, 0.5), named[0], adjust(named[0], turn=0.06, value=0.5)]
    return [*named, adjust(named[0], value=0.45)]


def _along(colours: list[Colour], place: float) -> Colour:
    at = place * (len(colours) - 1)
    index = min(int(at), len(colours) - 2)
    return mix(colours[index], colours[index + 1], at - index)


def _sheet(picture: Picture, index: int, colour: Colour) -> None:
    line = rolling_line(picture.rng(f"sheet {index}"), 2, 0.25)
    base, swing = picture.height * (0.2 + 0.78 * index / _SHEETS), 0.34 * picture.unit
    rise = 0.12 * picture.unit * (1 if picture.light_from_left else -1)
    unit = picture.unit

    def crest(x: float) -> float:
        return base + rise * picture.span(x) - swing * (line(picture.span(x) * 1.3 + index * 0.21) - 0.5)

    _shadow(picture, crest)
    paint_layer(picture, crest, mix(colour, WHITE, 0.16), adjust(colour, value=0.82), unit * 0.34)
    rim = ImageChops.subtract(
        silhouette(picture, crest), silhouette(picture, lambda x: crest(x) + unit * 0.0025)
    )
    picture.lay(rim, WHITE, 0.3)


def _shadow(picture: Picture, crest: Line) -> None:
    mask = silhouette(picture, lambda x: crest(x) - picture.unit * 0.012)
    picture.lay(mask.filter(ImageFilter.GaussianBlur(picture.unit * 0.016)), picture.palette.shadow, 0.42)


def mountains(picture: Picture) -> None:
    """Hazy ridges, rugged mountains, a lake where one is asked for, and pines in front."""
    far_ridges(picture, picture.horizon, 0.3, 3)
    rugged_mountains(picture, picture.horizon + 0.02 * picture.unit, 0.36)
    foot = hill_line(picture, "foot", picture.horizon + 0.03 * picture.unit, 0.05, 2.2)
    fog_bank(picture, "valley", picture.horizon - 0.02 * picture.unit, 0.6, 0.12)
    colour = pine_colour(picture, 0.34)
    forest_row(picture, "foot", foot, 0.045, 0.34)
    paint_layer(picture, foot, colour, mix(colour, picture.palette.haze, 0.5), picture.unit * 0.08)
    if lake(picture, default=picture.rng("lake").random() < 0.5):
        return
    for index, (low, tall) in enumerate(((0.13, 0.075), (0.25, 0.15))):
        crest = hill_line(picture, f"slope {index}", picture.horizon + low * picture.unit, 0.13, 1.5)
        colour = pine_colour(picture, 0.24 - 0.2 * index)
        forest_row(picture, f"slope {index}", crest, tall, 0.24 - 0.2 * index)
        paint_layer(picture, crest, colour, mix(colour, picture.palette.shadow, 0.5), picture.unit * 0.2)
    house_on(picture, crest)


def sea(picture: Picture) -> None:
    """Open water, with a far coast, a boat, a beach or a headland."""
    if picture.rng("coast").random() < 0.6 or picture.scene.has("mountains"):
        far_ridges(picture, picture.horizon, 0.1, 2)
    paint_water(picture, picture.horizon)
    if picture.scene.has("boat"):
        boat(picture, picture.horizon)
    if picture.scene.has("beach") or picture.scene.has("palms"):
        beach(picture)
    if picture.scene.has_any("lighthouse", "house"):
        headland(picture)


def forest(picture: Picture) -> None:
    """Rows of trees, each nearer, larger and darker than the one behind, with mist between."""
    far_ridges(picture, picture.horizon, 0.24, 2)
    if picture.scene.has("mountains"):
        rugged_mountains(picture, picture.horizon, 0.36)
    crest = _wood(picture, 0)
    for index in range(1, 5):
        fog_bank(picture, f"mist {index}", crest(picture.width / 2) + 0.04 * picture.unit, 0.5, 0.1)
        crest = _wood(picture, index)
    if not lake(picture, 0.2):
        house_on(picture, crest)


def _wood(picture: Picture, index: int) -> Line:
    """One row of the forest, 0 the farthest … 4 the nearest; gives the ground it stands on."""
    near = index / 4
    distance = 0.74 * (1 - near) ** 1.2
    base = picture.horizon + (0.36 * near**1.2 - 0.05) * picture.unit
    crest, colour = hill_line(picture, f"wood {index}", base, 0.1, 1.4), pine_colour(picture, distance)
    forest_row(picture, f"wood {index}", crest, 0.1 + 0.2 * near, distance)
    misty = mix(colour, picture.palette.haze, 0.3 * (1 - near))
    paint_layer(picture, crest, colour, misty, picture.unit * 0.14)
    return crest


def meadow(picture: Picture) -> None:
    """Rolling hills with grass, flowers, lone trees, and a house where one is asked for."""
    far_ridges(picture, picture.horizon + 0.02 * picture.unit, 0.16, 2)
    if lake(picture, 0.0):
        return
    crest = meadow_hills(picture, picture.horizon)
    back = hill_line(
        picture, "hill 2", picture.horizon + (picture.height - picture.horizon) * 0.42, 0.17, 1.17
    )
    palette = picture.palette
    grass = palette.lit(local_colour(picture, "grass"), 0.0)
    if not picture.scene.has_any("winter", "snow"):
        grass_blades(picture, crest, grass)
        if picture.scene.has_any("flowers", "spring"):
            flowers(picture, back, [mix(c, palette.ambient, 0.25) for c in _petals(picture)])
    if picture.scene.has("house"):
        house_on(picture, back)
    elif picture.scene.has("trees", default=True):
        lone_trees(picture, back)


def desert(picture: Picture) -> None:
    """Dunes under far mesas, with cacti or palms where they are asked for."""
    far_ridges(picture, picture.horizon, 0.12, 2)
    crest = sand_dunes(picture)
    if picture.scene.has("cactus"):
        plant_few(picture, cactus, crest, (0.1, 0.22, 0.07), "cactus")
    if picture.scene.has("palms"):
        plant_few(picture, palm, crest, (0.24, 0.3, 0.2), "palms")
    house_on(picture, crest)


def city(picture: Picture) -> None:
    """A skyline over water."""
    far_ridges(picture, picture.horizon, 0.14, 2)
    paint_skyline(picture, picture.horizon)
    paint_water(picture, picture.horizon)
    if picture.scene.has("boat"):
        boat(picture, picture.horizon)


def island(picture: Picture) -> None:
    """An island with palms in open water."""
    far_ridges(picture, picture.horizon, 0.07, 1)
    middle = picture.from_light(0.64)
    crest = mound(picture, middle, picture.horizon + 2, 0.075, 0.34)
    sand = picture.palette.lit(local_colour(picture, "sand"), 0.12)
    paint_layer(picture, crest, mix(pine_colour(picture, 0.12), sand, 0.2), sand, picture.unit * 0.09)
    if picture.scene.has("palms", default=picture.scene.has("trees", default=True)):
        palm_grove(picture, middle, crest)
    if picture.scene.has("lighthouse"):
        lighthouse(picture, lambda _: crest(middle))
    paint_water(picture, picture.horizon)
    if picture.scene.has("boat"):
        boat(picture, picture.horizon)


def volcano_island(picture: Picture) -> None:
    """A volcano that rises from the sea."""
    far_ridges(picture, picture.horizon, 0.08, 1)
    volcano(picture, picture.horizon + 2)
    paint_water(picture, picture.horizon)
    if picture.scene.has("boat"):
        boat(picture, picture.horizon)


GROUNDS: dict[str, Callable[[Picture], None]] = {
    "mountains": mountains,
    "sea": sea,
    "forest": forest,
    "meadow": meadow,
    "desert": desert,
    "city": city,
    "island": island,
    "volcano": volcano_island,
}


def _petals(picture: Picture) -> list[Colour]:
    named = [NAMED[name] for name in picture.scene.colours if name not in ("green", "black")]
    return named or [NAMED["red"], NAMED["yellow"], NAMED["pink"], NAMED["white"]]
