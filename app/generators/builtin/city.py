"""A skyline: rows of towers with lit windows."""

from random import Random

from PIL import ImageDraw

from app.generators.builtin.colour import Colour, mix
from app.generators.builtin.land import local_colour
from app.generators.builtin.picture import Picture

_WINDOWS: tuple[Colour, ...] = ((255, 214, 140), (255, 190, 110), (255, 236, 196), (190, 220, 255))


def paint_skyline(picture: Picture, base: float) -> None:
    """Three rows of towers on the y `base`, the nearest the darkest."""
    palette, tower = picture.palette, local_colour(picture, "tower")
    middle = picture.from_light(0.62)
    for row, (height, distance) in enumerate(((0.44, 0.7), (0.36, 0.42), (0.2, 0.1))):
        colour = mix(palette.lit(tower, distance), palette.shadow, 0.5 * (1 - distance))
        _row(picture, row, base, height, colour, middle)
        glow = picture.halo((picture.width / 2, base + picture.unit * 0.1), picture.unit * 0.6, 2.0)
        picture.shine(glow, palette.glow, 0.22 - 0.06 * row)


def _row(picture: Picture, row: int, base: float, height: float, colour: Colour, middle: float) -> None:
    rng, unit = picture.rng(f"towers {row}"), picture.unit
    draw, x = ImageDraw.Draw(picture.image), -unit * 0.05
    while x < picture.width:
        wide = unit * rng.uniform(0.03, 0.075) * (1.1 if row == 2 else 1)
        centrality = max(0.25, 1 - (abs(x - middle) / unit / 0.55) ** 1.5 * 0.7)
        tall = unit * height * rng.uniform(0.4, 1.0) * centrality
        shade = mix(colour, picture.palette.haze, rng.uniform(0, 0.12))
        box = (round(x), round(base - tall), round(x + wide), round(base))
        _tower(picture, draw, rng, box, shade, row)
        x += wide * rng.uniform(0.75, 1.15)


def _tower(
    picture: Picture,
    draw: ImageDraw.ImageDraw,
    rng: Random,
    box: tuple[int, int, int, int],
    shade: Colour,
    row: int,
) -> None:
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
    _windows(picture, draw, rng, box, shade, row)


def _windows(
    picture: Picture,
    draw: ImageDraw.ImageDraw,
    rng: Random,
    box: tuple[int, int, int, int],
    shade: Colour,
    row: int,
) -> None:
    step = picture.unit * (0.0088 + 0.0014 * row)
    pane, share = step * 0.45, {"night": 0.4, "dusk": 0.36, "day": 0.0}.get(picture.scene.time, 0.24)
    fade = (0.55, 0.3, 0.0)[row]
    y = box[1] + step
    while y < box[3] - step:
        x, floor = box[0] + step * 0.7, rng.random()
        while x < box[2] - step * 0.8:
            if rng.random() < share * (0.5 + floor):
                colour = mix(rng.choice(_WINDOWS), shade, fade + 0.4 * rng.random())
                draw.rectangle((round(x), round(y), round(x + pane), round(y + pane * 1.2)), fill=colour)
            elif share == 0:
                colour = mix(shade, picture.palette.sky[1], 0.35)
                draw.rectangle((round(x), round(y), round(x + pane), round(y + pane)), fill=colour)
            x += step
        y += step * 1.25
