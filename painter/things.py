"""Things in a landscape: birds, balloons, boats, houses, lighthouses and a skyline."""

import math
from collections.abc import Sequence
from random import Random

from PIL import ImageDraw

from painter.canvas import Line, Picture, Point
from painter.land import local_colour
from painter.palette import Colour, accent, mix, multiply

_LAMP: Colour = (255, 214, 130)

_WINDOW_LIGHTS: tuple[Colour, ...] = ((255, 214, 140), (255, 190, 110), (255, 236, 196), (190, 220, 255))

_MAINSAIL = ((0.02, 0.2), (0.02, 1.5), (0.2, 1.05), (0.36, 0.6), (0.44, 0.2))

_JIB = ((-0.03, 0.22), (-0.03, 1.3), (-0.18, 0.8), (-0.36, 0.24))

_HULL = ((-0.5, 0.14), (0.56, 0.14), (0.44, 0.02), (0.36, -0.03), (-0.34, -0.03), (-0.42, 0.03))


def paint_birds(picture: Picture) -> None:
    """Paint a small flock of birds. Each bird consists of two curved strokes."""
    rng, unit, flock = picture.rng("birds"), picture.unit, picture.stencil()
    x = picture.width * rng.uniform(0.35, 0.65)
    y = picture.horizon - unit * rng.uniform(0.24, 0.36)
    for _ in range(rng.randint(5, 8)):
        at = (x + rng.gauss(0, 0.09) * unit, y + rng.gauss(0, 0.035) * unit)
        span, lift = unit * rng.uniform(0.008, 0.018), rng.uniform(0.3, 0.6)
        for side in (-1, 1):
            wing = [
                (at[0] + side * span * t / 5, at[1] - span * lift * math.sin(t / 5 * 2.3)) for t in range(6)
            ]
            flock.line(wing, max(0.5, unit * 0.0018))
    picture.fill(flock.mask(), mix(picture.palette.shadow, picture.palette.sky[1], 0.15))


def paint_balloons(picture: Picture) -> None:
    """Paint three hot-air balloons at different distances."""
    rng, unit = picture.rng("balloons"), picture.unit
    bright = accent(picture.scene, (206, 74, 58))
    for index, (size, hue) in enumerate(((0.022, 0.5), (0.035, 0.2), (0.075, 0.0))):
        x = picture.width * (rng.uniform(0.1, 0.3) + 0.28 * index)
        y = picture.horizon - unit * rng.uniform(0.2, 0.42)
        colour = mix(
            multiply(bright, mix(picture.palette.ambient, (255, 255, 255), 0.4)), picture.palette.haze, hue
        )
        _paint_balloon(picture, (x, y), size * unit, colour)


def _paint_balloon(picture: Picture, centre: Point, radius: float, colour: Colour) -> None:
    (x, y), body = centre, picture.stencil()
    body.ellipse(centre, radius, radius)
    body.polygon(
        [
            (x - radius * 0.86, y + radius * 0.5),
            (x + radius * 0.86, y + radius * 0.5),
            (x + radius * 0.2, y + radius * 1.45),
            (x - radius * 0.2, y + radius * 1.45),
        ]
    )
    body.polygon(
        [
            (x - radius * 0.17, y + radius * 1.65),
            (x + radius * 0.17, y + radius * 1.65),
            (x + radius * 0.14, y + radius * 1.95),
            (x - radius * 0.14, y + radius * 1.95),
        ]
    )
    picture.fill(body.mask(), colour)
    stripes = picture.stencil()
    for half in (0.72, 0.28):
        stripes.ellipse(centre, radius * half, radius, 255)
        stripes.ellipse(centre, radius * (half - 0.22), radius, 0)
    picture.fill(stripes.mask(), picture.palette.light, 0.55)
    side = radius * (-0.6 if picture.light_from_left else 0.6)
    picture.add_light(
        picture.glow_mask((x + side, y - radius * 0.3), radius * 1.3, 2), picture.palette.light, 0.25
    )


def paint_boat(picture: Picture, shore: float) -> None:
    """Paint a sailing boat and its reflection, on water that begins at y = `shore`."""
    rng, unit = picture.rng("boat"), picture.unit
    x = picture.width * (rng.uniform(0.55, 0.72) if picture.light_from_left else rng.uniform(0.28, 0.45))
    y, size = shore + (picture.height - shore) * 0.22, unit * 0.13
    sail = mix(picture.palette.light, accent(picture.scene, picture.palette.light), 0.8)
    shaded = mix(multiply(sail, picture.palette.ambient), picture.palette.haze, 0.2)
    hull = mix(picture.palette.shadow, picture.palette.sky[0], 0.2)
    for flip, strength in ((-0.85, 0.32), (1.0, 1.0)):
        for points, colour in ((_MAINSAIL, sail), (_JIB, shaded), (_HULL, hull)):
            _fill_outline(picture, (x, y), size, [(a, b * flip) for a, b in points], colour, strength)


def paint_house_on(picture: Picture, crest: Line) -> None:
    """Paint a house on the ground below `crest` if the scene has a house."""
    if picture.scene.has("house"):
        x = picture.column_from_light(0.66)
        paint_house(picture, (x, crest(x)), picture.unit * 0.15)


def paint_house(picture: Picture, place: Point, size: float) -> None:
    """Paint a house that is about `size` pixels wide, with a lit gable, a shaded side and lit windows."""
    palette, (x, y) = picture.palette, place
    wall = multiply(accent(picture.scene, (206, 120, 92)), mix(palette.ambient, palette.light, 0.35))
    roof = mix(multiply((92, 74, 78), palette.ambient), palette.shadow, 0.25)
    parts: tuple[tuple[tuple[Point, ...], Colour], ...] = (
        (((-0.5, -0.06), (-0.5, 0.42), (-0.27, 0.74), (-0.04, 0.42), (-0.04, -0.06)), wall),
        (((-0.04, -0.06), (-0.04, 0.42), (0.5, 0.42), (0.5, -0.06)), mix(wall, palette.shadow, 0.38)),
        (((-0.3, 0.78), (0.36, 0.78), (0.58, 0.38), (-0.04, 0.38)), roof),
        (((-0.3, 0.78), (-0.27, 0.7), (-0.5, 0.36), (-0.56, 0.4)), roof),
        (((0.2, 0.7), (0.2, 0.96), (0.3, 0.96), (0.3, 0.7)), roof),
        (((-0.34, 0.2), (-0.34, 0.38), (-0.2, 0.38), (-0.2, 0.2)), _LAMP),
        (((0.12, 0.12), (0.12, 0.28), (0.22, 0.28), (0.22, 0.12)), _LAMP),
        (((0.3, 0.12), (0.3, 0.28), (0.4, 0.28), (0.4, 0.12)), _LAMP),
    )
    for points, colour in parts:
        _fill_outline(picture, place, size, points, colour)
    if picture.scene.time != "day":
        picture.add_light(picture.glow_mask((x - 0.1 * size, y - 0.25 * size), size * 0.8, 2.4), _LAMP, 0.4)


def paint_lighthouse(picture: Picture, ground: Line) -> None:
    """Paint a lighthouse on the line `ground`. Its beam is on unless it is day."""
    x = picture.column_from_light(0.8)
    foot, size = (x, ground(x)), picture.unit * 0.3
    lamp = (x, foot[1] - 0.9 * size)
    if picture.scene.time != "day":
        _paint_beam(picture, lamp, size)
    daylight = mix(picture.palette.ambient, picture.palette.light, 0.3)
    white = multiply((246, 238, 228), daylight)
    red = multiply(accent(picture.scene, (196, 62, 52)), daylight)
    dark = mix(red, picture.palette.shadow, 0.5)
    for low, high, half_low, half_high, colour in (
        (-0.05, 0.2, 0.133, 0.118, red),
        (0.2, 0.4, 0.118, 0.106, white),
        (0.4, 0.6, 0.106, 0.094, red),
        (0.6, 0.8, 0.094, 0.082, white),
        (0.8, 0.83, 0.11, 0.11, dark),
        (0.83, 0.96, 0.06, 0.06, _LAMP),
        (0.96, 1.08, 0.08, 0.0, dark),
    ):
        outline = ((-half_low, low), (-half_high, high), (half_high, high), (half_low, low))
        _fill_outline(picture, foot, size, outline, colour)
    picture.add_light(picture.glow_mask(lamp, size * 0.5, 2.4), _LAMP, 0.7)


def _paint_beam(picture: Picture, lamp: Point, size: float) -> None:
    beam, far = picture.stencil(), picture.column_from_light(-0.1)
    beam.polygon([lamp, (far, lamp[1] - 0.4 * size), (far, lamp[1] + 0.15 * size)], 90)
    picture.add_light(beam.mask(), _LAMP, 0.5)


def _fill_outline(
    picture: Picture,
    foot: Point,
    size: float,
    outline: Sequence[Point],
    colour: Colour,
    strength: float = 1.0,
) -> None:
    """Fill an outline. Its points are relative to `foot`, in multiples of `size`, with y upwards."""
    part = picture.stencil()
    part.polygon([(foot[0] + a * size, foot[1] - b * size) for a, b in outline])
    picture.fill(part.mask(), colour, strength)


def paint_skyline(picture: Picture, base: float) -> None:
    """Paint three rows of towers that stand at y = `base`. The nearest row is the darkest."""
    palette, tower = picture.palette, local_colour(picture, "tower")
    middle = picture.column_from_light(0.62)
    for row, (height, distance) in enumerate(((0.44, 0.7), (0.36, 0.42), (0.2, 0.1))):
        colour = mix(palette.lit(tower, distance), palette.shadow, 0.5 * (1 - distance))
        _paint_tower_row(picture, row, base, height, colour, middle)
        glow = picture.glow_mask((picture.width / 2, base + picture.unit * 0.1), picture.unit * 0.6, 2.0)
        picture.add_light(glow, palette.glow, 0.22 - 0.06 * row)


def _paint_tower_row(
    picture: Picture, row: int, base: float, height: float, colour: Colour, middle: float
) -> None:
    """Paint towers from edge to edge. They are tallest around x = `middle`."""
    rng, unit = picture.rng(f"towers {row}"), picture.unit
    draw, x = ImageDraw.Draw(picture.image), -unit * 0.05
    while x < picture.width:
        wide = unit * rng.uniform(0.03, 0.075) * (1.1 if row == 2 else 1)
        centrality = max(0.25, 1 - (abs(x - middle) / unit / 0.55) ** 1.5 * 0.7)
        tall = unit * height * rng.uniform(0.4, 1.0) * centrality
        shade = mix(colour, picture.palette.haze, rng.uniform(0, 0.12))
        box = (round(x), round(base - tall), round(x + wide), round(base))
        _paint_tower(picture, draw, rng, box, shade, row)
        x += wide * rng.uniform(0.75, 1.15)


def _paint_tower(
    picture: Picture,
    draw: ImageDraw.ImageDraw,
    rng: Random,
    box: tuple[int, int, int, int],
    shade: Colour,
    row: int,
) -> None:
    """Paint a tower in `box` (left, top, right, bottom). Some towers have a roof, a setback or a mast."""
    left, top, right, bottom = box
    wide, middle = right - left, (left + right) // 2
    draw.rectangle(box, fill=shade)
    lit_side = (
        (left, top, left + wide // 3, bottom)
        if picture.light_from_left
        else (right - wide // 3, top, right, bottom)
    )
    draw.rectangle(lit_side, fill=mix(shade, picture.palette.glow, 0.13))
    kind = rng.random()
    if kind < 0.35 and wide > 3:
        inset = max(1, wide // 5)
        draw.rectangle((left + inset, top - wide // 4, right - inset, top), fill=shade)
    if kind < 0.18:
        draw.line((middle, top - wide, middle, top), fill=shade, width=max(1, wide // 16))
    elif kind > 0.85:
        draw.polygon([(left, top), (right, top), (middle, top - wide)], fill=shade)
    _paint_windows(picture, draw, rng, box, shade, row)


def _paint_windows(
    picture: Picture,
    draw: ImageDraw.ImageDraw,
    rng: Random,
    box: tuple[int, int, int, int],
    shade: Colour,
    row: int,
) -> None:
    """Paint the windows of a tower: by day, all windows in grey, and otherwise only those that are lit."""
    step = picture.unit * (0.0088 + 0.0014 * row)
    pane, share = step * 0.45, {"night": 0.4, "dusk": 0.36, "day": 0.0}.get(picture.scene.time, 0.24)
    fade = (0.55, 0.3, 0.0)[row]
    y = box[1] + step
    while y < box[3] - step:
        x, floor = box[0] + step * 0.7, rng.random()
        while x < box[2] - step * 0.8:
            if rng.random() < share * (0.5 + floor):
                colour = mix(rng.choice(_WINDOW_LIGHTS), shade, fade + 0.4 * rng.random())
                draw.rectangle((round(x), round(y), round(x + pane), round(y + pane * 1.2)), fill=colour)
            elif share == 0:
                colour = mix(shade, picture.palette.sky[1], 0.35)
                draw.rectangle((round(x), round(y), round(x + pane), round(y + pane)), fill=colour)
            x += step
        y += step * 1.25
