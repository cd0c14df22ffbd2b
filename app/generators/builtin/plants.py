"""Plants: pines, round trees, palms, cacti, flowers and grass."""

import math
from random import Random

from app.generators.builtin.colour import Colour, mix
from app.generators.builtin.noise import Line, rolling_line
from app.generators.builtin.picture import Picture, Point, Stencil


def pine(stencil: Stencil, rng: Random, foot: Point, height: float) -> None:
    """A conifer with ragged branches."""
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


def round_tree(stencil: Stencil, rng: Random, foot: Point, height: float) -> None:
    """A broad-leaved tree: a trunk and a crown of many leaf clusters."""
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


def palm(stencil: Stencil, rng: Random, foot: Point, height: float) -> None:
    """A palm with a bent trunk and drooping fronds."""
    lean = rng.choice((-1, 1)) * rng.uniform(0.12, 0.3) * height
    trunk = [(foot[0] + lean * (t / 8) ** 1.7, foot[1] - height * t / 8) for t in range(9)]
    stencil.line(trunk, height * 0.035)
    x, y = trunk[-1]
    for index in range(11):
        angle = math.pi * (index / 10) + rng.uniform(-0.15, 0.15)
        _frond(stencil, (x, y), math.cos(angle) * height * 0.36, math.sin(angle) * height * 0.26, height)


def _frond(stencil: Stencil, root: Point, reach: float, rise: float, height: float) -> None:
    """An arching leaf with hanging leaflets."""
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


def cactus(stencil: Stencil, rng: Random, foot: Point, height: float) -> None:
    """A saguaro with two arms."""
    (x, y), thick = foot, height * 0.13
    stencil.line([(x, y + thick), (x, y - height)], thick)
    stencil.ellipse((x, y - height), thick / 2, thick / 2)
    for side in (-1, 1):
        joint, tip = y - height * rng.uniform(0.3, 0.5), y - height * rng.uniform(0.68, 0.85)
        arm = x + side * height * 0.24
        stencil.line([(x, joint), (arm, joint), (arm, tip)], thick * 0.75)
        for end in (joint, tip):
            stencil.ellipse((arm, end), thick * 0.375, thick * 0.375)


def tree_line(picture: Picture, name: str, ground: Line, height: float, colours: list[Colour]) -> None:
    """A row of trees along the ground, `height` units tall, each in one of the colours."""
    rng, stencils = picture.rng(name), [picture.stencil() for _ in colours]
    leafy = picture.scene.has_any("autumn", "spring") and not picture.scene.has("winter")
    size, x = height * picture.unit, -height * picture.unit
    crowd = rolling_line(picture.rng(name + " crowd"), 2)
    while x < picture.width + size:
        tall = size * rng.uniform(0.55, 1.0) * (0.6 + 0.6 * crowd(picture.span(x) * 3))
        grow = round_tree if leafy and rng.random() < 0.75 else pine
        grow(rng.choice(stencils), rng, (x, ground(x) + size * 0.04), tall)
        x += max(1.0, size * rng.uniform(0.12, 0.38))
    for stencil, colour in zip(stencils, colours, strict=True):
        picture.lay(stencil.mask(), colour)


def flowers(picture: Picture, ground: Line, colours: list[Colour]) -> None:
    """Flowers strewn over the near ground, larger towards the viewer."""
    rng, unit = picture.rng("flowers"), picture.unit
    for colour in colours:
        petals = picture.stencil()
        for _ in range(round(240 * min(3, picture.width / unit) / len(colours))):
            x, near = rng.random() * picture.width, rng.random()
            y = ground(x) + (picture.height - ground(x)) * (0.04 + near)
            size = unit * (0.0018 + 0.006 * near) * rng.uniform(0.6, 1.2)
            petals.ellipse((x, y), size, size * 0.75)
        picture.lay(petals.mask(), colour)


def grass_blades(picture: Picture, ground: Line, colour: Colour) -> None:
    """Blades of grass along the lower edge and on the near crest."""
    rng, unit, blades = picture.rng("blades"), picture.unit, picture.stencil()
    for _ in range(round(700 * min(4, picture.width / unit))):
        x, near = rng.random() * picture.width, rng.random() ** 2
        y = ground(x) + near * (picture.height - ground(x))
        tall, bend = unit * (0.008 + 0.03 * near) * rng.uniform(0.5, 1.4), unit * rng.uniform(-0.012, 0.012)
        thin = unit * (0.0008 + 0.0012 * near)
        blades.polygon([(x - thin, y + 2), (x + thin, y + 2), (x + bend, y - tall)])
    picture.lay(blades.mask(), mix(colour, picture.palette.shadow, 0.25), 0.8)
