"""Water: it mirrors what stands above it, ripples, and glitters under the light."""

import math

from PIL import Image, ImageChops

from app.generators.builtin.colour import mix
from app.generators.builtin.noise import cloudy
from app.generators.builtin.palette import NAMED
from app.generators.builtin.picture import Picture, ramp


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
