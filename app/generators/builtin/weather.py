"""What the air carries in front of the scene: fog, rain, snowflakes, lightning."""

from PIL import Image, ImageChops, ImageFilter

from app.generators.builtin.colour import WHITE, Colour, mix
from app.generators.builtin.noise import cloudy
from app.generators.builtin.picture import Picture, Point, Stencil

_BOLT: Colour = (226, 220, 255)


def fog_bank(picture: Picture, name: str, y: float, strength: float, half: float = 0.2) -> None:
    """Drifting mist, thickest at the height `y`, gone `half` units above and below."""
    rise = max(2, round(picture.unit * half))
    slope = [round(255 * (1 - abs(2 * level / 255 - 1)) ** 1.4) for level in range(256)]
    band = Image.new("L", picture.size)
    band.paste(
        Image.linear_gradient("L").point(slope).resize((picture.width, rise * 2)), (0, round(y) - rise)
    )
    drift = cloudy(picture.rng(name), picture.size, (round(3 * picture.width / picture.unit), 10), 0.3)
    mask = ImageChops.multiply(band, drift.point([90 + round(level * 0.64) for level in range(256)]))
    picture.lay(mask, mix(picture.palette.haze, WHITE, 0.12), strength)


def paint_weather(picture: Picture) -> None:
    """Everything that falls or drifts in front of the scene."""
    scene = picture.scene
    if scene.has("fog"):
        for index, low in enumerate((-0.12, 0.04, 0.24)):
            fog_bank(picture, f"fog {index}", picture.horizon + low * picture.unit, 0.62 - 0.16 * index, 0.22)
    if scene.has("rain") or scene.has("storm"):
        _rain(picture)
    if scene.has("snow") and not scene.has_any("aurora", "clear", "sun"):
        _snowflakes(picture)


def _rain(picture: Picture) -> None:
    """Slanting streaks in three distances, over a veil of grey."""
    rng, unit = picture.rng("rain"), picture.unit
    picture.lay(Image.new("L", picture.size, 40), picture.palette.haze)
    for depth in range(3):
        streaks = picture.stencil()
        for _ in range(round((420 - 110 * depth) * min(3, picture.width / unit))):
            x, y = rng.uniform(-0.05, 1.05) * picture.width, rng.uniform(-0.05, 1) * picture.height
            long = unit * (0.02 + 0.022 * depth) * rng.uniform(0.6, 1.3)
            streaks.line([(x, y), (x - long * 0.2, y + long)], unit * 0.0009 * (1 + 0.4 * depth))
        mist = streaks.mask().filter(ImageFilter.GaussianBlur(unit * 0.0006))
        picture.lay(mist, mix(picture.palette.sky[-1], WHITE, 0.35), 0.32 + 0.08 * depth)


def _snowflakes(picture: Picture) -> None:
    """Flakes in three distances; the nearest are large and out of focus."""
    rng, unit = picture.rng("flakes"), picture.unit
    for amount, size, blur in ((520, 0.0016, 0.0004), (150, 0.0032, 0.001), (26, 0.008, 0.004)):
        flakes = picture.stencil()
        for _ in range(round(amount * min(3, picture.width / unit))):
            radius = unit * size * rng.uniform(0.6, 1.4)
            flakes.ellipse((rng.random() * picture.width, rng.random() * picture.height), radius, radius)
        picture.lay(flakes.mask().filter(ImageFilter.GaussianBlur(unit * blur)), WHITE, 0.75)


def paint_lightning(picture: Picture) -> None:
    """A forked bolt from the clouds to the horizon, and its glow."""
    rng, bolt = picture.rng("lightning"), picture.stencil()
    x = picture.from_light(0.75)
    _fork(picture, bolt, (x, picture.horizon - 0.5 * picture.unit), picture.horizon, 0.0032)
    mask = bolt.mask()
    picture.shine(
        picture.halo((x, picture.horizon - 0.4 * picture.unit), 0.6 * picture.unit, 2.2), _BOLT, 0.45
    )
    picture.shine(mask.filter(ImageFilter.GaussianBlur(picture.unit * rng.uniform(0.009, 0.012))), _BOLT)
    picture.lay(mask, WHITE)


def _fork(picture: Picture, bolt: Stencil, start: Point, bottom: float, width: float) -> None:
    rng, unit = picture.rng(f"fork {start} {width}"), picture.unit
    (x, y), points = start, [start]
    while y < bottom:
        x, y = x + rng.gauss(0, 0.014) * unit, y + rng.uniform(0.008, 0.026) * unit
        points.append((x, y))
        if width > 0.002 and rng.random() < 0.16:
            _fork(picture, bolt, (x, y), y + (bottom - y) * rng.uniform(0.2, 0.6), width * 0.5)
    bolt.line(points, width * unit)
