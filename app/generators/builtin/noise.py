"""Seeded noise: smooth random lines and cloudy grey images."""

import math
from collections.abc import Callable
from random import Random

from PIL import Image, ImageChops, ImageFilter, ImageOps

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
