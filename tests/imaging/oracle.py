"""Finds by other means how large an accepted image is, and compares with what it was judged to be."""

import struct
import time
from io import BytesIO

from PIL import Image

from app.imaging.check import CheckedImage, check_image, clean_image
from app.imaging.survey import ImageLimits
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
        table = _payload(data, b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stco")
        return {said_size(data[struct.unpack_from(">I", table, 8)[0] :])} if table else set()
    pitm, iloc = (_payload(data, b"meta", kind) for kind in (b"pitm", b"iloc"))
    # A derived item has no bitstream, and one in the meta box lies elsewhere.
    if b"grid" in data or b"idat" in data or not (pitm and iloc):
        return set()
    start = _item_start(iloc, struct.unpack_from(">H", pitm, 4)[0])
    if start is None:
        return set()
    return {said_size(data[start:])}


def _payload(data: bytes, *path: bytes) -> bytes:
    """What is in the first box of this kind in the first one of the kind before; nothing if there is none."""
    for kind in path:
        while data and data[4:8] != kind:
            data = data[max(8, struct.unpack_from(">I", data)[0]) :]
        length = struct.unpack_from(">I", data)[0] if data else 0
        data = data[8 + 4 * (kind == b"meta") : length]
    return data


def _item_start(iloc: bytes, wanted: int) -> int | None:
    """First byte of an item, by a table of places as libavif writes it; None for another form of table."""
    version, fields, items = struct.unpack_from(">B3xHH", iloc)
    if version > 1 or fields & 0xFF00 != 0x4400 or fields >> 4 & 15 not in (0, 4):
        return None
    at, base_size = 8, fields >> 4 & 15
    for _ in range(items):
        number, pieces = struct.unpack_from(">H", iloc, at)[0], at + 4 + 2 * version
        base = struct.unpack_from(">I", iloc, pieces)[0] if base_size else 0
        pieces += base_size
        count, first = struct.unpack_from(">HI", iloc, pieces)
        if number == wanted:
            return int(base + first)
        at = pieces + 2 + 8 * count
    return None
