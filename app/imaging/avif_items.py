"""The still image of an AVIF file: the items of its meta box (ISO/IEC 23008-12; ISO/IEC 14496-12, 8.11)."""

from collections import defaultdict

from app.core.errors import UndecodableImage
from app.imaging.av1 import Av1Parser
from app.imaging.avif_boxes import (
    Box,
    Canvas,
    Extent,
    associations,
    boxes,
    check_no_overlap,
    extents,
    item_types,
    only,
    references,
    required,
    within,
)
from app.imaging.survey import ByteReader, ImageLimits, PartCounter, check_profile_size

MAX_DECODED_RATIO = 4
"""Maximum ratio of the pixels that a decoder has to decode to the pixels that are shown.

An alpha channel doubles the decoded pixels. The hidden frames of an animation, a preview layer of a still
image, or grid cells that extend beyond the canvas may double them, too. A gain map adds a fraction.
"""

_MAX_ITEMS = 4096
"""Maximum number of items in a file. libavif searches the list of items each time a table refers to an
item."""
_MAX_PROPERTY_BYTES = 2**20
"""Maximum total size of the properties of all items, except colour profiles. A property that several items
share is counted once for each of them, because libavif copies it for each item."""
_MAX_REFERENCES = 4 * _MAX_ITEMS
_MAX_METADATA_TABLE_BYTES = 2**14
"""Maximum total size of the tables in a meta box that contains only metadata. In real files, the tables have
a few hundred bytes."""
_MAX_SHARED_BYTES = 2**20
"""How much the total size of all items may exceed the file size. Items may share bytes, for example equal
grid cells."""
_NOT_DRAWN = {b"Exif", b"mime", b"uri ", b"tmap"}
"""Types of items that are not drawn: metadata, and `tmap`, which says how to apply a gain map."""
_SINGLE_PROPERTIES = {b"ispe", b"av1C", b"auxC", b"a1op", b"a1lx", b"lsel"}
"""Types of properties that an item may have only once, since they change what is decoded."""
_CODEC_CONFIGURATION_BYTES = 4
"""Number of bytes in `av1C` before its AV1 units."""


def survey_items(
    data: bytes, meta: Box, media: list[Box], limits: ImageLimits, counter: PartCounter
) -> Canvas | None:
    """Check the size of every AV1 item in the file, and return the canvas of the primary item.

    Return None if the box has no primary item, as in some animations. Raises TooManyPixels if an item exceeds
    the limits. Raises UndecodableImage if the size in the bitstream of an item differs from the size in its
    properties, or if the tables are inconsistent.
    """
    children = list(boxes(data, meta.body + 4, meta.end, counter))
    pitm = only(children, b"pitm")
    if pitm is None:
        check_metadata_tables(children)
        return None
    items = _Items(data, children, media, limits, counter)
    primary = ByteReader(data, pitm.body + 4, pitm.end).uint_be(4 if data[pitm.body] else 2)
    size, source_pixels = items.canvas(primary)
    decoded = sum(items.decoded_pixels(number) for number, kind in items.kinds.items() if kind == b"av01")
    if decoded > MAX_DECODED_RATIO * source_pixels:
        raise UndecodableImage(detail=f"{decoded} pixels to decode for {source_pixels}")
    for number, kind in items.kinds.items():
        if kind == b"grid":
            items.canvas(number)
    return Canvas(size, 1)


def check_metadata_tables(children: list[Box]) -> None:
    """Raise UndecodableImage if a meta box without an image has tables larger than those of any real file."""
    if sum(box.size for box in children if box.kind != b"idat") > _MAX_METADATA_TABLE_BYTES:
        raise UndecodableImage(detail="large tables of metadata")


def check_codec_configuration(data: bytes, av1c: Box, size: tuple[int, int], counter: PartCounter) -> None:
    """Raise UndecodableImage if the AV1 units in the codec configuration have a size other than `size`."""
    parser = Av1Parser(counter)
    parser.read(data, min(av1c.body + _CODEC_CONFIGURATION_BYTES, av1c.end), av1c.end)
    if parser.size not in (None, size):
        raise UndecodableImage(detail=f"av1C is for {parser.size}, not {size}")


class _Items:
    """The tables of a meta box. `kinds` maps the number of each item that may be drawn to its type."""

    def __init__(
        self, data: bytes, children: list[Box], media: list[Box], limits: ImageLimits, counter: PartCounter
    ) -> None:
        self._data, self._limits, self._counter = data, limits, counter
        self._media = media
        self._idat = [box for box in [only(children, b"idat")] if box]
        types = self._read_types(required(children, b"iinf"))
        self._cells, thumbnails = self._read_references(only(children, b"iref"), types)
        # No decoder shows a thumbnail in place of the image.
        self.kinds = {
            number: types[number] for number in types.keys() - thumbnails if types[number] not in _NOT_DRAWN
        }
        if unknown := {*self.kinds.values()} - {b"av01", b"grid"}:
            raise UndecodableImage(detail=f"items of types {unknown}")
        self._extents = self._read_extents(required(children, b"iloc"), types)
        self._properties = self._read_properties(required(children, b"iprp"))
        if not types.keys() >= self._properties.keys():
            raise UndecodableImage(detail="properties of missing items")

    def _read_types(self, iinf: Box) -> dict[int, bytes]:
        found = list(item_types(self._data, iinf, self._counter))
        types = dict(found)
        if len(types) < len(found) or len(types) > _MAX_ITEMS or 0 in types:
            raise UndecodableImage(detail=f"{len(found)} items with {len(types)} different numbers")
        return types

    def _read_references(
        self, iref: Box | None, types: dict[int, bytes]
    ) -> tuple[dict[int, tuple[int, ...]], set[int]]:
        """Return a dict from the number of each derived item, such as a grid, to the numbers of the items
        that it consists of, and the set of the numbers of items that are only thumbnails.

        An item that is also a cell of another item, or auxiliary to one, is not counted as a thumbnail.
        """
        found = list(references(self._data, iref, self._counter)) if iref else []
        numbers = [number for each in found for number in (each.source, *each.targets)]
        if len(numbers) > _MAX_REFERENCES or not types.keys() >= {*numbers}:
            raise UndecodableImage(detail=f"{len(numbers)} references, or references to missing items")
        derived = [each for each in found if each.kind == b"dimg"]
        sources = {each.source: each.targets for each in derived}
        if len(sources) < len(derived):
            raise UndecodableImage(detail="an item derived from two lists")
        cells = {number for targets in sources.values() for number in targets}
        auxiliary = {each.source for each in found if each.kind == b"auxl"}
        thumbnails = {each.source for each in found if each.kind == b"thmb" and each.targets}
        return sources, thumbnails - cells - auxiliary

    def _read_extents(self, iloc: Box, types: dict[int, bytes]) -> dict[int, list[Extent]]:
        """Return a dict from the number of each item to its extents.

        Encoders store equal cells of a grid once, so extents of several items may overlap. Raises
        UndecodableImage if all extents together exceed the file size by more than `_MAX_SHARED_BYTES`.
        """
        found: dict[int, list[Extent]] = defaultdict(list)
        budget = len(self._data) + _MAX_SHARED_BYTES
        for extent in extents(self._data, iloc, self._counter):
            found[extent.item].append(extent)
            budget -= extent.length
        if budget < 0 or not types.keys() >= found.keys():
            raise UndecodableImage(detail="items that share too many bytes, or extents of missing items")
        return found

    def _read_properties(self, iprp: Box) -> dict[int, dict[bytes, Box]]:
        """Return a dict from the number of each item to a dict of its properties, keyed by type (8.11.14)."""
        ipco, *tables = boxes(self._data, iprp.body, iprp.end, self._counter)
        if ipco.kind != b"ipco" or {table.kind for table in tables} != {b"ipma"}:
            raise UndecodableImage(detail="invalid boxes of properties")
        properties = list(boxes(self._data, ipco.body, ipco.end, self._counter))
        check_profile_size(max((box.size for box in properties if box.kind == b"colr"), default=0))
        found: dict[int, dict[bytes, Box]] = {}
        budget = _MAX_PROPERTY_BYTES
        for table in tables:
            for number, indexes in associations(self._data, table, self._counter):
                if number in found or any(index > len(properties) for index in indexes):
                    detail = f"item {number} has two lists of properties, or missing properties"
                    raise UndecodableImage(detail=detail)
                own = [properties[index - 1] for index in indexes]
                budget -= sum(box.size for box in own if box.kind != b"colr")
                found[number] = {box.kind: box for box in own}
                for kind in _SINGLE_PROPERTIES:
                    only(own, kind)
        if budget < 0:
            raise UndecodableImage(detail="too many items share the same properties")
        return found

    def _property(self, number: int, kind: bytes) -> Box:
        found = self._properties.get(number, {}).get(kind)
        if found is None:
            raise UndecodableImage(detail=f"item {number} has no property {kind!r}")
        return found

    def _size(self, number: int) -> tuple[int, int]:
        """Return the width and height in `ispe` (23008-12, 6.5.3), after checking them against the limits."""
        ispe = self._property(number, b"ispe")
        reader = ByteReader(self._data, ispe.body + 4, ispe.end)
        size = reader.uint_be(4), reader.uint_be(4)
        self._limits.check(size, 1)
        return size

    def canvas(self, number: int) -> tuple[tuple[int, int], int]:
        """Return the width and height of an item, and its number of source pixels.

        The source pixels of a grid are the pixels of all its cells.
        """
        size, kind = self._size(number), self.kinds.get(number)
        if kind == b"grid":
            return size, self._grid_pixels(number, size)
        if kind != b"av01":
            raise UndecodableImage(detail=f"item {number} is not an image")
        return size, size[0] * size[1]

    def _grid_pixels(self, number: int, canvas: tuple[int, int]) -> int:
        """Return the total number of pixels in all cells of a grid (23008-12, 6.6.2.3).

        Raises UndecodableImage unless all cells have the same size, each cell begins inside the canvas, and
        all cells together cover the canvas.
        """
        grid = ByteReader(self._payload(number))
        field = 4 if grid.uint_be(2) & 1 else 2
        rows, columns = grid.uint_be(1) + 1, grid.uint_be(1) + 1
        size = grid.uint_be(field), grid.uint_be(field)
        cells = self._cells.get(number, ())
        if size != canvas or grid.remaining or len({*cells}) != len(cells) or len(cells) != rows * columns:
            detail = f"grid of {len(cells)} cells, {rows} × {columns}, {size} in {canvas}"
            raise UndecodableImage(detail=detail)
        if any(self.kinds.get(cell) != b"av01" for cell in cells):
            raise UndecodableImage(detail="a cell that is not AV1")
        (width, height), *others = {self._size(cell) for cell in cells}
        covers = (columns - 1) * width < canvas[0] <= columns * width
        covers = covers and (rows - 1) * height < canvas[1] <= rows * height
        if others or not covers:
            raise UndecodableImage(detail=f"cells of {width} × {height} and {others} on {canvas}")
        self._limits.check((columns * width, rows * height), 1)
        return rows * columns * width * height

    def decoded_pixels(self, number: int) -> int:
        """Return the number of pixels in all frames of an AV1 item, including hidden frames and layers."""
        size = self._size(number)
        check_codec_configuration(self._data, self._property(number, b"av1C"), size, self._counter)
        parser, payload = Av1Parser(self._counter), self._payload(number)
        parser.read(payload, 0, len(payload))
        if parser.size != size or not parser.frames:
            detail = f"item {number} of {size} has {parser.frames} frames of {parser.size}"
            raise UndecodableImage(detail=detail)
        return parser.pixels

    def _payload(self, number: int) -> bytes:
        """Return the bytes of an item.

        Raises UndecodableImage if its pieces overlap or lie outside media data.
        """
        idat = self._idat[0].body if self._idat else 0
        pieces = []
        for extent in self._extents.get(number, ()):
            start = extent.offset + idat * extent.in_idat
            if not within(self._idat if extent.in_idat else self._media, start, extent.length):
                raise UndecodableImage(detail=f"item {number} lies outside media data")
            pieces.append((start, start + extent.length))
        check_no_overlap(pieces)
        return b"".join(self._data[start:end] for start, end in pieces)
