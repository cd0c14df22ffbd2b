"""The sky (with stars, the sun or moon, and clouds), and the weather in front of the scene."""

from PIL import Image, ImageChops, ImageDraw, ImageFilter

from painter.canvas import Picture, Point, Stencil, cloud_noise, smooth_line, vertical_gradient
from painter.palette import WHITE, Colour, mix

_GLOW_STRENGTHS = {"night": 0.3, "day": 0.5, "dawn": 0.42, "dusk": 0.55, "sunset": 0.7}
"""The strength of the wide glow around the sun or moon, from 0 to 1, by time of day."""

_PERSPECTIVE = 5.0
"""The strength of perspective in the cloud layer. At the horizon, the layer is 1 + this number times as far
away as at the upper edge."""

_LIGHTNING: Colour = (226, 220, 255)


def paint_sky(picture: Picture) -> None:
    """Paint the sky, from the farthest layer to the nearest."""
    scene = picture.scene
    dark = scene.time in ("night", "dusk")
    _paint_air(picture)
    if scene.has("stars", default=dark and not scene.has_any("storm", "rain", "fog")):
        paint_stars(picture, picture.horizon, 1.0 if scene.time == "night" or scene.has("stars") else 0.4)
    if scene.has("aurora"):
        _paint_aurora(picture)
    _paint_sun_or_moon(picture)
    if not scene.has("clear") and scene.has("clouds", default=not scene.has("aurora")):
        _paint_clouds(picture)
    if scene.has("rainbow"):
        _paint_rainbow(picture)


def paint_weather(picture: Picture) -> None:
    """Paint fog, rain and snowflakes in front of the scene."""
    scene = picture.scene
    if scene.has("fog"):
        for index, low in enumerate((-0.12, 0.04, 0.24)):
            paint_fog_bank(
                picture, f"fog {index}", picture.horizon + low * picture.unit, 0.62 - 0.16 * index, 0.22
            )
    if scene.has("rain") or scene.has("storm"):
        _paint_rain(picture)
    if scene.has("snow") and not scene.has_any("aurora", "clear", "sun"):
        _paint_snowflakes(picture)


def _paint_air(picture: Picture) -> None:
    bottom = max(2, round(picture.horizon))
    picture.image.paste(picture.palette.haze, (0, 0, *picture.size))
    picture.image.paste(vertical_gradient(picture.palette.sky, (picture.width, bottom)), (0, 0))


def paint_stars(picture: Picture, bottom: float, share: float) -> None:
    """Paint stars of many sizes above y = `bottom`. They get fewer and dimmer towards this line.

    `share` is the number of stars relative to a clear night.
    """
    rng, stencil = picture.rng("stars"), picture.stencil()
    amount = 520 * share * min(3.0, max(0.4, picture.width / picture.unit))
    for _ in range(round(amount)):
        place = rng.random() * picture.width, rng.random() ** 1.5 * bottom
        size = (0.0006 + 0.0016 * rng.random() ** 7) * picture.unit
        dim = 1 - 0.75 * place[1] / bottom
        stencil.ellipse(place, size, size, round(255 * dim * rng.uniform(0.35, 1)))
    mask = stencil.mask()
    picture.add_light(mask, mix(picture.palette.light, WHITE, 0.5))
    picture.add_light(mask.filter(ImageFilter.GaussianBlur(picture.unit * 0.003)), picture.palette.glow)


def _paint_aurora(picture: Picture) -> None:
    """Paint three curtains of light. Each consists of blurred vertical lines of random length."""
    for index, colour in enumerate(((70, 240, 160), (60, 200, 190), (150, 100, 230))):
        rng = picture.rng(f"aurora {index}")
        line, rays = smooth_line(rng, 2), smooth_line(rng, 4, 0.8)
        curtain = Image.new("L", picture.size)
        draw = ImageDraw.Draw(curtain)
        for x in range(picture.width):
            at = picture.units_from_centre(x)
            foot = (0.3 + 0.5 * line(at * 1.6)) * picture.horizon
            draw.line(
                (x, foot - (0.2 + 0.25 * line(at * 3)) * picture.horizon, x, foot), round(rays(at * 14) * 230)
            )
        soft = curtain.resize((max(2, picture.width // 4), max(2, picture.height // 4)))
        soft = soft.filter(ImageFilter.BoxBlur((picture.unit * 0.002, picture.unit * 0.025)))
        picture.add_light(soft.resize(picture.size, Image.Resampling.BICUBIC), colour, 0.75)


def _paint_sun_or_moon(picture: Picture) -> None:
    scene, night = picture.scene, picture.scene.time == "night"
    moon = scene.has("moon", default=night and not scene.has("sun") and not scene.has_any("aurora", "storm"))
    sun = scene.has("sun", default=not night and not scene.has_any("rain", "storm", "snow")) and not moon
    if not (sun or moon):
        return
    radius = picture.unit * {"day": 0.038, "night": 0.045, "dusk": 0.04}.get(scene.time, 0.062)
    glow = picture.palette.glow
    picture.add_light(
        picture.glow_mask(picture.sun, picture.unit * (0.5 if night else 0.95), 2.0),
        glow,
        _GLOW_STRENGTHS[scene.time],
    )
    picture.add_light(picture.glow_mask(picture.sun, radius * 4.5, 2.6), glow, 0.7)
    disc = picture.stencil()
    disc.ellipse(picture.sun, radius, radius)
    if moon and picture.rng("moon").random() < 0.5:
        side = 0.45 * radius if picture.light_from_left else -0.45 * radius
        disc.ellipse((picture.sun[0] + side, picture.sun[1] - 0.2 * radius), radius * 0.92, radius * 0.92, 0)
    mask = disc.mask()
    picture.fill(mask, picture.palette.light)
    if moon:
        _paint_moon_spots(picture, mask)


def _paint_moon_spots(picture: Picture, disc: Image.Image) -> None:
    radius = max(2, round(picture.unit * 0.045))
    spots = Image.new("L", picture.size)
    patch = cloud_noise(picture.rng("maria"), (radius * 2, radius * 2), (4, 4)).point(
        [max(0, v - 110) for v in range(256)]
    )
    spots.paste(patch, (round(picture.sun[0] - radius), round(picture.sun[1] - radius)))
    picture.fill(ImageChops.multiply(spots, disc), picture.palette.glow, 0.8)


def _paint_clouds(picture: Picture) -> None:
    """Paint clouds: an overcast sky in bad weather, many clouds if the prompt names them, else a few."""
    scene = picture.scene
    heavy = scene.has_any("storm", "rain", "snow")
    cover = 0.92 if heavy else 0.62 if scene.has("clouds") else picture.rng("cover").uniform(0.26, 0.44)
    ceiling = _cloud_ceiling(picture)
    if heavy:
        ceiling = ceiling.filter(ImageFilter.GaussianBlur(0.006 * picture.unit))
    bright, dark = _cloud_colours(picture, heavy)
    picture.fill(
        _cloud_density(picture, ceiling, cover),
        _cloud_paint(picture, ceiling, bright, dark),
        0.92 if heavy else 0.78,
    )


def _cloud_ceiling(picture: Picture) -> Image.Image:
    """Return the cloud layer as a greyscale image: noise on a horizontal plane, seen in perspective."""
    aspect = max(0.3, min(4.0, picture.width / picture.unit))
    noise = cloud_noise(
        picture.rng("clouds"), (round(420 * aspect) + 2, 1100), (round(5 * aspect) + 2, 15), 0.5
    )
    width, height = picture.width, max(2, round(picture.horizon))
    tilt = _PERSPECTIVE / max(2, picture.horizon)
    data = (noise.width / width, noise.width * tilt / 2, 0, 0, 0, noise.height - 1, 0, tilt)
    plane = noise.transform((width, height), Image.Transform.PERSPECTIVE, data, Image.Resampling.BILINEAR)
    ceiling = Image.new("L", picture.size)
    ceiling.paste(plane.transpose(Image.Transpose.FLIP_TOP_BOTTOM))
    return ceiling


def _cloud_density(picture: Picture, ceiling: Image.Image, cover: float) -> Image.Image:
    """Return the mask of the clouds, which fade out at the horizon.

    `cover` is approximately the fraction of the sky that the clouds cover.
    """
    start = 255 * (1 - cover) * 0.85
    body = ceiling.point([round(255 * min(1.0, max(0.0, (v - start) / 120)) ** 1.3) for v in range(256)])
    fade = Image.linear_gradient("L").point([min(255, 4 * (255 - v)) for v in range(256)])
    edge = Image.new("L", picture.size)
    edge.paste(fade.resize((picture.width, max(2, round(picture.horizon)))))
    return ImageChops.multiply(body, edge)


def _cloud_colours(picture: Picture, heavy: bool) -> tuple[Colour, Colour]:
    """Return a pair: the colour of the lit side of clouds, and the colour of their shaded side."""
    palette, time = picture.palette, picture.scene.time
    dark = mix(palette.sky[1], palette.shadow, 0.34) if heavy else mix(palette.sky[1], palette.sky[2], 0.5)
    if time == "night":
        return palette.sky[-1], dark
    bright = palette.glow if time in ("sunset", "dusk") else palette.light
    lit = mix(palette.sky[-1], bright, 0.55)
    return mix(lit, dark, 0.5) if heavy else lit, dark


def _cloud_paint(picture: Picture, ceiling: Image.Image, bright: Colour, dark: Colour) -> Image.Image:
    """Return an image of the clouds' colours. It is bright where clouds get thinner towards the light."""
    step = round(picture.unit * 0.02) + 1
    lead = step if picture.light_from_left else -step
    edge = 0 if picture.light_from_left else picture.width - 1
    shifted = ceiling.crop((edge, 0, edge + 1, picture.height)).resize(picture.size)
    shifted.paste(ceiling, (lead, -step))
    rim = ImageChops.subtract(ceiling, shifted, scale=0.8, offset=112)
    return Image.composite(Image.new("RGB", picture.size, bright), Image.new("RGB", picture.size, dark), rim)


def _paint_rainbow(picture: Picture) -> None:
    """Paint a rainbow opposite the sun."""
    centre = (picture.width - picture.sun[0], picture.horizon + 0.12 * picture.unit)
    width = 0.011 * picture.unit
    bands = ((214, 60, 60), (240, 140, 50), (246, 220, 80), (80, 180, 100), (60, 130, 210), (120, 80, 180))
    for index, colour in enumerate(bands):
        arc, radius = picture.stencil(), 0.62 * picture.unit - index * width
        arc.ellipse(centre, radius, radius)
        arc.ellipse(centre, radius - width * 1.3, radius - width * 1.3, 0)
        picture.add_light(arc.mask().filter(ImageFilter.BoxBlur(width * 0.5)), colour, 0.42)


def paint_fog_bank(picture: Picture, name: str, y: float, strength: float, half: float = 0.2) -> None:
    """Paint a bank of mist. It is densest at `y`, and ends `half` units above and below this line."""
    rise = max(2, round(picture.unit * half))
    slope = [round(255 * (1 - abs(2 * level / 255 - 1)) ** 1.4) for level in range(256)]
    band = Image.new("L", picture.size)
    band.paste(
        Image.linear_gradient("L").point(slope).resize((picture.width, rise * 2)), (0, round(y) - rise)
    )
    drift = cloud_noise(picture.rng(name), picture.size, (round(3 * picture.width / picture.unit), 10), 0.3)
    mask = ImageChops.multiply(band, drift.point([90 + round(level * 0.64) for level in range(256)]))
    picture.fill(mask, mix(picture.palette.haze, WHITE, 0.12), strength)


def _paint_rain(picture: Picture) -> None:
    """Paint slanted streaks at three distances over a grey veil."""
    rng, unit = picture.rng("rain"), picture.unit
    picture.fill(Image.new("L", picture.size, 40), picture.palette.haze)
    for depth in range(3):
        streaks = picture.stencil()
        for _ in range(round((420 - 110 * depth) * min(3, picture.width / unit))):
            x, y = rng.uniform(-0.05, 1.05) * picture.width, rng.uniform(-0.05, 1) * picture.height
            long = unit * (0.02 + 0.022 * depth) * rng.uniform(0.6, 1.3)
            streaks.line([(x, y), (x - long * 0.2, y + long)], unit * 0.0009 * (1 + 0.4 * depth))
        mist = streaks.mask().filter(ImageFilter.GaussianBlur(unit * 0.0006))
        picture.fill(mist, mix(picture.palette.sky[-1], WHITE, 0.35), 0.32 + 0.08 * depth)


def _paint_snowflakes(picture: Picture) -> None:
    """Paint snowflakes at three distances. The nearest ones are large and out of focus."""
    rng, unit = picture.rng("flakes"), picture.unit
    for amount, size, blur in ((520, 0.0016, 0.0004), (150, 0.0032, 0.001), (26, 0.008, 0.004)):
        flakes = picture.stencil()
        for _ in range(round(amount * min(3, picture.width / unit))):
            radius = unit * size * rng.uniform(0.6, 1.4)
            flakes.ellipse((rng.random() * picture.width, rng.random() * picture.height), radius, radius)
        picture.fill(flakes.mask().filter(ImageFilter.GaussianBlur(unit * blur)), WHITE, 0.75)


def paint_lightning(picture: Picture) -> None:
    """Paint a forked bolt of lightning from the clouds to the horizon, and its glow."""
    rng, bolt = picture.rng("lightning"), picture.stencil()
    x = picture.column_from_light(0.75)
    _draw_bolt(picture, bolt, (x, picture.horizon - 0.5 * picture.unit), picture.horizon, 0.0032)
    mask = bolt.mask()
    picture.add_light(
        picture.glow_mask((x, picture.horizon - 0.4 * picture.unit), 0.6 * picture.unit, 2.2),
        _LIGHTNING,
        0.45,
    )
    picture.add_light(
        mask.filter(ImageFilter.GaussianBlur(picture.unit * rng.uniform(0.009, 0.012))), _LIGHTNING
    )
    picture.fill(mask, WHITE)


def _draw_bolt(picture: Picture, bolt: Stencil, start: Point, bottom: float, width: float) -> None:
    """Draw a bolt of lightning from `start` down to y = `bottom`, with thinner branches."""
    rng, unit = picture.rng(f"fork {start} {width}"), picture.unit
    (x, y), points = start, [start]
    while y < bottom:
        x, y = x + rng.gauss(0, 0.014) * unit, y + rng.uniform(0.008, 0.026) * unit
        points.append((x, y))
        if width > 0.002 and rng.random() < 0.16:
            _draw_bolt(picture, bolt, (x, y), y + (bottom - y) * rng.uniform(0.2, 0.6), width * 0.5)
    bolt.line(points, width * unit)
