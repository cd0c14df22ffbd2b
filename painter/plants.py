"""Plants: grass, flowers, and trees in rows, in groups and at the edge of the picture."""

import math
from collections.abc import Callable
from random import Random

from painter.canvas import Line, Picture, Point, Stencil, smooth_line
from painter.land import local_colour
from painter.palette import Colour, mix, multiply

_Plant = Callable[[Stencil, Random, Point, float], None]
"""A function that draws a plant. It takes a stencil, a random source, the point where the plant stands, and
the height of the plant in pixels."""

_LEAF_COLOURS: tuple[Colour, ...] = ((206, 112, 44), (182, 72, 44), (222, 158, 62))


def pine_colour(picture: Picture, distance: float) -> Colour:
    """Return the apparent colour of conifers. `distance` ranges from 0 (near) to 1 (all haze)."""
    colour = picture.palette.lit(local_colour(picture, "pine"), distance)
    depth = 0.15 if picture.scene.has("autumn") else 0.4
    return mix(colour, picture.palette.shadow, depth * (1 - distance))


def paint_forest_row(picture: Picture, name: str, crest: Line, height: float, distance: float) -> None:
    """Paint a row of trees in the colours of the season, unless the prompt excludes trees."""
    if not picture.scene.has("trees", default=True):
        return
    colours = [pine_colour(picture, distance)]
    if picture.scene.has("autumn"):
        colours += [mix(colours[0], picture.palette.lit(leaf, distance), 0.75) for leaf in _LEAF_COLOURS]
    _paint_tree_row(picture, name, crest, height, colours)


def _paint_tree_row(picture: Picture, name: str, ground: Line, height: float, colours: list[Colour]) -> None:
    """Paint trees along the line `ground`, up to about `height` units tall, each in one of `colours`."""
    rng, stencils = picture.rng(name), [picture.stencil() for _ in colours]
    leafy = picture.scene.has_any("autumn", "spring") and not picture.scene.has("winter")
    size, x = height * picture.unit, -height * picture.unit
    crowd = smooth_line(picture.rng(name + " crowd"), 2)
    while x < picture.width + size:
        tall = size * rng.uniform(0.55, 1.0) * (0.6 + 0.6 * crowd(picture.units_from_centre(x) * 3))
        grow = draw_round_tree if leafy and rng.random() < 0.75 else draw_pine
        grow(rng.choice(stencils), rng, (x, ground(x) + size * 0.04), tall)
        x += max(1.0, size * rng.uniform(0.12, 0.38))
    for stencil, colour in zip(stencils, colours, strict=True):
        picture.fill(stencil.mask(), colour)


def paint_framing_pines(picture: Picture, ground: Line) -> None:
    """Paint tall pines at the edge that is nearer to the light, unless the prompt excludes trees."""
    if not picture.scene.has("trees", default=True):
        return
    rng, grove, unit = picture.rng("framing"), picture.stencil(), picture.unit
    edge, inward = (0.0, 1) if picture.light_from_left else (float(picture.width), -1)
    for index in range(5):
        x = edge + inward * unit * (0.035 * index + rng.uniform(0.0, 0.03))
        draw_pine(
            grove, rng, (x, ground(x) + 0.02 * unit), unit * (0.4 - 0.065 * index) * rng.uniform(0.8, 1.1)
        )
    picture.fill(grove.mask(), mix(pine_colour(picture, 0.0), picture.palette.shadow, 0.4))


def paint_lone_trees(picture: Picture, crest: Line) -> None:
    """Paint a group of three broad-leaved trees on a hill."""
    rng, trees = picture.rng("lone trees"), picture.stencil()
    start = picture.column_from_light(0.7)
    for index in range(3):
        x = start + (0.11 * index + rng.uniform(-0.03, 0.03)) * picture.unit
        draw_round_tree(trees, rng, (x, crest(x)), picture.unit * (0.2 - 0.05 * index))
    foliage = "autumn" if picture.scene.has("autumn") else "pine"
    tone = multiply(local_colour(picture, foliage), (255, 255, 240))
    picture.fill(trees.mask(), mix(picture.palette.lit(tone, 0.12), picture.palette.shadow, 0.25))


def paint_plants(picture: Picture, grow: _Plant, crest: Line, sizes: tuple[float, ...], name: str) -> None:
    """Paint plants along the crest: one for each height in `sizes`. The heights are in units."""
    rng, plants = picture.rng(name), picture.stencil()
    for index, size in enumerate(sizes):
        x = picture.width * (0.18 + 0.3 * index + rng.uniform(-0.08, 0.08))
        grow(plants, rng, (x, crest(x) + 0.02 * picture.unit), size * picture.unit)
    picture.fill(plants.mask(), mix(pine_colour(picture, 0.0), picture.palette.shadow, 0.3))


def paint_palm_grove(picture: Picture, middle: float, crest: Line) -> None:
    """Paint seven palms around x = `middle`."""
    rng, grove = picture.rng("grove"), picture.stencil()
    for _ in range(7):
        x = middle + rng.uniform(-0.17, 0.17) * picture.unit
        draw_palm(grove, rng, (x, crest(x) + 2), picture.unit * rng.uniform(0.14, 0.25))
    picture.fill(grove.mask(), mix(pine_colour(picture, 0.0), picture.palette.shadow, 0.3))


def paint_flowers(picture: Picture, ground: Line, colours: list[Colour]) -> None:
    """Paint flowers everywhere below the line `ground`. They get larger towards the viewer."""
    rng, unit = picture.rng("flowers"), picture.unit
    for colour in colours:
        petals = picture.stencil()
        for _ in range(round(240 * min(3, picture.width / unit) / len(colours))):
            x, near = rng.random() * picture.width, rng.random()
            y = ground(x) + (picture.height - ground(x)) * (0.04 + near)
            size = unit * (0.0018 + 0.006 * near) * rng.uniform(0.6, 1.2)
            petals.ellipse((x, y), size, size * 0.75)
        picture.fill(petals.mask(), colour)


def paint_grass(picture: Picture, ground: Line, colour: Colour) -> None:
    """Paint blades of grass everywhere below the line `ground`."""
    rng, unit, blades = picture.rng("blades"), picture.unit, picture.stencil()
    for _ in range(round(700 * min(4, picture.width / unit))):
        x, near = rng.random() * picture.width, rng.random() ** 2
        y = ground(x) + near * (picture.height - ground(x))
        tall, bend = unit * (0.008 + 0.03 * near) * rng.uniform(0.5, 1.4), unit * rng.uniform(-0.012, 0.012)
        thin = unit * (0.0008 + 0.0012 * near)
        blades.polygon([(x - thin, y + 2), (x + thin, y + 2), (x + bend, y - tall)])
    picture.fill(blades.mask(), mix(colour, picture.palette.shadow, 0.25), 0.8)


def draw_pine(stencil: Stencil, rng: Random, foot: Point, height: float) -> None:
    """Draw a conifer with ragged branches."""
    (x, y), tiers = foot, 7
    left: list[Point] = []
    right: list[Point] = []
    for tier in range(1, tiers + 1):
        low, half = y - height * (1 - tier / tiers) * 0.94, height * 0.24 * (tier / tiers) ** 0.9
        for side, edge in ((-1, left), (1, right)):
            reach = half * rng.uniform(0.75, 1.15)
            edge += [(x + side * reach, low - height * 0.03), (x + side * reach * 0.45, low - height * 0.04)]
    stencil.polygon([(x, y - height), *right, *reversed(left)])
    stencil.polygon(
        [
            (x - height * 0.02, y - height * 0.1),
            (x + height * 0.02, y - height * 0.1),
            (x + height * 0.02, y + height * 0.06),
            (x - height * 0.02, y + height * 0.06),
        ]
    )


def draw_round_tree(stencil: Stencil, rng: Random, foot: Point, height: float) -> None:
    """Draw a broad-leaved tree: a trunk and a crown of many clusters of leaves."""
    x, y = foot
    stencil.polygon(
        [
            (x - height * 0.03, y + height * 0.04),
            (x - height * 0.016, y - height * 0.5),
            (x + height * 0.016, y - height * 0.5),
            (x + height * 0.03, y + height * 0.04),
        ]
    )
    for _ in range(34):
        angle, away = rng.uniform(0, math.tau), rng.random() ** 0.5
        place = (
            x + math.cos(angle) * away * height * 0.27,
            y - height * (0.63 + math.sin(angle) * away * 0.26),
        )
        size = height * rng.uniform(0.05, 0.12)
        stencil.ellipse(place, size, size * 0.85)


def draw_palm(stencil: Stencil, rng: Random, foot: Point, height: float) -> None:
    """Draw a palm with a bent trunk and drooping fronds."""
    lean = rng.choice((-1, 1)) * rng.uniform(0.12, 0.3) * height
    trunk = [(foot[0] + lean * (t / 8) ** 1.7, foot[1] - height * t / 8) for t in range(9)]
    stencil.line(trunk, height * 0.035)
    x, y = trunk[-1]
    for index in range(11):
        angle = math.pi * (index / 10) + rng.uniform(-0.15, 0.15)
        _draw_frond(stencil, (x, y), math.cos(angle) * height * 0.36, math.sin(angle) * height * 0.26, height)


def _draw_frond(stencil: Stencil, root: Point, reach: float, rise: float, height: float) -> None:
    """Draw an arched leaf with hanging leaflets."""
    sag = height * 0.3
    rib = [
        (root[0] + reach * t / 12, root[1] - rise * t / 12 * 1.6 + sag * (t / 12) ** 2.2) for t in range(13)
    ]
    stencil.line(rib, height * 0.012)
    for step, (x, y) in enumerate(rib[1:-1], start=1):
        hang = height * 0.11 * math.sin(step / 12 * math.pi * 0.9)
        thin, sweep = height * 0.014, reach * 0.14
        for side in (1.0, -0.35):
            stencil.polygon([(x - thin, y), (x + thin, y), (x + sweep, y + hang * side)])


def draw_cactus(stencil: Stencil, rng: Random, foot: Point, height: float) -> None:
    """Draw a saguaro with two arms."""
    (x, y), thick = foot, height * 0.13
    stencil.line([(x, y + thick), (x, y - height)], thick)
    stencil.ellipse((x, y - height), thick / 2, thick / 2)
    for side in (-1, 1):
        joint, tip = y - height * rng.uniform(0.3, 0.5), y - height * rng.uniform(0.68, 0.85)
        arm = x + side * height * 0.24
        stencil.line([(x, joint), (arm, joint), (arm, tip)], thick * 0.75)
        for end in (joint, tip):
            stencil.ellipse((arm, end), thick * 0.375, thick * 0.375)
