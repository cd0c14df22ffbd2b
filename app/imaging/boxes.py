"""Boxes of the ISO base media file format (ISO/IEC 14496-12, 4.2) and the tables that describe items.

Every box and entry is counted, so that a file of empty ones does not take long. Tables that contradict
themselves are refused, since readers interpret them differently.
"""

from collections.abc import Iterator
from typing import NamedTuple

from app.errors import UndecodableImage
from app.imaging.bytereader import ByteReader
from app.imaging.survey import PartCount


class Box(NamedTuple):
    """One box; offsets in bytes from the beginning of the file."""

    kind: bytes
    start: int
    body: int
    end: int


class Extent(NamedTuple):
    """One piece of an item of a meta box, in bytes from the beginning of the file or of the idat box."""

    item: int
    in_idat: bool
    offset: int
    length: int


class Reference(NamedTuple):
    """One reference from an item of a meta box to others, which are named by their numbers."""

    kind: bytes
    source: int
    targets: tuple[int, ...]


def boxes(data: bytes | bytearray, start: int, end: int, count: PartCount) -> Iterator[Box]:
    """The boxes that fill `data[start:end]`; raises UndecodableImage where one sticks out.

    A size of zero, "to the end of the file", is refused too: nothing says where such a file ends.
    """
    while start < end:
        count.add()
        reader = ByteReader(data, start, end)
        size, kind = reader.big(4), reader.take(4)
        size = reader.big(8) if size == 1 else size
        box = Box(kind, start, reader.position, start + size)
        if not box.body <= box.end <= end:
            raise UndecodableImage(detail=f"box {kind!r} at {start} has size {size}")
        yield box
        start = box.end


def only(found: list[Box], *kinds: bytes) -> Box | None:
    """Return the only box of these kinds, or None; raises UndecodableImage if there are several."""
    of_kind = [box for box in found if box.kind in kinds]
    if len(of_kind) > 1:
        raise UndecodableImage(detail=f"{len(of_kind)} boxes {kinds}")
    return of_kind[0] if of_kind else None


def needed(found: list[Box], *kinds: bytes) -> Box:
    """Return the only box of these kinds; raises UndecodableImage if there is none or several."""
    box = only(found, *kinds)
    if box is None:
        raise UndecodableImage(detail=f"no box {kinds}")
    return box


def item_types(data: bytes | bytearray, iinf: Box, count: PartCount) -> Iterator[tuple[int, bytes]]:
    """Number and type of every item (8.11.6); raises UndecodableImage if the table counts them wrongly."""
    reader = ByteReader(data, iinf.body, iinf.end)
    announced = reader.big(4 if reader.big(4) >> 24 else 2)
    found = 0
    for entry in boxes(data, reader.position, iinf.end, count):
        info = ByteReader(data, entry.body, entry.end)
        version = info.big(4) >> 24
        if entry.kind != b"infe" or version not in (2, 3):
            raise UndecodableImage(detail=f"{entry.kind!r} of version {version} among the items")
        number, _protection = info.big(2 if version == 2 else 4), info.big(2)
        found += 1
        yield number, info.take(4)
    if found != announced:
        raise UndecodableImage(detail=f"iinf announces {announced} items and has {found}")


def references(data: bytes | bytearray, iref: Box, count: PartCount) -> Iterator[Reference]:
    """Every reference between items (8.11.12)."""
    version = data[iref.body]
    width = 4 if version else 2
    if version > 1:
        raise UndecodableImage(detail=f"iref of version {version}")
    for box in boxes(data, iref.body + 4, iref.end, count):
        reader = ByteReader(data, box.body, box.end)
        source = reader.big(width)
        targets = tuple(reader.big(width) for _ in count.bounded(range(reader.big(2))))
        yield Reference(box.kind, source, targets)


def extents(data: bytes | bytearray, iloc: Box, count: PartCount) -> Iterator[Extent]:
    """Where every item lies, piece by piece (8.11.3).

    Raises UndecodableImage if one lies in another file, or in another item.
    """
    reader = ByteReader(data, iloc.body, iloc.end)
    version = reader.big(4) >> 24
    sizes = reader.big(2)
    offset_size, length_size, base_size, index_size = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    if version > 2 or {offset_size, length_size, base_size, index_size} - {0, 4, 8}:
        raise UndecodableImage(detail=f"iloc of version {version} with fields of {sizes:04x}")
    wide = 4 if version == 2 else 2
    for _ in count.bounded(range(reader.big(wide))):
        number = reader.big(wide)
        method = reader.big(2) if version else 0
        if method > 1 or reader.big(2):
            raise UndecodableImage(detail=f"item {number} lies elsewhere")
        base = reader.big(base_size)
        for _ in count.bounded(range(reader.big(2))):
            reader.skip(index_size if version else 0)
            yield Extent(number, method == 1, base + reader.big(offset_size), reader.big(length_size))


def associations(data: bytes | bytearray, ipma: Box, count: PartCount) -> Iterator[tuple[int, list[int]]]:
    """Number of every item with those of its properties, counted from 1 (8.11.14)."""
    reader = ByteReader(data, ipma.body, ipma.end)
    version_and_flags = reader.big(4)
    wide, width = version_and_flags >> 24, version_and_flags & 1
    if wide > 1:
        raise UndecodableImage(detail=f"ipma of version {wide}")
    for _ in count.bounded(range(reader.big(4))):
        number = reader.big(4 if wide else 2)
        # The highest bit says only if a reader has to know the property.
        named = [
            reader.big(1 + width) & (0x7FFF if width else 0x7F) for _ in count.bounded(range(reader.big(1)))
        ]
        yield number, [index for index in named if index]
