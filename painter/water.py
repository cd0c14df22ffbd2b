"""Where land meets water: lakes, tongues of land, islands, beaches and headlands.

Water: it mirrors what stands above it, ripples, and glitters under the light.
"""

import math

from PIL import Image, ImageChops

from painter.canvas import Line, Picture, cloudy, ramp
from painter.land import hill_line, local_colour, paint_layer
from painter.palette import NAMED, mix, multiply
from painter.plants import framing_pines, grass_blades, palm, pine, pine_colour
from painter.things import boat, house, lighthouse


def paint_water(picture: Picture, shore: float) -> None:
    """Water from the y `shore` down to the lower edge of the picture."""
    top, depth = round(shore), picture.height - round(shore)
    if depth < 2:
        return
    mirror = _ripple(picture, _mirror(picture, top, depth), 1.0)
    picture.image.paste(mirror, (0, top))
    _paint_waves(picture, top, depth)
    if picture.scene.has("sun", default=True) and not picture.scene.has_any("storm", "rain", "fog", "aurora"):
        _paint_glitter(picture, top, depth)


def _mirror(picture: Picture, top: int, depth: int) -> Image.Image:
    """What is above the shore, upside down, darker and bluer towards the viewer."""
    palette = picture.palette
    seen = min(top, round(depth * 1.25))
    above = picture.image.crop((0, top - seen, picture.width, top)).transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    above = above.resize((picture.width, depth), Image.Resampling.BILINEAR)
    water = mix(palette.sky[0], NAMED["blue"], 0.12)
    deep = ramp(
        (mix(palette.haze, water, 0.3), water, mix(water, palette.shadow, 0.6)), (picture.width, depth)
    )
    tide = Image.linear_gradient("L").resize((picture.width, depth))
    return Image.composite(deep, above, tide.point([40 + round(v * 0.55) for v in range(256)]))


def _ripple(picture: Picture, mirror: Image.Image, strength: float) -> Image.Image:
    """Rows pushed left and right by waves that look shorter the farther they are."""
    rng, (width, depth) = picture.rng("ripple"), mirror.size
    phases = [rng.uniform(0, 6.3) for _ in range(3)]
    rippled = mirror.copy()
    for y in range(depth):
        near = y / depth
        far = 60 * math.log(1 + 5 * near)
        swing = sum(math.sin(far * rate + phase) for rate, phase in zip((0.9, 1.7, 3.1), phases, strict=True))
        shift = round(swing * strength * picture.unit * (0.0008 + 0.006 * near))
        rippled.paste(mirror.crop((0, y, width, y + 1)), (shift, y))
    return rippled


def _paint_waves(picture: Picture, top: int, depth: int) -> None:
    """Light on the wave crests and shade between them, seen in perspective."""
    aspect = max(0.3, min(4.0, picture.width / picture.unit))
    rough = 0.75 if picture.scene.has_any("storm", "rain") else 0.42
    noise = cloudy(picture.rng("waves"), (round(700 * aspect) + 2, 900), (round(10 * aspect) + 2, 64), 0.45)
    turn = 7 / depth
    data = (noise.width / picture.width, noise.width * turn / 2, 0, 0, 0, noise.height - 1, 0, turn)
    plane = noise.transform(
        (picture.width, depth), Image.Transform.PERSPECTIVE, data, Image.Resampling.BILINEAR
    )
    waves = Image.new("L", picture.size, 128)
    waves.paste(plane, (0, top))
    picture.lay(
        waves.point([min(255, max(0, (v - 150) * 3)) for v in range(256)]), picture.palette.haze, rough * 0.5
    )
    picture.lay(
        waves.point([min(255, max(0, (105 - v) * 3)) for v in range(256)]), picture.palette.shadow, rough
    )


def _paint_glitter(picture: Picture, top: int, depth: int) -> None:
    """The path of light under the sun or moon, in short strokes that grow towards the viewer."""
    rng, unit, sparks = picture.rng("glitter"), picture.unit, picture.stencil()
    for _ in range(420):
        near = rng.random() ** 1.5
        x = picture.sun[0] + rng.gauss(0, 0.016 + 0.05 * near) * unit
        long = unit * (0.003 + 0.03 * near * rng.random())
        level = round(255 * rng.uniform(0.3, 1) * (1 - 0.6 * near))
        sparks.ellipse(
            (x, top + 1 + near * depth * 0.96), long, max(0.3, unit * (0.0006 + 0.002 * near)), level
        )
    mask = sparks.mask()
    picture.shine(mask, mix(picture.palette.light, picture.palette.glow, 0.3), 0.9)
    pool = picture.halo((picture.sun[0], top), unit * 0.36, 2.4)
    pool.paste(0, (0, 0, picture.width, top))
    picture.shine(ImageChops.multiply(pool, pool), picture.palette.glow, 0.6)


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
