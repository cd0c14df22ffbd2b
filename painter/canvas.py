"""The picture being painted: its pixels, dimensions and random sources, and the basic painting operations."""

import math
from collections.abc import Callable, Sequence
from random import Random

from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageOps

from painter.palette import BLACK, Colour, Palette, choose_palette, mix
from painter.prompt import PaintRequest, Scene, read_scene, stable_random

Point = tuple[float, float]
"""x and y in pixels, measured from the upper left corner."""

Line = Callable[[float], float]
"""A function that takes a horizontal position and returns the y or the height of a line there."""

_HORIZON_SHARES = {"sea": 0.6, "island": 0.62, "city": 0.74, "volcano": 0.66, "desert": 0.56, "meadow": 0.56}
"""The distance of the horizon from the upper edge, as a fraction of the picture's height, by subject. The
default is 0.62."""

_SUN_HEIGHTS = {"sunset": (0.06, 0.16), "dawn": (0.08, 0.2), "dusk": (0.02, 0.05)}
"""The range of the sun's height above the horizon, in units, by time of day. The default is 0.3 to 0.42."""

_NOISE_POINTS = 512

_TO_INNER_CIRCLE = [min(255, round(level * 2**0.5)) for level in range(256)]
"""Lookup table that makes Pillow's radial gradient reach 255 on the circle inscribed in its square, rather
than at the corners."""


class Stencil:
    """A greyscale mask with smooth edges. It is drawn larger than the picture and then scaled down."""

    def __init__(self, size: tuple[int, int]) -> None:
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
        """Fill an ellipse whose horizontal radius is `rx` and whose vertical radius is `ry`."""
        (x, y) = centre
        self._draw.ellipse(self._scaled([(x - rx, y - ry), (x + rx, y + ry)]), fill=level)

    def line(self, points: Sequence[Point], width: float, level: int = 255) -> None:
        """Draw a line through the points, `width` pixels wide."""
        self._draw.line(
            self._scaled(points), fill=level, width=max(1, round(width * self._scale)), joint="curve"
        )

    def mask(self) -> Image.Image:
        """Return the mask at the size of the picture."""
        return self._image.reduce(self._scale)


class Picture:
    """One picture: its image, scene and palette.

    `unit` is a length in pixels. The sizes of all objects are multiples of it. `horizon` is the y of the
    horizon. `sun` is the centre of the sun or moon.
    """

    def __init__(self, request: PaintRequest) -> None:
        self.size = (request.width, request.height)
        self.width, self.height = self.size
        self.unit = min(self.height, 1.5 * self.width)
        self._key = (request.prompt, request.negative_prompt, request.seed)
        self.scene: Scene = read_scene(request)
        self.palette: Palette = choose_palette(self.scene, self.rng("palette"))
        self.image = Image.new("RGB", self.size)
        self.horizon = self.height * _HORIZON_SHARES.get(self.scene.subject, 0.62)
        self.sun: Point = self._place_sun()

    def _place_sun(self) -> Point:
        rng = self.rng("sun")
        x = rng.choice((rng.uniform(0.2, 0.42), rng.uniform(0.58, 0.8)))
        above = rng.uniform(*_SUN_HEIGHTS.get(self.scene.time, (0.3, 0.42)))
        if self.scene.subject in ("mountains", "forest", "city") and self.scene.time in _SUN_HEIGHTS:
            above += 0.17
        return x * self.width, self.horizon - above * self.unit

    @property
    def light_from_left(self) -> bool:
        """Return whether the sun or moon is in the left half of the picture."""
        return self.sun[0] < self.width / 2

    def column_from_light(self, share: float) -> float:
        """Return the x at the fraction `share` of the width, measured from the side of the sun or moon."""
        return self.width * (share if self.light_from_left else 1 - share)

    def rng(self, layer: str) -> Random:
        """Return a new random source, which depends only on the prompts, the seed and the layer's name."""
        return stable_random(layer, *self._key)

    def stencil(self) -> Stencil:
        """Return an empty mask for this picture."""
        return Stencil(self.size)

    def units_from_centre(self, x: float) -> float:
        """Return the distance of x from the middle of the picture, in units.

        Noise as a function of this distance looks the same at any size of the picture.
        """
        return (x - self.width / 2) / self.unit

    def sample_columns(self) -> list[float]:
        """Return the x coordinates at which silhouettes are sampled, from the left to the right edge."""
        count = max(8, min(self.width, 700))
        return [index * self.width / count for index in range(count + 1)]

    def fill(self, mask: Image.Image, paint: Image.Image | Colour, strength: float = 1.0) -> None:
        """Cover the masked area with a colour or an image. `strength` is the opacity, from 0 to 1."""
        if strength < 1:
            mask = mask.point([round(level * strength) for level in range(256)])
        self.image.paste(paint, (0, 0, *self.size), mask)

    def add_light(self, mask: Image.Image, colour: Colour, strength: float = 1.0) -> None:
        """Brighten the masked area with light of this colour."""
        light = Image.new("RGB", self.size)
        light.paste(mix(BLACK, colour, strength), (0, 0, *self.size), mask)
        self.image = ImageChops.screen(self.image, light)

    def glow_mask(self, centre: Point, radius: float, power: float = 2.0) -> Image.Image:
        """Return a mask that is bright at `centre` and fades to black at a distance of `radius` pixels."""
        fade = [round(255 * (1 - level / 255) ** power) for level in range(256)]
        side = max(2, round(radius * 2))
        disc = (
            Image.radial_gradient("L")
            .point(_TO_INNER_CIRCLE)
            .point(fade)
            .resize((side, side), Image.Resampling.BICUBIC)
        )
        mask = Image.new("L", self.size)
        mask.paste(disc, (round(centre[0] - radius), round(centre[1] - radius)))
        return mask


def vertical_gradient(stops: Sequence[Colour], size: tuple[int, int]) -> Image.Image:
    """Return an image with a vertical gradient. The colours `stops` are evenly spaced from top to bottom."""
    height = max(2, size[1])
    strip = Image.new("RGB", (1, height))
    draw = ImageDraw.Draw(strip)
    for y in range(height):
        place = y / (height - 1) * (len(stops) - 1)
        index = min(int(place), len(stops) - 2)
        draw.point((0, y), mix(stops[index], stops[index + 1], place - index))
    return strip.resize(size, Image.Resampling.NEAREST if height == size[1] else Image.Resampling.BOX)


def smooth_line(rng: Random, octaves: int = 3, gain: float = 0.4) -> Line:
    """Return a smooth random line with values in 0…1. It rises and falls about once per unit of x."""
    parts = [(_noise_line(rng), 2.1**octave, gain**octave) for octave in range(octaves)]
    total = sum(weight for _, _, weight in parts)
    return lambda x: sum(part(x * rate) * weight for part, rate, weight in parts) / total


def ridged_line(rng: Random, octaves: int = 7) -> Line:
    """Return a random line with values in 0…1 and sharp peaks. The line is rougher near the peaks."""
    parts = [(_noise_line(rng), 2.0**octave) for octave in range(octaves)]

    def height(x: float) -> float:
        total, weight, reach = 0.0, 1.0, 0.0
        for part, rate in parts:
            fold = 1 - abs(2 * part(x * rate) - 1)
            total += fold * weight
            reach += weight
            weight *= 0.3 + 0.24 * fold
        return total / reach

    return height


def _noise_line(rng: Random) -> Line:
    """Return value noise: random values at whole numbers, with smooth interpolation between them."""
    values = [rng.random() for _ in range(_NOISE_POINTS)]

    def value(x: float) -> float:
        cell = math.floor(x)
        t = x - cell
        a, b = values[cell % _NOISE_POINTS], values[(cell + 1) % _NOISE_POINTS]
        return a + (b - a) * t * t * (3 - 2 * t)

    return value


def cloud_noise(
    rng: Random, size: tuple[int, int], cells: tuple[int, int], roughness: float = 0.35
) -> Image.Image:
    """Return fractal noise as a grey image that uses the full range of brightness.

    `cells` is the number of blobs in the coarsest octave, horizontally and vertically. `roughness` is the
    weight of the finer octaves.
    """
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


def lit_relief(
    rng: Random, size: tuple[int, int], cells: tuple[int, int], light_from_left: bool
) -> Image.Image:
    """Return rugged rock as a grey image. It is bright where the rock faces the light, and dark elsewhere."""
    half = (max(2, size[0] // 2), max(2, size[1] // 2))
    folded = [255 - abs(2 * level - 255) for level in range(256)]
    rock = cloud_noise(rng, half, cells, 0.3).point(folded).filter(ImageFilter.BoxBlur(half[0] / 500))
    step = max(1, half[0] // 160) * (1 if light_from_left else -1)
    lit = ImageChops.subtract(rock, ImageChops.offset(rock, step, 0), scale=0.35, offset=128)
    return lit.resize(size, Image.Resampling.BICUBIC)
