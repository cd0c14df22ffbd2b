"""Finds by other means how large an accepted image is, and compares with what it was judged to be."""

import struct
import time
from io import BytesIO

from PIL import Image

from app.imaging import CheckedImage, ImageLimits, check_image, clean_image
from tests.imaging.av1_bits import said_size

MOST_SECONDS = 20
"""CPU time for an image of a million pixels; it takes a fraction of a second on any machine."""


def assert_as_judged(data: bytes, limits: ImageLimits) -> CheckedImage:
    """Check the image, and prove that every frame of what is stored has the size that it was judged by.

    Raises what `check_image` raises for an image that is refused.
    """
    started = time.process_time()
    checked = check_image(data, limits)
    assert time.process_time() - started < MOST_SECONDS
    judged = clean_image(checked.data, limits)
    size = judged.width, judged.height
    assert (judged.data, judged.frames) == (checked.data, checked.frames)
    assert judged.pixels <= limits.max_pixels
    assert judged.frames <= limits.max_frames
    assert {size, size[::-1]} == {(checked.width, checked.height), (checked.height, checked.width)}
    assert _decoded(checked.data) == (size, judged.frames)
    if checked.format.name == "avif":
        assert _coded_sizes(checked.data) <= {size}
    return checked


def _decoded(data: bytes) -> tuple[tuple[int, int], int]:
    """The largest width and height of all frames, and how many there are until a decoder has no more."""
    width = height = frames = 0
    with Image.open(BytesIO(data)) as image:
        # Of several pictures in a JPEG the first one counts.
        last = 1 if image.format in ("JPEG", "MPO") else 10_000
        while frames < last:
            try:
                image.seek(frames)
            except EOFError:
                break
            image.load()
            width, height = max(width, image.width), max(height, image.height)
            frames += 1
    return (width, height), frames


def _coded_sizes(data: bytes) -> set[tuple[int, int]]:
    """Sizes in the first sequence header of the colour track, or of the primary item if it is not derived."""
    if data[8:12] == b"avis":
        at = data.index(b"stco") + 12
        return {said_size(data[struct.unpack_from(">I", data, at)[0] :])}
    if b"grid" in data:
        return set()
    (primary,) = struct.unpack_from(">H", data, data.index(b"pitm") + 8)
    start = _item_start(data, primary)
    return {said_size(data[start:])} if start is not None else set()


def _item_start(data: bytes, wanted: int) -> int | None:
    """First byte of an item, by a table of places as libavif writes it; None for another form of table."""
    at = data.index(b"iloc") + 4
    version, fields, items = struct.unpack_from(">B3xHH", data, at)
    if version > 1 or fields & 0xFFF0 not in (0x4400, 0x4440) or b"idat" in data:
        return None
    at += 8
    for _ in range(items):
        number, pieces = struct.unpack_from(">H", data, at)[0], at + 4 + 2 * version
        base = struct.unpack_from(">I", data, pieces)[0] if fields & 0xF0 else 0
        pieces += fields >> 4 & 15
        count, first = struct.unpack_from(">HI", data, pieces)
        if number == wanted:
            return int(base + first)
        at = pieces + 2 + 8 * count
    return None
