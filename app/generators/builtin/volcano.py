"""A volcano, glowing at the crater, with smoke and streams of lava."""

from PIL import ImageChops, ImageFilter

from app.generators.builtin.colour import mix
from app.generators.builtin.noise import cloudy, craggy_line
from app.generators.builtin.picture import Picture
from app.generators.builtin.rock import paint_rock


def volcano(picture: Picture, base: float) -> None:
    """A volcano on the y `base`, glowing at the crater, with smoke over it."""
    rng, unit = picture.rng("volcano"), picture.unit
    middle, height = picture.width * rng.uniform(0.4, 0.6), unit * 0.36
    rough = craggy_line(picture.rng("crater"), 6)

    def crest(x: float) -> float:
        away = max(abs(x - middle) / unit, 0.045)
        cone: float = min(1.0, (0.045 / away) ** 0.62 * 1.02) - 0.2
        return base - height * cone * 1.22 - unit * 0.03 * (rough(picture.span(x) * 5) - 0.5)

    top = base - height * 0.98
    _paint_smoke(picture, middle, top)
    picture.shine(picture.halo((middle, top), unit * 0.3, 2.0), (255, 96, 40), 0.8)
    paint_rock(picture, crest, base, snow=0.0)
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
    billows = cloudy(rng, picture.size, (14, 14), 0.45).point([min(255, 60 + v) for v in range(256)])
    picture.lay(ImageChops.multiply(soft, billows), mix(picture.palette.shadow, picture.palette.haze, 0.4))


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
    picture.shine(mask.filter(ImageFilter.GaussianBlur(unit * 0.012)), (255, 80, 30), 1.0)
    picture.lay(mask, (255, 176, 84))
