"""The shaded sides of peaks: from each top a spine runs down, with light on one side of it."""

from collections.abc import Iterator
from random import Random

from PIL import Image

from app.generators.builtin.noise import Line
from app.generators.builtin.picture import Picture, Point


def shaded_sides(picture: Picture, crest: Line, base: float, jag: float) -> Image.Image:
    """The mask of all slopes turned away from the light, down to the y `base`.

    `jag` is how far the spines zigzag, as a share of their length.
    """
    stencil, rng = picture.stencil(), picture.rng("facets")
    outline = outline_from_light(picture, crest)
    for top, valley in slopes(picture, outline):
        side = outline[top : valley + 1]
        length = min(base - side[0][1], (side[-1][1] - side[0][1]) * 1.9 + picture.unit * 0.01)
        lean = 0.3 * (side[-1][0] - side[0][0])
        stencil.polygon([*side, *reversed(_spine(rng, side[0], lean, length, jag))])
    return stencil.mask()


def outline_from_light(picture: Picture, crest: Line) -> list[Point]:
    """The crest as points, beginning at the side the light comes from."""
    xs = picture.columns()
    return [(x, crest(x)) for x in (xs if picture.light_from_left else reversed(xs))]


def slopes(picture: Picture, outline: list[Point]) -> Iterator[tuple[int, int]]:
    """Index pairs of each peak and the valley behind it."""
    window = max(2, round(len(outline) * 0.012 * picture.unit / picture.width))
    top = 0
    rising = False
    for index in range(len(outline)):
        near = [y for _, y in outline[max(0, index - window) : index + window + 1]]
        if outline[index][1] <= min(near) and not rising:
            top, rising = index, True
        elif outline[index][1] >= max(near) and rising:
            yield top, index
            rising = False
    if rising:
        yield top, len(outline) - 1


def _spine(rng: Random, apex: Point, lean: float, length: float, jag: float) -> list[Point]:
    points, steps, side = [apex], 9, rng.choice((-1, 1))
    for step in range(1, steps + 1):
        down, side = step / steps, -side
        sway = side * jag * length * rng.uniform(0.2, 1.0) * (0.3 + down)
        points.append((apex[0] + lean * down + sway * (1 - down * 0.4), apex[1] + length * down))
    return points
