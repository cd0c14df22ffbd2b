"""Where the pixels of a variant come from: which part of the source, at which size, and where on the canvas.

All sizes are widths and heights in pixels of the upright image. No part of the source is ever enlarged:

- `contain`: the source is scaled down to fit into the box. If only the width or the height is specified, the
  other side is unlimited. A smaller source keeps its size.
- `cover`: the source is scaled down to fill the box, and what protrudes is cut off. If the box is larger than
  the source in one direction, the box is scaled down until it fits into the source, and keeps its ratio.
- `pad`: the source is scaled down to fit into the box, and the rest of the box is filled with the background.
  If the box is larger than the source in both directions, the box is scaled down until it touches the source.
"""

from typing import NamedTuple

from app.core.variant_specs import MAX_SIDE, VariantSpec

Size = tuple[int, int]
Point = tuple[float, float]
Box = tuple[float, float, float, float]

CENTER: Point = (0.5, 0.5)


class Layout(NamedTuple):
    """`region` (left, top, right, bottom) of the source is resized to `size` and put at `offset` on `canvas`.

    Except for `pad`, the canvas has the size of the picture.
    """

    region: Box
    size: Size
    canvas: Size
    offset: tuple[int, int]


def lay_out(spec: VariantSpec, source: Size, focus: Point = CENTER) -> Layout:
    """Return the layout of a variant. `focus` is the part to keep when cropping, in 0…1 of both sides."""
    if spec.fit == "cover" and spec.width and spec.height:
        return _cover(spec, source, focus)
    if spec.fit == "pad" and spec.width and spec.height:
        return _pad(spec, source)
    size = _scaled(source, min(1, *_fitting(spec, source)))
    return Layout((0, 0, *source), size, size, (0, 0))


def gravity_point(spec: VariantSpec) -> Point:
    """Return the focus for a gravity other than `smart`."""
    point = spec.focal_point()
    if point is not None:
        return point
    across = 0 if "west" in spec.gravity else 1 if "east" in spec.gravity else 0.5
    down = 0 if "north" in spec.gravity else 1 if "south" in spec.gravity else 0.5
    return across, down


def _fitting(spec: VariantSpec, source: Size) -> Point:
    """Return the factors by which the width and the height must be scaled to fit into the box."""
    return (spec.width or MAX_SIDE) / source[0], (spec.height or MAX_SIDE) / source[1]


def _scaled(size: tuple[float, float], scale: float) -> Size:
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _cover(spec: VariantSpec, source: Size, focus: Point) -> Layout:
    enlargement = max(1, *_fitting(spec, source))
    size = _scaled((spec.width, spec.height), 1 / enlargement)
    # Divided by the exact size of the box, not by the rounded one, so that the crop touches two edges.
    scale = min(source[0] / spec.width, source[1] / spec.height)
    region = min(source[0], spec.width * scale), min(source[1], spec.height * scale)
    # Whole pixels, so that a crop that is not resized stays sharp.
    left, top = (
        min(max(0.0, round(focus[axis] * source[axis] - region[axis] / 2)), source[axis] - region[axis])
        for axis in (0, 1)
    )
    return Layout((left, top, left + region[0], top + region[1]), size, size, (0, 0))


def _pad(spec: VariantSpec, source: Size) -> Layout:
    scale = min(_fitting(spec, source))
    canvas = _scaled((spec.width, spec.height), min(1, 1 / scale))
    width, height = _scaled(source, min(1, scale))
    size = min(width, canvas[0]), min(height, canvas[1])
    offset = (canvas[0] - size[0]) // 2, (canvas[1] - size[1]) // 2
    return Layout((0, 0, *source), size, canvas, offset)


def to_stored(box: Box, size: Size, orientation: int) -> Box:
    """Return where a box of the upright image lies in the stored one.

    `size` is the size of the upright image, and `orientation` is the EXIF orientation of the stored one.
    """
    left, top, right, bottom = box
    width, height = size
    if orientation in (2, 3, 6, 7):
        left, right = width - right, width - left
    if orientation in (3, 4, 7, 8):
        top, bottom = height - bottom, height - top
    return (top, left, bottom, right) if orientation >= 5 else (left, top, right, bottom)
