"""AVIF (AV1 Image File Format, based on ISO/IEC 23008-12): survey a file, and blank its metadata.

Metadata is overwritten in place. It can't be cut out, because the file refers to its data by offset.
"""

from bisect import bisect_right

from app.core.errors import UndecodableImage
from app.imaging.avif_boxes import Box, Canvas, boxes, extents, item_types, only, references, required
from app.imaging.avif_items import survey_items
from app.imaging.avif_tracks import survey_tracks
from app.imaging.survey import ImageLimits, PartCounter, Survey

_REQUIRED = {b"ftyp", b"meta", b"moov", b"mdat"}
_CONTAINERS = {b"moov": 0, b"trak": 0, b"mdia": 0, b"meta": 4, b"iprp": 0, b"ipco": 0}
"""Boxes that contain other boxes, and the number of bytes in each before its first child."""
_METADATA_BOXES = {b"udta", b"uuid", b"free", b"skip", b"udes", b"altt", b"crtt", b"mdft"}
_METADATA_ITEMS = {b"Exif", b"mime", b"uri "}
_BOXES_WITH_TIMES = {b"mvhd", b"tkhd", b"mdhd"}
_EMPTY_EXIF = b"\0\0\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"
"""An EXIF item without entries: the offset of the TIFF header, and an empty TIFF file.

Zeros alone would not be valid EXIF, and some decoders would reject the whole image.
"""


def survey_avif(data: bytes, limits: ImageLimits) -> Survey:
    """Parse the boxes and the AV1 data in them, as far as a decoder may read them.

    Raises TooManyPixels if the image exceeds the limits. Raises UndecodableImage if something is truncated,
    if the size in the AV1 data differs from the size in the boxes, or if the file is ambiguous.

    The survey has no orientation. An AVIF is rotated by its `irot` and `imir` properties, which are kept and
    which every browser follows.
    """
    counter = PartCounter()
    if any(box.kind == b"moof" for box in top_level(data, counter)):
        raise UndecodableImage(detail="a fragmented animation")
    clean = without_metadata(data, counter)
    size, frames = _shown_canvas(clean if limits.strip_metadata else data, limits)
    return Survey(clean, *size, frames=frames)


def _shown_canvas(data: bytes, limits: ImageLimits) -> Canvas:
    """Return the canvas that viewers show.

    A file may have both a still image and an animation. Both are checked. The major brand says which of
    the two viewers show.
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
    """Return the top-level boxes of the file, up to the first bytes that are not a complete box.

    These bytes and all that follow are not part of the image. Raises UndecodableImage if they are the
    beginning of a required box.
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
    """Return a copy of the file in which metadata is overwritten, and which ends with the last required box.

    Boxes that no decoder needs become free space. Raises UndecodableImage if a table is truncated, or if
    it places metadata outside the media data.
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
    """Overwrites metadata in `data`, a copy of the file. `media` are the mdat boxes of the file."""

    def __init__(self, data: bytes, media: list[Box], counter: PartCounter) -> None:
        self.data = bytearray(data)
        self._media = media
        self._counter = counter
        # The metadata of an animation may be listed twice, by the file and by its track. Only an attacker
        # lists the same bytes more often than that.
        self._budget = 2 * len(data)

    def clean(self, box: Box) -> None:
        """Blank the metadata in a box and in all boxes within it."""
        if box.kind in _METADATA_BOXES:
            self.blank_box(box)
        elif box.kind in _BOXES_WITH_TIMES:
            # The creation time and the modification time: 32 bits each in version 0, else 64 (14496-12,
            # 8.2.2).
            self._blank(box.body + 4, 16 if self.data[box.body] else 8, box.end)
        elif box.kind in _CONTAINERS:
            children = list(boxes(self.data, box.body + _CONTAINERS[box.kind], box.end, self._counter))
            for child in children:
                self.clean(child)
            if box.kind == b"meta":
                self._clean_items(children)

    def blank_box(self, box: Box) -> None:
        """Turn the box into free space."""
        self.data[box.start + 4 : box.start + 8] = b"free"
        self._blank(box.body, box.end - box.body, box.end)

    def _clean_items(self, meta: list[Box]) -> None:
        """Blank the payload of every item that is metadata or a thumbnail."""
        iinf, iloc, iref = only(meta, b"iinf"), only(meta, b"iloc"), only(meta, b"iref")
        if iinf is None or iloc is None:
            return
        types = dict(item_types(self.data, iinf, self._counter))
        replacements = {number: b"" for number, kind in types.items() if kind in _METADATA_ITEMS}
        if iref is not None:
            found = references(self.data, iref, self._counter)
            replacements |= {each.source: b"" for each in found if each.kind == b"thmb"}
        replacements |= {number: _EMPTY_EXIF for number, kind in types.items() if kind == b"Exif"}
        idat = only(meta, b"idat") or Box(b"idat", 0, 0, 0)
        for item, in_idat, offset, length in extents(self.data, iloc, self._counter):
            if item in replacements:
                start = offset + idat.body * in_idat
                end = _payload_end([idat] if in_idat else self._media, start)
                self._blank(start, length, end, replacements[item])
                replacements[item] = replacements[item][length:]

    def _blank(self, start: int, length: int, end: int, replacement: bytes = b"") -> None:
        """Overwrite `length` bytes at `start` with `replacement`, which is cut or padded with zeros.

        Raises UndecodableImage if the bytes extend beyond `end`, or if too many bytes are overwritten in
        total.
        """
        self._budget -= length
        if start + length > end or self._budget < 0:
            detail = f"{length} bytes of metadata at {start} lie outside media data or are listed repeatedly"
            raise UndecodableImage(detail=detail)
        self.data[start : start + length] = replacement[:length].ljust(length, b"\0")


def _payload_end(media: list[Box], start: int) -> int:
    """Return the end of the last box in `media` whose payload begins at or before `start`, or 0 if none does.

    Metadata is blanked only within such a payload. A hostile table may place metadata elsewhere, such as over
    the headers of boxes, and blanking it there would change the image.
    """
    before = bisect_right(media, start, key=lambda box: box.body)
    return media[before - 1].end if before else 0
