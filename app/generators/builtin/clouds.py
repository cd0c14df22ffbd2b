"""Clouds: noise on a ceiling that goes away to the horizon, lit from the side of the sun."""

from PIL import Image, ImageChops, ImageFilter

from app.generators.builtin.colour import Colour, mix
from app.generators.builtin.noise import cloudy
from app.generators.builtin.picture import Picture

_BEND = 5.0
"""How much farther the ceiling is at the horizon than overhead."""


def paint_clouds(picture: Picture) -> None:
    """Clouds over the whole sky: a few, many where they are asked for, a lid in bad weather."""
    scene = picture.scene
    heavy = scene.has_any("storm", "rain", "snow")
    cover = 0.92 if heavy else 0.62 if scene.has("clouds") else picture.rng("cover").uniform(0.26, 0.44)
    ceiling = _ceiling(picture)
    if heavy:
        ceiling = ceiling.filter(ImageFilter.GaussianBlur(0.006 * picture.unit))
    bright, dark = _colours(picture, heavy)
    picture.lay(_body(picture, ceiling, cover), _lit(picture, ceiling, bright, dark), 0.92 if heavy else 0.78)


def _ceiling(picture: Picture) -> Image.Image:
    aspect = max(0.3, min(4.0, picture.width / picture.unit))
    noise = cloudy(picture.rng("clouds"), (round(420 * aspect) + 2, 1100), (round(5 * aspect) + 2, 15), 0.5)
    (width, height), turn = (picture.width, max(2, round(picture.horizon))), _BEND / max(2, picture.horizon)
    data = (noise.width / width, noise.width * turn / 2, 0, 0, 0, noise.height - 1, 0, turn)
    plane = noise.transform((width, height), Image.Transform.PERSPECTIVE, data, Image.Resampling.BILINEAR)
    ceiling = Image.new("L", picture.size)
    ceiling.paste(plane.transpose(Image.Transpose.FLIP_TOP_BOTTOM))
    return ceiling


def _body(picture: Picture, ceiling: Image.Image, cover: float) -> Image.Image:
    """How thick the clouds are; they dissolve at the horizon."""
    start = 255 * (1 - cover) * 0.85
    body = ceiling.point([round(255 * min(1.0, max(0.0, (v - start) / 120)) ** 1.3) for v in range(256)])
    fade = Image.linear_gradient("L").point([min(255, 4 * (255 - v)) for v in range(256)])
    edge = Image.new("L", picture.size)
    edge.paste(fade.resize((picture.width, max(2, round(picture.horizon)))))
    return ImageChops.multiply(body, edge)


def _colours(picture: Picture, heavy: bool) -> tuple[Colour, Colour]:
    palette, time = picture.palette, picture.scene.time
    dark = mix(palette.sky[1], palette.shadow, 0.34) if heavy else mix(palette.sky[1], palette.sky[2], 0.5)
    if time == "night":
        return palette.sky[-1], dark
    bright = palette.glow if time in ("sunset", "dusk") else palette.light
    lit = mix(palette.sky[-1], bright, 0.55)
    return mix(lit, dark, 0.5) if heavy else lit, dark


def _lit(picture: Picture, ceiling: Image.Image, bright: Colour, dark: Colour) -> Image.Image:
    """Paint for the clouds: bright where they get thinner towards the light."""
    step = round(picture.unit * 0.02) + 1
    lead = step if picture.light_from_left else -step
    edge = 0 if picture.light_from_left else picture.width - 1
    shifted = ceiling.crop((edge, 0, edge + 1, picture.height)).resize(picture.size)
    shifted.paste(ceiling, (lead, -step))
    rim = ImageChops.subtract(ceiling, shifted, scale=0.8, offset=112)
    return Image.composite(Image.new("RGB", picture.size, bright), Image.new("RGB", picture.size, dark), rim)
