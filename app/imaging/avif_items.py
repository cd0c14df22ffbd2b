"""The still image of an AVIF file: the items of its meta box (ISO/IEC 23008-12; ISO/IEC 14496-12, 8.11).

Boxes of the ISO base media file format (ISO/IEC 14496-12, 4.2) and the tables that describe items.

Every box and entry is counted, so that a file of empty ones does not take long. Tables that contradict
themselves are refused, since readers interpret them differently.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from app.core.errors import UndecodableImage
from app.imaging.av1 import Av1Walk
from app.imaging.survey import ByteReader, ImageLimits, PartCount, check_profile


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


MAX_DECODED = 4
"""How many times the pixels that are shown a decoder may have to decode.

Alpha doubles them, and so may the hidden frames of an animation, a preview layer of a still image, or the
cells of a grid that stick out of it; a gain map adds a part.
"""

_MAX_ITEMS = 4096
"""Items of one file; libavif looks each of them up in a list, as often as tables name it."""
_MAX_PROPERTIES = 2**20
"""Bytes of all properties of all items. libavif copies them for each item, except colour profiles."""
_MAX_REFERENCES = 4 * _MAX_ITEMS
_MAX_METADATA_TABLES = 2**14
"""Bytes of the tables of a meta box that contains only metadata; real ones have some hundreds."""
_SHARED_BYTES = 2**20
"""Bytes by which items together may exceed the file, since some of them share their bytes."""
_IGNORED = {b"Exif", b"mime", b"uri ", b"tmap"}
"""Items that are not drawn: metadata, and how to apply a gain map; the gain map itself is another item."""
_LIMITING = {b"ispe", b"av1C", b"auxC", b"a1op", b"a1lx", b"lsel"}
"""Properties that change what is decoded, so that an item may have one of each."""
_CODEC_CONFIGURATION = 4
"""Bytes of `av1C` before its AV1 units."""


class Judged(NamedTuple):
    """Width and height of a canvas in pixels, and how many frames are shown on it."""

    size: tuple[int, int]
    frames: int


def survey_items(
    data: bytes, meta: Box, media: list[Box], limits: ImageLimits, count: PartCount
) -> Judged | None:
    """Check the size of every AV1 item in the file, and return that of the primary item.

    Return None if the box names no primary item, as in some animations. Raises UndecodableImage if an item's
    bitstream has another size than its properties, or if the tables contradict themselves; TooManyPixels.
    """
    children = list(boxes(data, meta.body + 4, meta.end, count))
    pitm = only(children, b"pitm")
    if pitm is None:
        check_metadata(children)
        return None
    items = _Items(data, children, media, limits, count)
    primary = ByteReader(data, pitm.body + 4, pitm.end).big(4 if data[pitm.body] else 2)
    size, shown = items.shown(primary)
    decoded = sum(items.decoded(number) for number, kind in items.kinds.items() if kind == b"av01")
    if decoded > MAX_DECODED * shown:
        raise UndecodableImage(detail=f"{decoded} pixels to decode for {shown}")
    for number, kind in items.kinds.items():
        if kind == b"grid":
            items.shown(number)
    return Judged(size, 1)


def check_metadata(children: list[Box]) -> None:
    """Raise UndecodableImage if a meta box that shows no image has larger tables than any real one."""
    if sum(box.end - box.start for box in children if box.kind != b"idat") > _MAX_METADATA_TABLES:
        raise UndecodableImage(detail="large tables of metadata")


def check_units(data: bytes, av1c: Box, size: tuple[int, int], count: PartCount) -> None:
    """Raise UndecodableImage if the units in the codec configuration are for frames of another size."""
    walk = Av1Walk(count)
    walk.read(data, min(av1c.body + _CODEC_CONFIGURATION, av1c.end), av1c.end)
    if walk.size not in (None, size):
        raise UndecodableImage(detail=f"av1C is for {walk.size}, not {size}")


def within(media: list[Box], start: int, length: int) -> bool:
    """Return whether these bytes, at least one, lie in the payload of one of `media`, boxes in order."""
    before = bisect_right(media, start, key=lambda box: box.body)
    return length > 0 and before > 0 and start + length <= media[before - 1].end


class _Items:
    """The tables of a meta box; `kinds` maps the numbers of items that may be drawn to their types."""

    def __init__(
        self, data: bytes, children: list[Box], media: list[Box], limits: ImageLimits, count: PartCount
    ) -> None:
        self._data, self._limits, self._count = data, limits, count
        self._media = media
        self._idat = [box for box in [only(children, b"idat")] if box]
        types = self._read_types(needed(children, b"iinf"))
        self._cells, thumbnails = self._read_references(only(children, b"iref"), types)
        # No decoder shows a thumbnail in place of the image.
        self.kinds = {
            number: types[number] for number in types.keys() - thumbnails if types[number] not in _IGNORED
        }
        if unknown := {*self.kinds.values()} - {b"av01", b"grid"}:
            raise UndecodableImage(detail=f"items of types {unknown}")
        self._extents = self._read_extents(needed(children, b"iloc"), types)
        self._properties = self._read_properties(needed(children, b"iprp"))
        if not types.keys() >= self._properties.keys():
            raise UndecodableImage(detail="properties of items that are not there")

    def _read_types(self, iinf: Box) -> dict[int, bytes]:
        found = list(item_types(self._data, iinf, self._count))
        types = dict(found)
        if len(types) < len(found) or len(types) > _MAX_ITEMS or 0 in types:
            raise UndecodableImage(detail=f"{len(found)} items of {len(types)} numbers")
        return types

    def _read_references(
        self, iref: Box | None, types: dict[int, bytes]
    ) -> tuple[dict[int, tuple[int, ...]], set[int]]:
        """Return the cells of each derived item, by its number, and the items that are only thumbnails."""
        found = list(references(self._data, iref, self._count)) if iref else []
        named = [number for each in found for number in (each.source, *each.targets)]
        if len(named) > _MAX_REFERENCES or not types.keys() >= {*named}:
            raise UndecodableImage(detail=f"{len(named)} references, or to items that are not there")
        made = [each for each in found if each.kind == b"dimg"]
        sources = {each.source: each.targets for each in made}
        if len(sources) < len(made):
            raise UndecodableImage(detail="an item that is made from two lists")
        cells = {number for targets in sources.values() for number in targets}
        auxiliary = {each.source for each in found if each.kind == b"auxl"}
        thumbnails = {each.source for each in found if each.kind == b"thmb" and each.targets}
        return sources, thumbnails - cells - auxiliary

    def _read_extents(self, iloc: Box, types: dict[int, bytes]) -> dict[int, list[Extent]]:
        """Return the extents of each item. All together they may have about as many bytes as the file.

        Encoders store equal cells of a grid once, so extents of several items may overlap.
        """
        found: dict[int, list[Extent]] = defaultdict(list)
        budget = len(self._data) + _SHARED_BYTES
        for extent in extents(self._data, iloc, self._count):
            found[extent.item].append(extent)
            budget -= extent.length
        if budget < 0 or not types.keys() >= found.keys():
            raise UndecodableImage(detail="items that share too much, or that are not there")
        return found

    def _read_properties(self, iprp: Box) -> dict[int, dict[bytes, Box]]:
        """Return the properties of each item by type (8.11.14)."""
        ipco, *tables = boxes(self._data, iprp.body, iprp.end, self._count)
        if ipco.kind != b"ipco" or {table.kind for table in tables} != {b"ipma"}:
            raise UndecodableImage(detail="invalid boxes of properties")
        properties = list(boxes(self._data, ipco.body, ipco.end, self._count))
        for box in properties:
            check_profile((box.end - box.start) * (box.kind == b"colr"))
        found: dict[int, dict[bytes, Box]] = {}
        budget = _MAX_PROPERTIES
        for table in tables:
            for number, indexes in associations(self._data, table, self._count):
                if number in found or any(index > len(properties) for index in indexes):
                    raise UndecodableImage(
                        detail=f"item {number} has properties twice, or that are not there"
                    )
                named = [properties[index - 1] for index in indexes]
                budget -= sum(box.end - box.start for box in named if box.kind != b"colr")
                found[number] = {box.kind: box for box in named}
                for kind in _LIMITING:
                    only(named, kind)
        if budget < 0:
            raise UndecodableImage(detail="properties that are named again and again")
        return found

    def _property(self, number: int, kind: bytes) -> Box:
        found = self._properties.get(number, {}).get(kind)
        if found is None:
            raise UndecodableImage(detail=f"item {number} has no {kind!r}")
        return found

    def _size(self, number: int) -> tuple[int, int]:
        """Return the size in `ispe` (23008-12, 6.5.3) after checking it against the limits."""
        ispe = self._property(number, b"ispe")
        reader = ByteReader(self._data, ispe.body + 4, ispe.end)
        size = reader.big(4), reader.big(4)
        self._limits.check(size, 1)
        return size

    def shown(self, number: int) -> tuple[tuple[int, int], int]:
        """Return an item's size and the pixels it is made from: its own, or those of all cells of a grid."""
        size, kind = self._size(number), self.kinds.get(number)
        if kind == b"grid":
            return size, self._grid_pixels(number, size)
        if kind != b"av01":
            raise UndecodableImage(detail=f"item {number} is not an image")
        return size, size[0] * size[1]

    def _grid_pixels(self, number: int, canvas: tuple[int, int]) -> int:
        """Return the pixels of all cells of a grid (23008-12, 6.6.2.3).

        Raises UndecodableImage unless all cells have one size, cover the canvas, and begin on it.
        """
        grid = ByteReader(self._payload(number))
        wide = 4 if grid.big(2) & 1 else 2
        rows, columns, size = grid.big(1) + 1, grid.big(1) + 1, (grid.big(wide), grid.big(wide))
        cells = self._cells.get(number, ())
        if size != canvas or grid.left or len({*cells}) != len(cells) or len(cells) != rows * columns:
            raise UndecodableImage(
                detail=f"grid of {len(cells)} cells, {rows} × {columns}, {size} in {canvas}"
            )
        if any(self.kinds.get(cell) != b"av01" for cell in cells):
            raise UndecodableImage(detail="a cell that is not AV1")
        (width, height), *others = {self._size(cell) for cell in cells}
        covers = (columns - 1) * width < canvas[0] <= columns * width
        covers = covers and (rows - 1) * height < canvas[1] <= rows * height
        if others or not covers:
            raise UndecodableImage(detail=f"cells of {width} × {height} and {others} on {canvas}")
        self._limits.check((columns * width, rows * height), 1)
        return rows * columns * width * height

    def decoded(self, number: int) -> int:
        """Return the pixels of all frames in an AV1 item, hidden ones and layers included."""
        size = self._size(number)
        check_units(self._data, self._property(number, b"av1C"), size, self._count)
        walk, payload = Av1Walk(self._count), self._payload(number)
        walk.read(payload, 0, len(payload))
        if walk.size != size or not walk.frames:
            raise UndecodableImage(detail=f"item {number} of {size} has {walk.frames} frames of {walk.size}")
        return walk.pixels

    def _payload(self, number: int) -> bytes:
        """Return an item's bytes. Raises UndecodableImage if pieces overlap or lie outside of media data."""
        idat = self._idat[0].body if self._idat else 0
        pieces = []
        for extent in self._extents.get(number, ()):
            start = extent.offset + idat * extent.in_idat
            if not within(self._idat if extent.in_idat else self._media, start, extent.length):
                raise UndecodableImage(detail=f"item {number} lies outside of media data")
            pieces.append((start, start + extent.length))
        check_apart(pieces)
        return b"".join(self._data[start:end] for start, end in pieces)


def check_apart(pieces: Iterable[tuple[int, int]]) -> None:
    """Raise UndecodableImage if some of these pieces, from a byte to a byte, overlap."""
    last = 0
    for start, end in sorted(pieces):
        if start < last:
            raise UndecodableImage(detail=f"pieces that overlap at {start}")
        last = end
