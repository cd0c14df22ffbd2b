"""Water, which reflects the picture above it, and land next to water: lake shores, beaches and headlands."""

import math

from PIL import Image, ImageChops

from painter.canvas import Line, Picture, cloud_noise, vertical_gradient
from painter.land import hill_line, local_colour, paint_layer
from painter.palette import NAMED, mix, multiply
from painter.plants import draw_palm, draw_pine, paint_framing_pines, paint_grass, pine_colour
from painter.things import paint_boat, paint_house, paint_lighthouse


def paint_water(picture: Picture, shore: float) -> None:
    """Paint water from y = `shore` down to the lower edge."""
    top, depth = round(shore), picture.height - round(shore)
    if depth < 2:
        return
    reflection = _ripple(picture, _reflection(picture, top, depth), 1.0)
    picture.image.paste(reflection, (0, top))
    _paint_waves(picture, top, depth)
    if picture.scene.has("sun", default=True) and not picture.scene.has_any("storm", "rain", "fog", "aurora"):
        _paint_glitter(picture, top, depth)


def _reflection(picture: Picture, top: int, depth: int) -> Image.Image:
    """Return an upside-down image of what is above the shore. It gets darker and bluer downwards."""
    palette = picture.palette
    seen = min(top, round(depth * 1.25))
    above = picture.image.crop((0, top - seen, picture.width, top)).transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    above = above.resize((picture.width, depth), Image.Resampling.BILINEAR)
    water = mix(palette.sky[0], NAMED["blue"], 0.12)
    deep = vertical_gradient(
        (mix(palette.haze, water, 0.3), water, mix(water, palette.shadow, 0.6)), (picture.width, depth)
    )
    tide = Image.linear_gradient("L").resize((picture.width, depth))
    return Image.composite(deep, above, tide.point([40 + round(v * 0.55) for v in range(256)]))


def _ripple(picture: Picture, reflection: Image.Image, strength: float) -> Image.Image:
    """Return the reflection with its rows shifted by waves. More distant waves look shorter."""
    rng, (width, depth) = picture.rng("ripple"), reflection.size
    phases = [rng.uniform(0, 6.3) for _ in range(3)]
    rippled = reflection.copy()
    for y in range(depth):
        near = y / depth
        far = 60 * math.log(1 + 5 * near)
        swing = sum(math.sin(far * rate + phase) for rate, phase in zip((0.9, 1.7, 3.1), phases, strict=True))
        shift = round(swing * strength * picture.unit * (0.0008 + 0.006 * near))
        rippled.paste(reflection.crop((0, y, width, y + 1)), (shift, y))
    return rippled


def _paint_waves(picture: Picture, top: int, depth: int) -> None:
    """Paint light on the crests of waves and shade between them, in perspective."""
    aspect = max(0.3, min(4.0, picture.width / picture.unit))
    rough = 0.75 if picture.scene.has_any("storm", "rain") else 0.42
    noise = cloud_noise(
        picture.rng("waves"), (round(700 * aspect) + 2, 900), (round(10 * aspect) + 2, 64), 0.45
    )
    tilt = 7 / depth
    data = (noise.width / picture.width, noise.width * tilt / 2, 0, 0, 0, noise.height - 1, 0, tilt)
    plane = noise.transform(
        (picture.width, depth), Image.Transform.PERSPECTIVE, data, Image.Resampling.BILINEAR
    )
    waves = Image.new("L", picture.size, 128)
    waves.paste(plane, (0, top))
    picture.fill(
        waves.point([min(255, max(0, (v - 150) * 3)) for v in range(256)]), picture.palette.haze, rough * 0.5
    )
    picture.fill(
        waves.point([min(255, max(0, (105 - v) * 3)) for v in range(256)]), picture.palette.shadow, rough
    )


def _paint_glitter(picture: Picture, top: int, depth: int) -> None:
    """Paint the path of light below the sun or moon, as short strokes that get larger towards the viewer."""
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
    picture.add_light(mask, mix(picture.palette.light, picture.palette.glow, 0.3), 0.9)
    pool = picture.glow_mask((picture.sun[0], top), unit * 0.36, 2.4)
    pool.paste(0, (0, 0, picture.width, top))
    picture.add_light(ImageChops.multiply(pool, pool), picture.palette.glow, 0.6)


def paint_lake(picture: Picture, low: float = 0.055, default: bool = False) -> bool:
    """If the scene has a lake or the sea, paint a lake with a bank. Return whether a lake was painted.

    The far shore is `low` units below the horizon. If `default` is true, a lake is painted unless the prompt
    excludes lakes.
    """
    if not (picture.scene.has("lake", default=default) or picture.scene.has("sea")):
        return False
    shore = picture.horizon + low * picture.unit
    if picture.scene.has("house"):
        _paint_spit(picture, shore)
    paint_water(picture, shore)
    if picture.scene.has("boat"):
        paint_boat(picture, shore)
    bank = hill_line(picture, "bank", picture.height * 0.985, 0.12, 1.3)
    colour = pine_colour(picture, 0.0)
    paint_layer(picture, bank, colour, picture.palette.shadow, picture.unit * 0.1)
    paint_grass(picture, bank, colour)
    paint_framing_pines(picture, bank)
    return True


def _paint_spit(picture: Picture, shore: float) -> None:
    """Paint a tongue of land with a house and a few pines.

    Call this before the lake is painted, so that the lake reflects this land.
    """
    x = picture.column_from_light(0.68)
    ground = mound_line(picture, x, shore + 2, 0.05, 0.5)
    colour = picture.palette.lit(local_colour(picture, "grass"), 0.1)
    rng, grove = picture.rng("spit"), picture.stencil()
    for _ in range(12):
        at = x + rng.choice((-1, 1)) * rng.uniform(0.09, 0.4) * picture.unit
        draw_pine(grove, rng, (at, ground(at) + 2), picture.unit * rng.uniform(0.08, 0.2))
    picture.fill(grove.mask(), pine_colour(picture, 0.12))
    paint_layer(picture, ground, colour, mix(colour, picture.palette.shadow, 0.4), picture.unit * 0.06)
    paint_house(picture, (x, ground(x) + 0.012 * picture.unit), picture.unit * 0.16)


def mound_line(picture: Picture, middle: float, foot: float, height: float, half: float) -> Line:
    """Return the crest of a flat hill. Its middle is at x = `middle`, and its foot is at y = `foot`.

    The hill is about `height` units tall. Each of its two sides is `half` units wide.
    """
    rough = hill_line(picture, "mound", 0.0, height * 0.5, 4.0)

    def crest(x: float) -> float:
        away = min(1.0, abs(x - middle) / (half * picture.unit))
        return foot + (rough(x) - height * picture.unit) * (1 - away**2)

    return crest


def paint_beach(picture: Picture) -> None:
    """Paint sand along the lower edge, with a rim of foam, and palms unless the prompt excludes them."""
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
        _paint_palms(picture, wet)


def _paint_palms(picture: Picture, ground: Line) -> None:
    rng, palms, unit = picture.rng("beach palms"), picture.stencil(), picture.unit
    for place, size in ((0.9, 0.52), (0.76, 0.38)):
        x = picture.column_from_light(place + rng.uniform(-0.05, 0.05))
        draw_palm(palms, rng, (x, ground(x) + 0.03 * unit), size * unit)
    picture.fill(palms.mask(), mix(pine_colour(picture, 0.0), picture.palette.shadow, 0.5))


def paint_headland(picture: Picture) -> None:
    """Paint a grassy cliff opposite the light, with a lighthouse and a house if the scene has them."""
    crest = _cliff_line(picture, picture.column_from_light(1.0))
    colour = picture.palette.lit(mix(local_colour(picture, "grass"), local_colour(picture, "ash"), 0.5), 0.0)
    paint_layer(picture, crest, colour, picture.palette.shadow, picture.unit * 0.3)
    if picture.scene.has("lighthouse"):
        paint_lighthouse(picture, crest)
    if picture.scene.has("house"):
        x = picture.column_from_light(0.8)
        paint_house(picture, (x, crest(x)), picture.unit * 0.13)


def _cliff_line(picture: Picture, edge: float) -> Line:
    rough = hill_line(picture, "cliff", 0.0, 0.07, 3.0)

    def crest(x: float) -> float:
        away = min(1.0, abs(x - edge) / (0.62 * picture.unit))
        return picture.height * 1.06 - (0.4 * picture.unit - rough(x)) * (1 - away**3)

    return crest
