"""Find the size of an accepted image independently, and compare it with the declared size."""

import struct
import time
from io import BytesIO

from PIL import Image

from app.imaging.check import CheckedImage, check_image, clean_image
from app.imaging.survey import ImageLimits
from tests.imaging.av1_bits import declared_size

MAX_CPU_SECONDS = 20
"""Maximum time to decode an image of a million pixels. It usually takes a fraction of a second."""


def assert_decodes_as_declared(data: bytes, limits: ImageLimits) -> CheckedImage:
    """Check the image, and assert that all frames of the result have the size that the container declares.

    Raises what `check_image` raises if the image is refused.
    """
    started = time.process_time()
    checked = check_image(data, limits)
    assert time.process_time() - started < MAX_CPU_SECONDS
    declared = clean_image(checked.data, limits)
    size = declared.width, declared.height
    assert (declared.data, declared.frames) == (checked.data, checked.frames)
    assert declared.pixels <= limits.max_pixels
    assert declared.frames <= limits.max_frames
    assert {size, size[::-1]} == {(checked.width, checked.height), (checked.height, checked.width)}
    assert _decoded(checked.data) == (size, declared.frames)
    if checked.format.name == "avif":
        assert _coded_sizes(checked.data) <= {size}
    return checked


def _decoded(data: bytes) -> tuple[tuple[int, int], int]:
    """Return the largest width and height of all frames, and the number of frames that Pillow decodes."""
    width = height = frames = 0
    with Image.open(BytesIO(data)) as image:
        # Only the first picture in a JPEG file counts.
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
    """Return the size in the first sequence header of the colour track or primary item, if there is one."""
    if data[8:12] == b"avis":
        table = _payload(data, b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stco")
        return {declared_size(data[struct.unpack_from(">I", table, 8)[0] :])} if table else set()
    pitm, iloc = (_payload(data, b"meta", kind) for kind in (b"pitm", b"iloc"))
    # A derived item has no bitstream. The offsets of an item in idat count from the start of idat.
    if b"grid" in data or b"idat" in data or not (pitm and iloc):
        return set()
    start = _item_start(iloc, struct.unpack_from(">H", pitm, 4)[0])
    if start is None:
        return set()
    return {declared_size(data[start:])}


def _payload(data: bytes, *path: bytes) -> bytes:
    """Return the payload of the first box at this path of box types, or no bytes if there is none."""
    for kind in path:
        while data and data[4:8] != kind:
            data = data[max(8, struct.unpack_from(">I", data)[0]) :]
        length = struct.unpack_from(">I", data)[0] if data else 0
        data = data[8 + 4 * (kind == b"meta") : length]
    return data


def _item_start(iloc: bytes, wanted: int) -> int | None:
    """Return the offset of an item in an iloc table as written by libavif, or None for other tables."""
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
