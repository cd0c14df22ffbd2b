"""Where land meets water: lakes, tongues of land, islands, beaches and headlands."""

from app.generators.builtin.colour import mix, multiply
from app.generators.builtin.land import hill_line, local_colour, paint_layer
from app.generators.builtin.noise import Line
from app.generators.builtin.picture import Picture
from app.generators.builtin.plants import grass_blades, palm, pine
from app.generators.builtin.things import boat, house, lighthouse
from app.generators.builtin.water import paint_water
from app.generators.builtin.woods import framing_pines, pine_colour


def lake(picture: Picture, low: float = 0.055, default: bool = False) -> bool:
    """A lake with a near bank, if the scene has water; its far shore is `low` units under the horizon.

    Gives whether there is a lake.
    """
    if not (picture.scene.has("lake", default=default) or picture.scene.has("sea")):
        return False
    shore = picture.horizon + low * picture.unit
    if picture.scene.has("house"):
        _spit(picture, shore)
    paint_water(picture, shore)
    if picture.scene.has("boat"):
        boat(picture, shore)
    bank = hill_line(picture, "bank", picture.height * 0.985, 0.12, 1.3)
    colour = pine_colour(picture, 0.0)
    paint_layer(picture, bank, colour, picture.palette.shadow, picture.unit * 0.1)
    grass_blades(picture, bank, colour)
    framing_pines(picture, bank)
    return True


def _spit(picture: Picture, shore: float) -> None:
    """A tongue of land with a house and a few pines, to be mirrored in the lake."""
    x = picture.from_light(0.68)
    ground = mound(picture, x, shore + 2, 0.05, 0.5)
    colour = picture.palette.lit(local_colour(picture, "grass"), 0.1)
    rng, grove = picture.rng("spit"), picture.stencil()
    for _ in range(12):
        at = x + rng.choice((-1, 1)) * rng.uniform(0.09, 0.4) * picture.unit
        pine(grove, rng, (at, ground(at) + 2), picture.unit * rng.uniform(0.08, 0.2))
    picture.lay(grove.mask(), pine_colour(picture, 0.12))
    paint_layer(picture, ground, colour, mix(colour, picture.palette.shadow, 0.4), picture.unit * 0.06)
    house(picture, (x, ground(x) + 0.012 * picture.unit), picture.unit * 0.16)


def mound(picture: Picture, middle: float, foot: float, height: float, half: float) -> Line:
    """The crest of a flat hill on the y `foot`, `height` units tall and twice `half` wide."""
    rough = hill_line(picture, "mound", 0.0, height * 0.5, 4.0)

    def crest(x: float) -> float:
        away = min(1.0, abs(x - middle) / (half * picture.unit))
        return foot + (rough(x) - height * picture.unit) * (1 - away**2)

    return crest


def beach(picture: Picture) -> None:
    """Sand along the lower edge, with a rim of foam and leaning palms."""
    sand = local_colour(picture, "sand")
    palette, unit = picture.palette, picture.unit
    wet = hill_line(picture, "beach", picture.height * 0.86, 0.12, 0.8)
    paint_layer(
        picture,
        lambda x: wet(x) - 0.014 * unit,
        mix(palette.sky[-1], (255, 255, 255), 0.4),
        sand,
        unit * 0.03,
    )
    tone = palette.lit(sand, 0.05)
    paint_layer(picture, wet, multiply(tone, (200, 190, 185)), tone, unit * 0.09)
    if picture.scene.has("palms", default=True):
        _leaning_palms(picture, wet)


def _leaning_palms(picture: Picture, ground: Line) -> None:
    rng, palms, unit = picture.rng("beach palms"), picture.stencil(), picture.unit
    for place, size in ((0.9, 0.52), (0.76, 0.38)):
        x = picture.from_light(place + rng.uniform(-0.05, 0.05))
        palm(palms, rng, (x, ground(x) + 0.03 * unit), size * unit)
    picture.lay(palms.mask(), mix(pine_colour(picture, 0.0), picture.palette.shadow, 0.5))


def headland(picture: Picture) -> None:
    """A grassy cliff opposite the light, for a lighthouse or a house to stand on."""
    crest = _cliff(picture, picture.from_light(1.0))
    colour = picture.palette.lit(mix(local_colour(picture, "grass"), local_colour(picture, "ash"), 0.5), 0.0)
    paint_layer(picture, crest, colour, picture.palette.shadow, picture.unit * 0.3)
    if picture.scene.has("lighthouse"):
        lighthouse(picture, crest)
    if picture.scene.has("house"):
        x = picture.from_light(0.8)
        house(picture, (x, crest(x)), picture.unit * 0.13)


def _cliff(picture: Picture, edge: float) -> Line:
    rough = hill_line(picture, "cliff", 0.0, 0.07, 3.0)

    def crest(x: float) -> float:
        away = min(1.0, abs(x - edge) / (0.62 * picture.unit))
        return picture.height * 1.06 - (0.4 * picture.unit - rough(x)) * (1 - away**3)

    return crest
