"""Boxes of the ISO base media file format (ISO/IEC 14496-12, 4.2) and the tables that tell of items.

All that is walked over is counted, so that no file of empty boxes or entries takes long.
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


def item_types(data: bytes | bytearray, iinf: Box, count: PartCount) -> Iterator[tuple[int, bytes]]:
    """Number and type of every item (8.11.6)."""
    reader = ByteReader(data, iinf.body, iinf.end)
    reader.take(4 if reader.big(4) >> 24 else 2)
    for entry in boxes(data, reader.position, iinf.end, count):
        info = ByteReader(data, entry.body, entry.end)
        version = info.big(4) >> 24
        number, _protection = info.big(2 if version < 3 else 4), info.big(2)
        yield number, info.take(4)


def thumbnails(data: bytes | bytearray, iref: Box, count: PartCount) -> Iterator[int]:
    """Numbers of the items that are thumbnails of others (8.11.12; ISO/IEC 23008-12, 6.6.2)."""
    width = 4 if data[iref.body] else 2
    for reference in boxes(data, iref.body + 4, iref.end, count):
        if reference.kind == b"thmb":
            yield ByteReader(data, reference.body, reference.end).big(width)


def extents(data: bytes | bytearray, iloc: Box, count: PartCount) -> Iterator[Extent]:
    """Where every item lies, piece by piece (8.11.3)."""
    reader = ByteReader(data, iloc.body, iloc.end)
    version = reader.big(4) >> 24
    sizes = reader.big(2)
    offset_size, length_size, base_size, index_size = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    wide = 4 if version == 2 else 2
    for _ in count.bounded(range(reader.big(wide))):
        number = reader.big(wide)
        method = reader.big(2) & 15 if version else 0
        reader.take(2)
        base = reader.big(base_size)
        for _ in count.bounded(range(reader.big(2))):
            reader.take(index_size if version else 0)
            yield Extent(number, method == 1, base + reader.big(offset_size), reader.big(length_size))
