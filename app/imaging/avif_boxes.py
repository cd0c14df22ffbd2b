"""Boxes of the ISO base media file format (ISO/IEC 14496-12, 4.2), and the tables that describe items (8.11).

Every box and every table entry is counted, so that it can't take long to parse a file full of empty ones.
Inconsistent tables are refused, since different readers interpret them differently.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from app.core.errors import UndecodableImage
from app.imaging.survey import ByteReader, PartCounter


class Box(NamedTuple):
    """One box. `start`, `body` and `end` are offsets in the file, in bytes. The payload begins at `body`."""

    kind: bytes
    start: int
    body: int
    end: int

    @property
    def size(self) -> int:
        """Return the size of the box in bytes, including its header."""
        return self.end - self.start


class Extent(NamedTuple):
    """One piece of the data of an item in a meta box.

    `offset` and `length` are in bytes. The offset counts from the start of the file, or of the payload of the
    idat box if `in_idat` is true.
    """

    item: int
    in_idat: bool
    offset: int
    length: int


class Reference(NamedTuple):
    """A reference from one item of a meta box to other items. Items are identified by their numbers."""

    kind: bytes
    source: int
    targets: tuple[int, ...]


class Canvas(NamedTuple):
    """The width and height in pixels of the image that viewers show, and its number of frames."""

    size: tuple[int, int]
    frames: int


def boxes(data: bytes | bytearray, start: int, end: int, counter: PartCounter) -> Iterator[Box]:
    """Yield the boxes that fill `data[start:end]`. Raises UndecodableImage if a box ends after `end`.

    A box of size 0 extends to the end of the file. Such a box is refused, too, since the file may have been
    truncated within it.
    """
    while start < end:
        counter.add()
        reader = ByteReader(data, start, end)
        size, kind = reader.uint_be(4), reader.read(4)
        size = reader.uint_be(8) if size == 1 else size
        box = Box(kind, start, reader.position, start + size)
        if not box.body <= box.end <= end:
            raise UndecodableImage(detail=f"box {kind!r} at {start} has size {size}")
        yield box
        start = box.end


def only(found: list[Box], *kinds: bytes) -> Box | None:
    """Return the only box of these kinds, or None if there is none.

    Raises UndecodableImage if there are several.
    """
    of_kind = [box for box in found if box.kind in kinds]
    if len(of_kind) > 1:
        raise UndecodableImage(detail=f"{len(of_kind)} boxes {kinds}")
    return of_kind[0] if of_kind else None


def required(found: list[Box], *kinds: bytes) -> Box:
    """Return the only box of these kinds. Raises UndecodableImage if there are none or several."""
    box = only(found, *kinds)
    if box is None:
        raise UndecodableImage(detail=f"no box {kinds}")
    return box


def within(media: list[Box], start: int, length: int) -> bool:
    """Return whether the `length` bytes at `start` lie within the payload of one box in `media`.

    Return False if `length` is 0. The boxes in `media` must be in the order of the file.
    """
    before = bisect_right(media, start, key=lambda box: box.body)
    return length > 0 and before > 0 and start + length <= media[before - 1].end


def check_no_overlap(pieces: Iterable[tuple[int, int]]) -> None:
    """Raise UndecodableImage if any two of these pieces, given as (start, end), overlap."""
    last = 0
    for start, end in sorted(pieces):
        if start < last:
            raise UndecodableImage(detail=f"pieces that overlap at {start}")
        last = end


def item_types(data: bytes | bytearray, iinf: Box, counter: PartCounter) -> Iterator[tuple[int, bytes]]:
    """Yield the number and type of every item (8.11.6).

    Raises UndecodableImage if the number of entries differs from the number that the table declares.
    """
    reader = ByteReader(data, iinf.body, iinf.end)
    announced = reader.uint_be(4 if reader.uint_be(4) >> 24 else 2)
    found = 0
    for entry in boxes(data, reader.position, iinf.end, counter):
        info = ByteReader(data, entry.body, entry.end)
        version = info.uint_be(4) >> 24
        if entry.kind != b"infe" or version not in (2, 3):
            raise UndecodableImage(detail=f"{entry.kind!r} of version {version} among the items")
        number, _protection = info.uint_be(2 if version == 2 else 4), info.uint_be(2)
        found += 1
        yield number, info.read(4)
    if found != announced:
        raise UndecodableImage(detail=f"iinf announces {announced} items and has {found}")


def references(data: bytes | bytearray, iref: Box, counter: PartCounter) -> Iterator[Reference]:
    """Yield every reference between items (8.11.12)."""
    version = data[iref.body]
    width = 4 if version else 2
    if version > 1:
        raise UndecodableImage(detail=f"iref of version {version}")
    for box in boxes(data, iref.body + 4, iref.end, counter):
        reader = ByteReader(data, box.body, box.end)
        source = reader.uint_be(width)
        targets = tuple(reader.uint_be(width) for _ in counter.counted(range(reader.uint_be(2))))
        yield Reference(box.kind, source, targets)


def extents(data: bytes | bytearray, iloc: Box, counter: PartCounter) -> Iterator[Extent]:
    """Yield the extents of every item (8.11.3).

    Raises UndecodableImage if an extent is stored in another file or in another item.
    """
    reader = ByteReader(data, iloc.body, iloc.end)
    version = reader.uint_be(4) >> 24
    sizes = reader.uint_be(2)
    offset_size, length_size, base_size, index_size = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    if version > 2 or {offset_size, length_size, base_size, index_size} - {0, 4, 8}:
        raise UndecodableImage(detail=f"iloc of version {version} with fields of {sizes:04x}")
    width = 4 if version == 2 else 2
    for _ in counter.counted(range(reader.uint_be(width))):
        number = reader.uint_be(width)
        method = reader.uint_be(2) if version else 0
        if method > 1 or reader.uint_be(2):
            raise UndecodableImage(detail=f"item {number} lies elsewhere")
        base = reader.uint_be(base_size)
        for _ in counter.counted(range(reader.uint_be(2))):
            reader.skip(index_size if version else 0)
            offset, length = base + reader.uint_be(offset_size), reader.uint_be(length_size)
            yield Extent(number, method == 1, offset, length)


def associations(data: bytes | bytearray, ipma: Box, counter: PartCounter) -> Iterator[tuple[int, list[int]]]:
    """Yield the number of every item and the indexes of its properties, starting from 1 (8.11.14)."""
    reader = ByteReader(data, ipma.body, ipma.end)
    version_and_flags = reader.uint_be(4)
    version, wide_indexes = version_and_flags >> 24, version_and_flags & 1
    if version > 1:
        raise UndecodableImage(detail=f"ipma of version {version}")
    for _ in counter.counted(range(reader.uint_be(4))):
        number = reader.uint_be(4 if version else 2)
        # The highest bit says only whether a reader must support the property.
        indexes = [
            reader.uint_be(1 + wide_indexes) & (0x7FFF if wide_indexes else 0x7F)
            for _ in counter.counted(range(reader.uint_be(1)))
        ]
        yield number, [index for index in indexes if index]
