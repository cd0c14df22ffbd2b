"""Land in layers: silhouettes with a gradient, hazy far ridges and rolling hills."""

from PIL import Image, ImageChops

from app.generators.builtin.colour import Colour, mix, multiply
from app.generators.builtin.noise import Line, cloudy, craggy_line, rolling_line
from app.generators.builtin.palette import GROUND_COLOURS
from app.generators.builtin.picture import Picture, ramp


def local_colour(picture: Picture, kind: str) -> Colour:
    """The colour of a kind of ground in the season that was asked for."""
    scene, colour = picture.scene, GROUND_COLOURS[kind]
    if scene.has_any("winter", "snow"):
        return mix(colour, GROUND_COLOURS["snow"], {"pine": 0.2, "rock": 0.25, "tower": 0.1}.get(kind, 0.88))
    for season in ("autumn", "spring"):
        if scene.has(season) and kind in ("grass", "pine"):
            return mix(colour, GROUND_COLOURS[season], 0.7)
    return colour


def silhouette(picture: Picture, crest: Line) -> Image.Image:
    """The mask of everything below the crest."""
    stencil = picture.stencil()
    points = [(x, crest(x)) for x in picture.columns()]
    stencil.polygon([*points, (picture.width, picture.height), (0, picture.height)])
    return stencil.mask()


def paint_layer(picture: Picture, crest: Line, top: Colour, bottom: Colour, depth: float) -> Image.Image:
    """Land below the crest, going over from `top` to `bottom` within `depth` pixels; gives its mask."""
    start = max(0, min(picture.height - 2, round(min(crest(x) for x in picture.columns()))))
    paint = Image.new("RGB", picture.size, bottom)
    paint.paste(ramp((top, bottom), (picture.width, max(2, round(depth)))), (0, start))
    mask = silhouette(picture, crest)
    picture.lay(mask, paint)
    return mask


def far_ridges(picture: Picture, base: float, height: float, count: int = 3) -> None:
    """A few hazy ridges, one behind the other, that stand on the y `base`."""
    palette = picture.palette
    rock = local_colour(picture, "rock")
    for index in range(count):
        line, nearness = craggy_line(picture.rng(f"ridge {index}"), 6), index / count
        lift = height * (1.0 - 0.38 * nearness)

        def crest(x: float, line: Line = line, lift: float = lift, rate: float = 1.5 + nearness) -> float:
            return base - lift * (0.2 + 0.8 * line(picture.span(x) * rate)) * picture.unit

        distance = 0.8 - 0.36 * nearness
        top, foot = palette.lit(rock, distance), palette.lit(rock, min(0.95, distance + 0.26))
        paint_layer(picture, crest, top, foot, lift * picture.unit)


def hill_line(picture: Picture, name: str, base: float, height: float, rate: float) -> Line:
    """The crest of a gentle hill round the y `base`."""
    line = rolling_line(picture.rng(name), 3, 0.3)
    return lambda x: base - height * (line(picture.span(x) * rate) - 0.5) * picture.unit


def meadow_hills(picture: Picture, base: float, count: int = 4) -> Line:
    """Rolling hills from the y `base` down to the lower edge; gives the crest of the nearest."""
    palette, grass = picture.palette, local_colour(picture, "grass")
    crest = hill_line(picture, "hill 0", base, 0.1, 1.0)
    for index in range(count):
        nearness = index / max(1, count - 1)
        y = base + (picture.height - base) * 0.72 * nearness**1.3
        crest = hill_line(picture, f"hill {index}", y, 0.14 + 0.05 * nearness, 1.5 - 0.5 * nearness)
        tone = mix(grass, multiply(grass, GROUND_COLOURS["pine"]), 0.55 * nearness)
        sunny = mix(palette.lit(tone, 0.62 * (1 - nearness)), palette.glow, 0.16)
        under = mix(palette.lit(tone, 0.7 * (1 - nearness)), palette.shadow, 0.12 + 0.42 * nearness)
        mask = paint_layer(picture, crest, sunny, under, picture.unit * 0.26)
        _mottle(picture, mask, f"grass {index}", under, 0.35)
    return crest


def _mottle(picture: Picture, mask: Image.Image, name: str, colour: Colour, strength: float) -> None:
    aspect = picture.width / picture.unit
    spots = cloudy(picture.rng(name), picture.size, (round(4 * aspect), 18), 0.4)
    picture.lay(
        ImageChops.multiply(spots.point([max(0, 2 * v - 255) for v in range(256)]), mask), colour, strength
    )
