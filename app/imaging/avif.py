"""AVIF (AV1 Image File Format, based on ISO/IEC 23008-12): survey a file, and blank its metadata.

Metadata is overwritten in place: offsets count from the start of the file, so nothing may move.
"""

from bisect import bisect_right

from app.core.errors import UndecodableImage
from app.imaging.avif_boxes import Box, Canvas, boxes, extents, item_types, only, references, required
from app.imaging.avif_items import survey_items
from app.imaging.avif_tracks import survey_tracks
from app.imaging.survey import ImageLimits, PartCounter, Survey

_REQUIRED = {b"ftyp", b"meta", b"moov", b"mdat"}
_CONTAINERS = {b"moov": 0, b"trak": 0, b"mdia": 0, b"meta": 4, b"iprp": 0, b"ipco": 0}
"""Boxes that contain boxes, with the number of bytes before the first of them."""
_METADATA_BOXES = {b"udta", b"uuid", b"free", b"skip", b"udes", b"altt", b"crtt", b"mdft"}
_METADATA_ITEMS = {b"Exif", b"mime", b"uri "}
_BOXES_WITH_TIMES = {b"mvhd", b"tkhd", b"mdhd"}
_EMPTY_EXIF = b"\0\0\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"
"""An offset to the TIFF header that follows, and a TIFF file with no entries.

Zeros alone are not valid EXIF, and some decoders refuse the whole image for that.
"""


def survey_avif(data: bytes, limits: ImageLimits) -> Survey:
    """Parse the boxes and the AV1 in them, as far as a decoder may read.

    Raises TooManyPixels, and UndecodableImage if something is truncated, if the size of the AV1 differs from
    that in the boxes, or if the file is ambiguous. Orientation is in the `irot` and `imir` properties, which
    every browser follows and which are kept.
    """
    counter = PartCounter()
    if any(box.kind == b"moof" for box in top_level(data, counter)):
        raise UndecodableImage(detail="a fragmented animation")
    clean = without_metadata(data, counter)
    size, frames = _shown_canvas(clean if limits.strip_metadata else data, limits)
    return Survey(clean, *size, frames=frames)


def _shown_canvas(data: bytes, limits: ImageLimits) -> Canvas:
    """Return the canvas that is shown of a file.

    The file may have a still image and an animation. Both are checked; the major brand says which is shown.
    """
    counter = PartCounter()
    found = top_level(data, counter)
    media = [box for box in found if box.kind == b"mdat"]
    still, animation = only(found, b"meta"), only(found, b"moov")
    ftyp = required(found, b"ftyp")
    canvases = {
        b"avif": still and survey_items(data, still, media, limits, counter),
        b"avis": animation and survey_tracks(data, animation, media, limits, counter),
    }
    brand = data[ftyp.body : ftyp.body + 4]
    shown = canvases[brand] if brand in canvases else canvases[b"avis"] or canvases[b"avif"]
    if shown is None:
        raise UndecodableImage(detail=f"nothing to show in a file of brand {brand!r}")
    return shown


def top_level(data: bytes, counter: PartCounter) -> list[Box]:
    """Return the boxes of the file up to the first bytes that are not a complete box.

    Bytes from there on are not part of the image; raises UndecodableImage if they begin a required box.
    """
    found: list[Box] = []
    try:
        for box in boxes(data, 0, len(data), counter):
            found.append(box)
    except UndecodableImage:
        tail = found[-1].end if found else 0
        if data[tail + 4 : tail + 8] in _REQUIRED:
            raise
    return found


def without_metadata(data: bytes, counter: PartCounter) -> bytes:
    """Return a copy of the file in which metadata is overwritten, without bytes after the last box.

    Boxes that no decoder needs become free space. Raises UndecodableImage if a table is truncated, or says
    that metadata lies outside of media data.
    """
    found = top_level(data, counter)
    eraser = _MetadataEraser(data, [box for box in found if box.kind == b"mdat"], counter)
    for box in found:
        if box.kind in _REQUIRED:
            eraser.clean(box)
        else:
            eraser.blank_box(box)
    end = max((box.end for box in found if box.kind in _REQUIRED), default=0)
    return bytes(eraser.data[:end])


class _MetadataEraser:
    """Overwrites metadata in `data`, a copy of the file; `media` are its mdat boxes."""

    def __init__(self, data: bytes, media: list[Box], counter: PartCounter) -> None:
        self.data = bytearray(data)
        self._media = media
        self._counter = counter
        # An animation's metadata is listed twice, by the file and by the track; tables that list the same
        # bytes again and again are an attack.
        self._budget = 2 * len(data)

    def clean(self, box: Box) -> None:
        """Blank the metadata in a box and in all boxes within it."""
        if box.kind in _METADATA_BOXES:
            self.blank_box(box)
        elif box.kind in _BOXES_WITH_TIMES:
            # Creation and modification time, of 64 bits each from version 1 on (14496-12, 8.2.2).
            self._blank(box.body + 4, 16 if self.data[box.body] else 8, box.end)
        elif box.kind in _CONTAINERS:
            children = list(boxes(self.data, box.body + _CONTAINERS[box.kind], box.end, self._counter))
            for child in children:
                self.clean(child)
            if box.kind == b"meta":
                self._clean_items(children)

    def blank_box(self, box: Box) -> None:
        """Make the box one of free space."""
        self.data[box.start + 4 : box.start + 8] = b"free"
        self._blank(box.body, box.end - box.body, box.end)

    def _clean_items(self, meta: list[Box]) -> None:
        """Blank the payload of every item that is metadata or a thumbnail."""
        iinf, iloc, iref = only(meta, b"iinf"), only(meta, b"iloc"), only(meta, b"iref")
        if iinf is None or iloc is None:
            return
        types = dict(item_types(self.data, iinf, self._counter))
        fillings = {number: b"" for number, kind in types.items() if kind in _METADATA_ITEMS}
        if iref is not None:
            found = references(self.data, iref, self._counter)
            fillings |= {each.source: b"" for each in found if each.kind == b"thmb"}
        fillings |= {number: _EMPTY_EXIF for number, kind in types.items() if kind == b"Exif"}
        idat = only(meta, b"idat") or Box(b"idat", 0, 0, 0)
        for item, in_idat, offset, length in extents(self.data, iloc, self._counter):
            if item in fillings:
                start = offset + idat.body * in_idat
                end = _payload_end([idat] if in_idat else self._media, start)
                self._blank(start, length, end, fillings[item])
                fillings[item] = fillings[item][length:]

    def _blank(self, start: int, length: int, end: int, filling: bytes = b"") -> None:
        """Overwrite `length` bytes with the filling, as far as it fits, and zeros.

        Raises UndecodableImage if they reach beyond `end`, or if too many bytes were overwritten.
        """
        self._budget -= length
        if start + length > end or self._budget < 0:
            detail = f"{length} bytes of metadata at {start} lie outside of media data, or are listed again"
            raise UndecodableImage(detail=detail)
        self.data[start : start + length] = filling[:length].ljust(length, b"\0")


def _payload_end(media: list[Box], start: int) -> int:
    """Return the end of the last box of `media` whose payload begins at or before `start`; 0 if none does.

    Metadata lies in payloads. Overwriting other bytes that a table lists, such as boxes, would change the
    image.
    """
    before = bisect_right(media, start, key=lambda box: box.body)
    return media[before - 1].end if before else 0
