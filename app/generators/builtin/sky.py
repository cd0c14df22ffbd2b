"""The sky: its gradient, sun or moon, stars, aurora and rainbow."""

from PIL import Image, ImageChops, ImageDraw, ImageFilter

from app.generators.builtin.clouds import paint_clouds
from app.generators.builtin.colour import WHITE, mix
from app.generators.builtin.noise import cloudy, rolling_line
from app.generators.builtin.picture import Picture, ramp

_AIRGLOW = {"night": 0.3, "day": 0.5, "dawn": 0.42, "dusk": 0.55, "sunset": 0.7}
"""How strongly the sun or moon lights the air far round it."""


def paint_sky(picture: Picture) -> None:
    """Everything above the horizon, from back to front."""
    scene = picture.scene
    dark = scene.time in ("night", "dusk")
    _paint_air(picture)
    if scene.has("stars", default=dark and not scene.has_any("storm", "rain", "fog")):
        paint_stars(picture, picture.horizon, 1.0 if scene.time == "night" or scene.has("stars") else 0.4)
    if scene.has("aurora"):
        _paint_aurora(picture)
    _paint_sun_or_moon(picture)
    if not scene.has("clear") and scene.has("clouds", default=not scene.has("aurora")):
        paint_clouds(picture)
    if scene.has("rainbow"):
        _paint_rainbow(picture)


def _paint_air(picture: Picture) -> None:
    bottom = max(2, round(picture.horizon))
    picture.image.paste(picture.palette.haze, (0, 0, *picture.size))
    picture.image.paste(ramp(picture.palette.sky, (picture.width, bottom)), (0, 0))


def paint_stars(picture: Picture, bottom: float, share: float) -> None:
    """Stars of many sizes above the y `bottom`, the fewer the lower; few of them large."""
    rng, stencil = picture.rng("stars"), picture.stencil()
    amount = 520 * share * min(3.0, max(0.4, picture.width / picture.unit))
    for _ in range(round(amount)):
        place = rng.random() * picture.width, rng.random() ** 1.5 * bottom
        size = (0.0006 + 0.0016 * rng.random() ** 7) * picture.unit
        dim = 1 - 0.75 * place[1] / bottom
        stencil.ellipse(place, size, size, round(255 * dim * rng.uniform(0.35, 1)))
    mask = stencil.mask()
    picture.shine(mask, mix(picture.palette.light, WHITE, 0.5))
    picture.shine(mask.filter(ImageFilter.GaussianBlur(picture.unit * 0.003)), picture.palette.glow)


def _paint_sun_or_moon(picture: Picture) -> None:
    scene, night = picture.scene, picture.scene.time == "night"
    moon = scene.has("moon", default=night and not scene.has("sun") and not scene.has_any("aurora", "storm"))
    sun = scene.has("sun", default=not night and not scene.has_any("rain", "storm", "snow")) and not moon
    if not (sun or moon):
        return
    radius = picture.unit * {"day": 0.038, "night": 0.045, "dusk": 0.04}.get(scene.time, 0.062)
    glow = picture.palette.glow
    picture.shine(
        picture.halo(picture.sun, picture.unit * (0.5 if night else 0.95), 2.0), glow, _AIRGLOW[scene.time]
    )
    picture.shine(picture.halo(picture.sun, radius * 4.5, 2.6), glow, 0.7)
    disc = picture.stencil()
    disc.ellipse(picture.sun, radius, radius)
    if moon and picture.rng("moon").random() < 0.5:
        side = 0.45 * radius if picture.light_from_left else -0.45 * radius
        disc.ellipse((picture.sun[0] + side, picture.sun[1] - 0.2 * radius), radius * 0.92, radius * 0.92, 0)
    mask = disc.mask()
    picture.lay(mask, picture.palette.light)
    if moon:
        _paint_maria(picture, mask)


def _paint_maria(picture: Picture, disc: Image.Image) -> None:
    radius = max(2, round(picture.unit * 0.045))
    spots = Image.new("L", picture.size)
    patch = cloudy(picture.rng("maria"), (radius * 2, radius * 2), (4, 4)).point(
        [max(0, v - 110) for v in range(256)]
    )
    spots.paste(patch, (round(picture.sun[0] - radius), round(picture.sun[1] - radius)))
    picture.lay(ImageChops.multiply(spots, disc), picture.palette.glow, 0.8)


def _paint_aurora(picture: Picture) -> None:
    for index, colour in enumerate(((70, 240, 160), (60, 200, 190), (150, 100, 230))):
        rng = picture.rng(f"aurora {index}")
        line, rays = rolling_line(rng, 2), rolling_line(rng, 4, 0.8)
        curtain = Image.new("L", picture.size)
        draw = ImageDraw.Draw(curtain)
        for x in range(picture.width):
            at = picture.span(x)
            foot = (0.3 + 0.5 * line(at * 1.6)) * picture.horizon
            draw.line(
                (x, foot - (0.2 + 0.25 * line(at * 3)) * picture.horizon, x, foot), round(rays(at * 14) * 230)
            )
        soft = curtain.resize((max(2, picture.width // 4), max(2, picture.height // 4)))
        soft = soft.filter(ImageFilter.BoxBlur((picture.unit * 0.002, picture.unit * 0.025)))
        picture.shine(soft.resize(picture.size, Image.Resampling.BICUBIC), colour, 0.75)


def _paint_rainbow(picture: Picture) -> None:
    centre = (picture.width - picture.sun[0], picture.horizon + 0.12 * picture.unit)
    width = 0.011 * picture.unit
    bands = ((214, 60, 60), (240, 140, 50), (246, 220, 80), (80, 180, 100), (60, 130, 210), (120, 80, 180))
    for index, colour in enumerate(bands):
        arc, radius = picture.stencil(), 0.62 * picture.unit - index * width
        arc.ellipse(centre, radius, radius)
        arc.ellipse(centre, radius - width * 1.3, radius - width * 1.3, 0)
        picture.shine(arc.mask().filter(ImageFilter.BoxBlur(width * 0.5)), colour, 0.42)
