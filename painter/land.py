"""Land: distant ridges, rolling hills, dunes, mountains and a volcano. Each is painted below its crest."""

import math
from collections.abc import Iterator
from itertools import pairwise
from random import Random

from PIL import Image, ImageChops, ImageFilter

from painter.canvas import (
    Line,
    Picture,
    Point,
    cloud_noise,
    lit_relief,
    ridged_line,
    smooth_line,
    vertical_gradient,
)
from painter.palette import GROUND_COLOURS, WHITE, Colour, mix, multiply

_MESH_STRIPS = 160
"""Number of vertical strips into which the texture of rock is divided. Each strip is shifted to follow the
crest."""

_CREST_SHARE = 0.7
"""The fraction of the crest's y by which the texture of rock is shifted. At 1, the rock would look like a
curtain."""

_DUNE_COUNT = 5


def local_colour(picture: Picture, kind: str) -> Colour:
    """Return the colour that `kind`, a key of `GROUND_COLOURS`, has in the season of the scene."""
    scene, colour = picture.scene, GROUND_COLOURS[kind]
    if scene.has_any("winter", "snow"):
        return mix(colour, GROUND_COLOURS["snow"], {"pine": 0.2, "rock": 0.25, "tower": 0.1}.get(kind, 0.88))
    for season in ("autumn", "spring"):
        if scene.has(season) and kind in ("grass", "pine"):
            return mix(colour, GROUND_COLOURS[season], 0.7)
    return colour


def silhouette(picture: Picture, crest: Line) -> Image.Image:
    """Return the mask of everything below the crest."""
    stencil = picture.stencil()
    points = [(x, crest(x)) for x in picture.sample_columns()]
    stencil.polygon([*points, (picture.width, picture.height), (0, picture.height)])
    return stencil.mask()


def paint_layer(picture: Picture, crest: Line, top: Colour, bottom: Colour, depth: float) -> Image.Image:
    """Paint land below the crest, and return its mask.

    The colour is `top` at the highest point of the crest, and changes to `bottom` within `depth` pixels.
    """
    start = max(0, min(picture.height - 2, round(min(crest(x) for x in picture.sample_columns()))))
    paint = Image.new("RGB", picture.size, bottom)
    paint.paste(vertical_gradient((top, bottom), (picture.width, max(2, round(depth)))), (0, start))
    mask = silhouette(picture, crest)
    picture.fill(mask, paint)
    return mask


def hill_line(picture: Picture, name: str, base: float, height: float, rate: float) -> Line:
    """Return a gentle crest around y = `base`. Its tops are at most `height` units above its valleys."""
    line = smooth_line(picture.rng(name), 3, 0.3)
    return lambda x: base - height * (line(picture.units_from_centre(x) * rate) - 0.5) * picture.unit


def paint_far_ridges(picture: Picture, base: float, height: float, count: int = 3) -> None:
    """Paint hazy ridges, one behind another. They rise up to `height` units above y = `base`."""
    palette = picture.palette
    rock = local_colour(picture, "rock")
    for index in range(count):
        line, nearness = ridged_line(picture.rng(f"ridge {index}"), 6), index / count
        lift = height * (1.0 - 0.38 * nearness)

        def crest(x: float, line: Line = line, lift: float = lift, rate: float = 1.5 + nearness) -> float:
            return base - lift * (0.2 + 0.8 * line(picture.units_from_centre(x) * rate)) * picture.unit

        distance = 0.8 - 0.36 * nearness
        top, foot = palette.lit(rock, distance), palette.lit(rock, min(0.95, distance + 0.26))
        paint_layer(picture, crest, top, foot, lift * picture.unit)


def paint_hills(picture: Picture, base: float, count: int = 4) -> Line:
    """Paint rolling hills from y = `base` to the lower edge, and return the crest of the nearest hill."""
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
        _paint_spots(picture, mask, f"grass {index}", under, 0.35)
    return crest


def _paint_spots(picture: Picture, mask: Image.Image, name: str, colour: Colour, strength: float) -> None:
    """Paint irregular spots of this colour inside the mask."""
    aspect = picture.width / picture.unit
    spots = cloud_noise(picture.rng(name), picture.size, (round(4 * aspect), 18), 0.4)
    picture.fill(
        ImageChops.multiply(spots.point([max(0, 2 * v - 255) for v in range(256)]), mask), colour, strength
    )


def paint_dunes(picture: Picture) -> Line:
    """Paint dunes from the horizon to the lower edge, and return the crest of the nearest dune."""
    crest = _dune_crest(picture, 0)
    for index in range(_DUNE_COUNT):
        crest = _dune_crest(picture, index)
        _paint_dune(picture, crest, index / (_DUNE_COUNT - 1))
    return crest


def _dune_crest(picture: Picture, index: int) -> Line:
    near = index / (_DUNE_COUNT - 1)
    line, rate = smooth_line(picture.rng(f"dune {index}"), 2, 0.14), 1.8 - 0.9 * near
    base = picture.horizon + (picture.height - picture.horizon) * (0.04 + 0.66 * math.pow(near, 1.4))
    height = (0.13 + 0.17 * near) * picture.unit

    def crest(x: float) -> float:
        ridge = 1 - math.pow(abs(2 * line(picture.units_from_centre(x) * rate) - 1), 1.2)
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
    lee = _lee_mask(picture, crest).filter(ImageFilter.GaussianBlur(picture.unit * (0.001 + 0.006 * near)))
    picture.fill(ImageChops.multiply(lee, mask), mix(low, palette.shadow, 0.34), 0.7)


def _lee_mask(picture: Picture, crest: Line) -> Image.Image:
    """Return the mask of the shaded sides of a dune. Each is a sickle from a peak to the next valley."""
    stencil, outline = picture.stencil(), _outline_from_light(picture, crest)
    for top, valley in _slopes(picture, outline):
        side = outline[top : valley + 1]
        (x, y), (end, low) = side[0], side[-1]
        hang = (x + 0.12 * (end - x), low + 0.9 * (low - y) + 0.05 * picture.unit)
        stencil.polygon([*side, *reversed(_bezier((x, y), hang, (end, low)))])
    return stencil.mask()


def _bezier(start: Point, pull: Point, end: Point) -> list[Point]:
    """Return points on a quadratic Bézier curve; `pull` is its control point."""
    curve = []
    for step in range(25):
        t = step / 24
        a, b, c = (1 - t) ** 2, 2 * t * (1 - t), t * t
        curve.append((a * start[0] + b * pull[0] + c * end[0], a * start[1] + b * pull[1] + c * end[1]))
    return curve


def paint_mountains(picture: Picture, base: float, height: float) -> None:
    """Paint sharp peaks whose foot is at y = `base`. The highest peak is about `height` units tall."""
    rough, peaks = ridged_line(picture.rng("mountain"), 6), _peaks(picture)

    def crest(x: float) -> float:
        at = picture.units_from_centre(x)
        rise: float = max(tall * max(0.0, 1 - abs(at - middle) / half) ** 1.2 for middle, tall, half in peaks)
        return (
            base
            - height * (max(0.06, rise) * 0.8 + (0.26 + 0.3 * rise) * (rough(at * 2.6) - 0.4)) * picture.unit
        )

    _paint_rock(picture, crest, base, snow=0.85 if picture.scene.has_any("winter", "snow") else 0.42)


def _peaks(picture: Picture) -> list[tuple[float, float, float]]:
    """Return a list of peaks, each as a tuple (middle, height, half width).

    The highest peak is opposite the light. Heights are relative to this peak. The middles and the half widths
    are in units.
    """
    rng, reach = picture.rng("peaks"), picture.width / picture.unit / 2
    lead = reach * rng.uniform(0.2, 0.5) * (1 if picture.light_from_left else -1)
    shoulder = rng.uniform(0.12, 0.2) * rng.choice((-1, 1))
    peaks, at = [(lead, 1.0, 0.44), (lead + shoulder, rng.uniform(0.66, 0.8), 0.34)], -reach - 0.1
    while at < reach + 0.2:
        near_lead = max(0.0, 1 - abs(at - lead) / 0.7)
        tall = rng.uniform(0.3, 0.5) + 0.28 * near_lead * rng.random()
        peaks.append((at, tall, tall * rng.uniform(0.42, 0.62)))
        at += rng.uniform(0.1, 0.24)
    return peaks


def paint_volcano(picture: Picture, base: float) -> None:
    """Paint a volcano whose foot is at y = `base`, with a glowing crater, lava and smoke."""
    rng, unit = picture.rng("volcano"), picture.unit
    middle, height = picture.width * rng.uniform(0.4, 0.6), unit * 0.36
    rough = ridged_line(picture.rng("crater"), 6)

    def crest(x: float) -> float:
        away = max(abs(x - middle) / unit, 0.045)
        cone: float = min(1.0, (0.045 / away) ** 0.62 * 1.02) - 0.2
        return base - height * cone * 1.22 - unit * 0.03 * (rough(picture.units_from_centre(x) * 5) - 0.5)

    top = base - height * 0.98
    _paint_smoke(picture, middle, top)
    picture.add_light(picture.glow_mask((middle, top), unit * 0.3, 2.0), (255, 96, 40), 0.8)
    _paint_rock(picture, crest, base, snow=0.0)
    _paint_lava(picture, middle, top, base)


def _paint_smoke(picture: Picture, x: float, y: float) -> None:
    rng, unit = picture.rng("smoke"), picture.unit
    column = picture.stencil()
    for step in range(26):
        rise = step / 25
        size = unit * (0.03 + 0.15 * rise) * rng.uniform(0.8, 1.2)
        place = (x + unit * (0.3 * rise**1.6 + rng.uniform(-0.04, 0.04) * rise), y - unit * 0.42 * rise)
        column.ellipse(place, size, size * 0.8, round(235 * (1 - 0.7 * rise)))
    soft = column.mask().filter(ImageFilter.GaussianBlur(unit * 0.014))
    billows = cloud_noise(rng, picture.size, (14, 14), 0.45).point([min(255, 60 + v) for v in range(256)])
    picture.fill(ImageChops.multiply(soft, billows), mix(picture.palette.shadow, picture.palette.haze, 0.4))


def _paint_lava(picture: Picture, x: float, top: float, base: float) -> None:
    rng, unit, streams = picture.rng("lava"), picture.unit, picture.stencil()
    for _ in range(4):
        points, at, y = [], x + rng.uniform(-0.03, 0.03) * unit, top
        drift = (at - x) / unit * 0.2
        while y < top + (base - top) * rng.uniform(0.5, 0.95):
            points.append((at, y))
            at, y = at + unit * (drift + rng.uniform(-0.006, 0.006)), y + unit * 0.012
        if len(points) > 1:
            streams.line(points, unit * rng.uniform(0.002, 0.005))
    mask = streams.mask()
    picture.add_light(mask.filter(ImageFilter.GaussianBlur(unit * 0.012)), (255, 80, 30), 1.0)
    picture.fill(mask, (255, 176, 84))


def _paint_rock(picture: Picture, crest: Line, base: float, snow: float) -> None:
    """Paint a mountain below the crest: lit rock, snow at the top, and mist at the foot.

    `snow` is the fraction of the mountain's height that is covered with snow.
    """
    mask, light = silhouette(picture, crest), _light_on_rock(picture, crest, base)
    picture.fill(mask, _rock_paint(picture, light))
    top = min(crest(x) for x in picture.sample_columns())
    if snow:
        white = ImageChops.multiply(_snow_mask(picture, light, top, (base - top) * snow), mask)
        picture.fill(white, _snow_paint(picture, light))
    picture.fill(ImageChops.multiply(_mist_mask(picture, top, base), mask), picture.palette.haze, 0.52)


def _rock_paint(picture: Picture, light: Image.Image) -> Image.Image:
    palette, rock = picture.palette, local_colour(picture, "rock")
    warm = mix(palette.ambient, palette.light, 0.5)
    shade = palette.lit(mix(rock, palette.shadow, 0.55), 0.14)
    return _blend(picture, light, mix(multiply(rock, warm), palette.haze, 0.12), shade)


def _snow_paint(picture: Picture, light: Image.Image) -> Image.Image:
    palette = picture.palette
    cold = mix(multiply(WHITE, palette.ambient), palette.sky[1], 0.45)
    sunny = mix(multiply(WHITE, mix(palette.ambient, palette.light, 0.75)), palette.glow, 0.2)
    return _blend(
        picture, light.point([max(0, min(255, round(v * 1.9 - 110))) for v in range(256)]), sunny, cold
    )


def _blend(picture: Picture, light: Image.Image, bright: Colour, dark: Colour) -> Image.Image:
    return Image.composite(
        Image.new("RGB", picture.size, bright), Image.new("RGB", picture.size, dark), light
    )


def _snow_mask(picture: Picture, light: Image.Image, top: float, depth: float) -> Image.Image:
    """Return the mask of the snow, from y = `top` to a ragged edge about `depth` pixels below."""
    height = Image.new("L", picture.size, 255)
    height.paste(
        Image.linear_gradient("L").resize((picture.width, max(2, round(depth * 1.7)))), (0, round(top))
    )
    ragged = cloud_noise(
        picture.rng("snow"), picture.size, (round(26 * picture.width / picture.unit), 14), 0.5
    )
    level = ImageChops.add(height, Image.blend(ragged, light, 0.4), scale=2)
    return level.point([max(0, min(255, (134 - v) * 14)) for v in range(256)])


def _mist_mask(picture: Picture, top: float, base: float) -> Image.Image:
    """Return the mask of the mist, which gets denser towards the foot of the mountain."""
    mist = Image.new("L", picture.size)
    fade = Image.linear_gradient("L").point([round(255 * (v / 255) ** 1.6) for v in range(256)])
    mist.paste(fade.resize((picture.width, max(2, round(base - top)))), (0, round(top)))
    mist.paste(255, (0, round(base), picture.width, picture.height))
    return mist


def _light_on_rock(picture: Picture, crest: Line, base: float) -> Image.Image:
    """Return a greyscale image of the light on the rock, which consists of large, rugged facets."""
    shade = _shaded_slopes(picture, crest, base, 0.09).filter(ImageFilter.GaussianBlur(picture.unit * 0.0015))
    facets = shade.point([225 - round(level * 0.7) for level in range(256)])
    wide = max(1.0, picture.width / picture.unit)
    cells = (round(14 * wide), round(6 * picture.height / picture.unit))
    rock = lit_relief(picture.rng("rock"), picture.size, cells, picture.light_from_left)
    return Image.blend(facets, _follow_crest(picture, rock, crest), 0.3)


def _follow_crest(picture: Picture, texture: Image.Image, crest: Line) -> Image.Image:
    """Return the texture, shifted down to follow the crest, so that gullies begin at the crest."""
    width, height = picture.size
    edges = sorted({round(width * index / _MESH_STRIPS) for index in range(_MESH_STRIPS + 1)})
    mesh = []
    for left, right in pairwise(edges):
        a, b = _CREST_SHARE * crest(left), _CREST_SHARE * crest(right)
        mesh.append(((left, 0, right, height), (left, -a, left, height - a, right, height - b, right, -b)))
    return texture.transform(picture.size, Image.Transform.MESH, mesh, Image.Resampling.BILINEAR)


def _shaded_slopes(picture: Picture, crest: Line, base: float, jag: float) -> Image.Image:
    """Return the mask of all slopes that face away from the light, down to y = `base`.

    A zigzag line descends from each peak. It is the border between light and shade. `jag` is how far the line
    swings to the sides, as a fraction of its length.
    """
    stencil, rng = picture.stencil(), picture.rng("facets")
    outline = _outline_from_light(picture, crest)
    for top, valley in _slopes(picture, outline):
        side = outline[top : valley + 1]
        length = min(base - side[0][1], (side[-1][1] - side[0][1]) * 1.9 + picture.unit * 0.01)
        lean = 0.3 * (side[-1][0] - side[0][0])
        stencil.polygon([*side, *reversed(_descending_ridge(rng, side[0], lean, length, jag))])
    return stencil.mask()


def _descending_ridge(rng: Random, apex: Point, lean: float, length: float, jag: float) -> list[Point]:
    points, steps, side = [apex], 9, rng.choice((-1, 1))
    for step in range(1, steps + 1):
        down, side = step / steps, -side
        sway = side * jag * length * rng.uniform(0.2, 1.0) * (0.3 + down)
        points.append((apex[0] + lean * down + sway * (1 - down * 0.4), apex[1] + length * down))
    return points


def _outline_from_light(picture: Picture, crest: Line) -> list[Point]:
    """Return points on the crest, starting at the edge of the picture that is nearer to the light."""
    xs = picture.sample_columns()
    return [(x, crest(x)) for x in (xs if picture.light_from_left else reversed(xs))]


def _slopes(picture: Picture, outline: list[Point]) -> Iterator[tuple[int, int]]:
    """Yield a pair of indices in `outline` for each peak: the index of the peak and of the next valley."""
    window = max(2, round(len(outline) * 0.012 * picture.unit / picture.width))
    top = 0
    rising = False
    for index in range(len(outline)):
        near = [y for _, y in outline[max(0, index - window) : index + window + 1]]
        if outline[index][1] <= min(near) and not rising:
            top, rising = index, True
        elif outline[index][1] >= max(near) and rising:
            yield top, index
            rising = False
    if rising:
        yield top, len(outline) - 1
