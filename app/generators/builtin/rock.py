"""Mountains: sharp peaks, rock lit from the side, snow where it is high, mist at the foot."""

from itertools import pairwise

from PIL import Image, ImageChops, ImageFilter

from app.generators.builtin.colour import WHITE, Colour, mix, multiply
from app.generators.builtin.facets import shaded_sides
from app.generators.builtin.land import local_colour, silhouette
from app.generators.builtin.noise import Line, cloudy, craggy_line, relief
from app.generators.builtin.picture import Picture

_STRIPS = 160
_DRAPE = 0.7
"""How much of the crest's height its rock follows: all of it would turn the relief into a curtain."""


def rugged_mountains(picture: Picture, base: float, height: float) -> None:
    """A range of sharp peaks on the y `base`, the highest about `height` units tall."""
    rough, tents = craggy_line(picture.rng("mountain"), 6), _tents(picture)

    def crest(x: float) -> float:
        at = picture.span(x)
        rise: float = max(tall * max(0.0, 1 - abs(at - middle) / half) ** 1.2 for middle, tall, half in tents)
        return (
            base
            - height * (max(0.06, rise) * 0.8 + (0.26 + 0.3 * rise) * (rough(at * 2.6) - 0.4)) * picture.unit
        )

    paint_rock(picture, crest, base, snow=0.85 if picture.scene.has_any("winter", "snow") else 0.42)


def _tents(picture: Picture) -> list[tuple[float, float, float]]:
    """Peaks as (middle, height, half width): one leads, on the side away from the light."""
    rng, reach = picture.rng("peaks"), picture.width / picture.unit / 2
    lead = reach * rng.uniform(0.2, 0.5) * (1 if picture.light_from_left else -1)
    shoulder = rng.uniform(0.12, 0.2) * rng.choice((-1, 1))
    tents, at = [(lead, 1.0, 0.44), (lead + shoulder, rng.uniform(0.66, 0.8), 0.34)], -reach - 0.1
    while at < reach + 0.2:
        near_lead = max(0.0, 1 - abs(at - lead) / 0.7)
        tall = rng.uniform(0.3, 0.5) + 0.28 * near_lead * rng.random()
        tents.append((at, tall, tall * rng.uniform(0.42, 0.62)))
        at += rng.uniform(0.1, 0.24)
    return tents


def paint_rock(picture: Picture, crest: Line, base: float, snow: float) -> None:
    """A mountain below the crest, the rock lit from the side and white down to a share `snow` of it."""
    mask, light = silhouette(picture, crest), _light(picture, crest, base)
    picture.lay(mask, _rock_paint(picture, light))
    top = min(crest(x) for x in picture.columns())
    if snow:
        white = ImageChops.multiply(_snow(picture, light, top, (base - top) * snow), mask)
        picture.lay(white, _snow_paint(picture, light))
    picture.lay(ImageChops.multiply(_mist(picture, top, base), mask), picture.palette.haze, 0.52)


def _light(picture: Picture, crest: Line, base: float) -> Image.Image:
    """How much light falls on each point: large facets with rugged rock on them."""
    shade = shaded_sides(picture, crest, base, 0.09).filter(ImageFilter.GaussianBlur(picture.unit * 0.0015))
    facets = shade.point([225 - round(level * 0.7) for level in range(256)])
    wide = max(1.0, picture.width / picture.unit)
    cells = (round(14 * wide), round(6 * picture.height / picture.unit))
    rock = relief(picture.rng("rock"), picture.size, cells, picture.light_from_left)
    return Image.blend(facets, _drape(picture, rock, crest), 0.3)


def _drape(picture: Picture, texture: Image.Image, crest: Line) -> Image.Image:
    """The texture hung from the crest, so that its gullies run down from there."""
    width, height = picture.size
    edges = sorted({round(width * index / _STRIPS) for index in range(_STRIPS + 1)})
    mesh = []
    for left, right in pairwise(edges):
        a, b = _DRAPE * crest(left), _DRAPE * crest(right)
        mesh.append(((left, 0, right, height), (left, -a, left, height - a, right, height - b, right, -b)))
    return texture.transform(picture.size, Image.Transform.MESH, mesh, Image.Resampling.BILINEAR)


def _rock_paint(picture: Picture, light: Image.Image) -> Image.Image:
    palette, rock = picture.palette, local_colour(picture, "rock")
    warm = mix(palette.ambient, palette.light, 0.5)
    shade = palette.lit(mix(rock, palette.shadow, 0.55), 0.14)
    return _between(picture, light, mix(multiply(rock, warm), palette.haze, 0.12), shade)


def _snow_paint(picture: Picture, light: Image.Image) -> Image.Image:
    palette = picture.palette
    cold = mix(multiply(WHITE, palette.ambient), palette.sky[1], 0.45)
    sunny = mix(multiply(WHITE, mix(palette.ambient, palette.light, 0.75)), palette.glow, 0.2)
    return _between(
        picture, light.point([max(0, min(255, round(v * 1.9 - 110))) for v in range(256)]), sunny, cold
    )


def _between(picture: Picture, light: Image.Image, bright: Colour, dark: Colour) -> Image.Image:
    return Image.composite(
        Image.new("RGB", picture.size, bright), Image.new("RGB", picture.size, dark), light
    )


def _snow(picture: Picture, light: Image.Image, top: float, depth: float) -> Image.Image:
    """Where snow lies: from the highest top down to `depth` pixels, with a ragged edge."""
    height = Image.new("L", picture.size, 255)
    height.paste(
        Image.linear_gradient("L").resize((picture.width, max(2, round(depth * 1.7)))), (0, round(top))
    )
    ragged = cloudy(picture.rng("snow"), picture.size, (round(26 * picture.width / picture.unit), 14), 0.5)
    level = ImageChops.add(height, Image.blend(ragged, light, 0.4), scale=2)
    return level.point([max(0, min(255, (134 - v) * 14)) for v in range(256)])


def _mist(picture: Picture, top: float, base: float) -> Image.Image:
    """Mist that thickens towards the foot."""
    mist = Image.new("L", picture.size)
    fade = Image.linear_gradient("L").point([round(255 * (v / 255) ** 1.6) for v in range(256)])
    mist.paste(fade.resize((picture.width, max(2, round(base - top)))), (0, round(top)))
    mist.paste(255, (0, round(base), picture.width, picture.height))
    return mist
