"""The picture under work: its pixels, its measures, and the few ways of putting paint on it.

Seeded noise: smooth random lines and cloudy grey images.
"""

import math
from collections.abc import Callable, Sequence
from random import Random

from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageOps

from painter.palette import BLACK, Colour, Palette, choose_palette, mix
from painter.scene import PaintOrder, Scene, read_scene, stable_random

Line = Callable[[float], float]
"""A height for each horizontal position."""

_LATTICE = 512


def _value_line(rng: Random) -> Line:
    values = [rng.random() for _ in range(_LATTICE)]

    def value(x: float) -> float:
        cell = math.floor(x)
        t = x - cell
        a, b = values[cell % _LATTICE], values[(cell + 1) % _LATTICE]
        return a + (b - a) * t * t * (3 - 2 * t)

    return value


def rolling_line(rng: Random, octaves: int = 3, gain: float = 0.4) -> Line:
    """A smooth random line, 0…1, that swings about once per unit of x."""
    parts = [(_value_line(rng), 2.1**octave, gain**octave) for octave in range(octaves)]
    total = sum(weight for _, _, weight in parts)
    return lambda x: sum(part(x * rate) * weight for part, rate, weight in parts) / total


def craggy_line(rng: Random, octaves: int = 7) -> Line:
    """A random line, 0…1, with sharp peaks: folded noise, rougher near the peaks."""
    parts = [(_value_line(rng), 2.0**octave) for octave in range(octaves)]

    def height(x: float) -> float:
        total, weight, reach = 0.0, 1.0, 0.0
        for part, rate in parts:
            fold = 1 - abs(2 * part(x * rate) - 1)
            total += fold * weight
            reach += weight
            weight *= 0.3 + 0.24 * fold
        return total / reach

    return height


def cloudy(
    rng: Random, size: tuple[int, int], cells: tuple[int, int], roughness: float = 0.35
) -> Image.Image:
    """Fractal noise as a grey image over the full range: `cells` blobs at the coarsest of its octaves."""
    columns, rows = max(2, cells[0]), max(2, cells[1])
    image = _random_grid(rng, columns, rows)
    while columns * 2 < size[0] and rows * 2 < size[1]:
        columns, rows = columns * 2, rows * 2
        finer = _random_grid(rng, columns, rows)
        image = Image.blend(image.resize((columns, rows), Image.Resampling.BICUBIC), finer, roughness)
        roughness *= 0.66
    return ImageOps.autocontrast(image.resize(size, Image.Resampling.BICUBIC), cutoff=1)


def _random_grid(rng: Random, columns: int, rows: int) -> Image.Image:
    return Image.frombytes("L", (columns, rows), rng.randbytes(columns * rows))


def relief(rng: Random, size: tuple[int, int], cells: tuple[int, int], light_from_left: bool) -> Image.Image:
    """Rugged rock lit from one side: bright where it faces the light, dark where it faces away."""
    half = (max(2, size[0] // 2), max(2, size[1] // 2))
    folded = [255 - abs(2 * level - 255) for level in range(256)]
    rock = cloudy(rng, half, cells, 0.3).point(folded).filter(ImageFilter.BoxBlur(half[0] / 500))
    step = max(1, half[0] // 160) * (1 if light_from_left else -1)
    lit = ImageChops.subtract(rock, ImageChops.offset(rock, step, 0), scale=0.35, offset=128)
    return lit.resize(size, Image.Resampling.BICUBIC)


Point = tuple[float, float]

_HORIZONS = {"sea": 0.6, "island": 0.62, "city": 0.74, "volcano": 0.66, "desert": 0.56, "meadow": 0.56}
_SUN_HEIGHTS = {"sunset": (0.06, 0.16), "dawn": (0.08, 0.2), "dusk": (0.02, 0.05)}


class Stencil:
    """A grey mask drawn larger than the picture and reduced, so that its edges are smooth."""

    def __init__(self, size: tuple[int, int]) -> None:
        """An empty mask for a picture of `size`."""
        self._size = size
        self._scale = 2 if size[0] * size[1] > 600_000 else 4
        self._image = Image.new("L", (size[0] * self._scale, size[1] * self._scale))
        self._draw = ImageDraw.Draw(self._image)

    def _scaled(self, points: Sequence[Point]) -> list[Point]:
        return [(x * self._scale, y * self._scale) for x, y in points]

    def polygon(self, points: Sequence[Point], level: int = 255) -> None:
        """Fill a polygon."""
        self._draw.polygon(self._scaled(points), fill=level)

    def ellipse(self, centre: Point, rx: float, ry: float, level: int = 255) -> None:
        """Fill an upright ellipse."""
        (x, y) = centre
        self._draw.ellipse(self._scaled([(x - rx, y - ry), (x + rx, y + ry)]), fill=level)

    def line(self, points: Sequence[Point], width: float, level: int = 255) -> None:
        """Draw a bent line."""
        self._draw.line(
            self._scaled(points), fill=level, width=max(1, round(width * self._scale)), joint="curve"
        )

    def mask(self) -> Image.Image:
        """The mask in the picture's size."""
        return self._image.reduce(self._scale)


class Picture:
    """Pixels, scene, palette and measures of one picture; every layer paints onto it.

    `unit` is the length for objects and `horizon` the y of the horizon, in pixels; `sun` is the centre
    of the sun or moon.
    """

    def __init__(self, order: PaintOrder) -> None:
        """A blank picture for the order."""
        self.size = (order.width, order.height)
        self.width, self.height = self.size
        self.unit = min(self.height, 1.5 * self.width)
        self._key = (order.prompt, order.negative_prompt, order.seed)
        self.scene: Scene = read_scene(order)
        self.palette: Palette = choose_palette(self.scene, self.rng("palette"))
        self.image = Image.new("RGB", self.size)
        self.horizon = self.height * _HORIZONS.get(self.scene.ground, 0.62)
        self.sun: Point = self._place_sun()

    def _place_sun(self) -> Point:
        rng = self.rng("sun")
        x = rng.choice((rng.uniform(0.2, 0.42), rng.uniform(0.58, 0.8)))
        above = rng.uniform(*_SUN_HEIGHTS.get(self.scene.time, (0.3, 0.42)))
        if self.scene.ground in ("mountains", "forest", "city") and self.scene.time in _SUN_HEIGHTS:
            above += 0.17
        return x * self.width, self.horizon - above * self.unit

    @property
    def light_from_left(self) -> bool:
        """On which side the sun or moon stands."""
        return self.sun[0] < self.width / 2

    def from_light(self, share: float) -> float:
        """The pixel column at a share of the width, counted from the side of the sun or moon."""
        return self.width * (share if self.light_from_left else 1 - share)

    def rng(self, layer: str) -> Random:
        """The random source of one layer, independent of all the others."""
        return stable_random(layer, *self._key)

    def stencil(self) -> Stencil:
        """An empty mask for this picture."""
        return Stencil(self.size)

    def span(self, x: float) -> float:
        """A pixel column as a position in units, 0 in the middle: noise over it looks alike in any size."""
        return (x - self.width / 2) / self.unit

    def columns(self) -> list[float]:
        """Pixel columns to sample a silhouette at, from edge to edge."""
        count = max(8, min(self.width, 700))
        return [index * self.width / count for index in range(count + 1)]

    def lay(self, mask: Image.Image, paint: Image.Image | Colour, strength: float = 1.0) -> None:
        """Cover the masked part with paint."""
        if strength < 1:
            mask = mask.point([round(level * strength) for level in range(256)])
        self.image.paste(paint, (0, 0, *self.size), mask)

    def shine(self, mask: Image.Image, colour: Colour, strength: float = 1.0) -> None:
        """Add light of a colour where the mask is bright."""
        light = Image.new("RGB", self.size)
        light.paste(mix(BLACK, colour, strength), (0, 0, *self.size), mask)
        self.image = ImageChops.screen(self.image, light)

    def halo(self, centre: Point, radius: float, power: float = 2.0) -> Image.Image:
        """A mask that is bright at the centre and fades to nothing at the radius."""
        fade = [round(255 * (1 - level / 255) ** power) for level in range(256)]
        side = max(2, round(radius * 2))
        disc = (
            Image.radial_gradient("L")
            .point(_STRETCH)
            .point(fade)
            .resize((side, side), Image.Resampling.BICUBIC)
        )
        mask = Image.new("L", self.size)
        mask.paste(disc, (round(centre[0] - radius), round(centre[1] - radius)))
        return mask


_STRETCH = [min(255, round(level * 2**0.5)) for level in range(256)]
"""Pillow's radial gradient reaches 255 in the corners of its square; this makes it the inner circle."""


def ramp(stops: Sequence[Colour], size: tuple[int, int]) -> Image.Image:
    """A vertical gradient through evenly spaced colours, top to bottom."""
    height = max(2, size[1])
    strip = Image.new("RGB", (1, height))
    draw = ImageDraw.Draw(strip)
    for y in range(height):
        place = y / (height - 1) * (len(stops) - 1)
        index = min(int(place), len(stops) - 2)
        draw.point((0, y), mix(stops[index], stops[index + 1], place - index))
    return strip.resize(size, Image.Resampling.NEAREST if height == size[1] else Image.Resampling.BOX)
