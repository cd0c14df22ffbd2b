"""AVIF (AV1 Image File Format, based on ISO/IEC 23008-12): reads its boxes, tables and bitstreams.

Overwrites the metadata of AVIF in place: offsets count from the file's beginning, so nothing may move.
"""

from bisect import bisect_right

from app.core.errors import UndecodableImage
from app.imaging.avif_items import (
    Box,
    Judged,
    boxes,
    extents,
    item_types,
    needed,
    only,
    references,
    survey_items,
)
from app.imaging.avif_tracks import survey_tracks
from app.imaging.survey import ImageLimits, PartCount, Survey

_NEEDED = {b"ftyp", b"meta", b"moov", b"mdat"}
_CONTAINERS = {b"moov": 0, b"trak": 0, b"mdia": 0, b"meta": 4, b"iprp": 0, b"ipco": 0}
"""Boxes to look into, with the bytes before their first child."""
_METADATA_BOXES = {b"udta", b"uuid", b"free", b"skip", b"udes", b"altt", b"crtt", b"mdft"}
_METADATA_ITEMS = {b"Exif", b"mime", b"uri "}
_TIMED_BOXES = {b"mvhd", b"tkhd", b"mdhd"}
_EMPTY_EXIF = b"\0\0\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"
"""An offset to the TIFF header that follows, and a TIFF file with no entries.

Zeros alone are no EXIF, and some decoders refuse the whole image for that.
"""


def top_level(data: bytes, count: PartCount) -> list[Box]:
    """Return the boxes of the file up to the first bytes that are not a complete box.

    Bytes from there on are not part of the image; raises UndecodableImage if they begin a needed box.
    """
    found: list[Box] = []
    try:
        for box in boxes(data, 0, len(data), count):
            found.append(box)
    except UndecodableImage:
        tail = found[-1].end if found else 0
        if data[tail + 4 : tail + 8] in _NEEDED:
            raise
    return found


def without_metadata(data: bytes, count: PartCount) -> bytes:
    """Return a copy of the file in which metadata is overwritten, without bytes after the last box.

    Boxes that no decoder needs become free space. Raises UndecodableImage if a table is cut, or calls
    something metadata that is not media data.
    """
    found = top_level(data, count)
    scrub = _Scrub(data, [box for box in found if box.kind == b"mdat"], count)
    for box in found:
        if box.kind in _NEEDED:
            scrub.clean(box)
        else:
            scrub.blank_box(box)
    end = max((box.end for box in found if box.kind in _NEEDED), default=0)
    return bytes(scrub.data[:end])


class _Scrub:
    """A copy of the file, in which metadata is overwritten."""

    def __init__(self, data: bytes, media: list[Box], count: PartCount) -> None:
        self.data = bytearray(data)
        self.media = media
        self.count = count
        # An animation's metadata is named twice, by the file and by the track; tables that name the same
        # bytes again and again are an attack.
        self.budget = 2 * len(data)

    def clean(self, box: Box) -> None:
        """Take the metadata out of a box and of all that is in it."""
        if box.kind in _METADATA_BOXES:
            self.blank_box(box)
        elif box.kind in _TIMED_BOXES:
            # Creation and modification time, of 64 bits each from version 1 on (14496-12, 8.2.2).
            self._blank(box.body + 4, 16 if self.data[box.body] else 8, box.end)
        elif box.kind in _CONTAINERS:
            children = list(boxes(self.data, box.body + _CONTAINERS[box.kind], box.end, self.count))
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
        types = dict(item_types(self.data, iinf, self.count))
        fillings = {number: b"" for number, kind in types.items() if kind in _METADATA_ITEMS}
        if iref is not None:
            found = references(self.data, iref, self.count)
            fillings |= {each.source: b"" for each in found if each.kind == b"thmb"}
        fillings |= {number: _EMPTY_EXIF for number, kind in types.items() if kind == b"Exif"}
        idat = only(meta, b"idat") or Box(b"idat", 0, 0, 0)
        for item, in_idat, offset, length in extents(self.data, iloc, self.count):
            if item in fillings:
                start = offset + idat.body * in_idat
                end = _end([idat] if in_idat else self.media, start)
                self._blank(start, length, end, fillings[item])
                fillings[item] = fillings[item][length:]

    def _blank(self, start: int, length: int, end: int, filling: bytes = b"") -> None:
        """Overwrite `length` bytes with the filling, as far as it fits, and zeros."""
        self.budget -= length
        if start + length > end or self.budget < 0:
            detail = f"{length} bytes of metadata at {start} lie outside, or come again and again"
            raise UndecodableImage(detail=detail)
        self.data[start : start + length] = filling[:length].ljust(length, b"\0")


def _end(media: list[Box], start: int) -> int:
    """Where the last box of `media` ends whose payload begins before `start` or there; 0 where none does.

    Metadata lies in payloads. To overwrite what else a table may name, boxes among it, would make another
    file than the one that was sent.
    """
    before = bisect_right(media, start, key=lambda box: box.body)
    return media[before - 1].end if before else 0


def survey_avif(data: bytes, limits: ImageLimits) -> Survey:
    """Read the boxes and the AV1 in them, as far as a decoder may read.

    Raises UndecodableImage if something is cut, if the size of the AV1 differs from that in the boxes, or if
    the file is ambiguous; TooManyPixels. Orientation is in the `irot` and `imir` properties,
    which every browser follows and which stay.
    """
    count = PartCount()
    if any(box.kind == b"moof" for box in top_level(data, count)):
        raise UndecodableImage(detail="an animation in fragments")
    clean = without_metadata(data, count)
    size, frames = _judged(clean if limits.strip_metadata else data, limits)
    return Survey(clean, *size, frames=frames)


def _judged(data: bytes, limits: ImageLimits) -> Judged:
    """Return size and number of the frames that are shown of a file to be stored.

    The file may have a still image and an animation. Both are checked; the major brand says which is shown.
    """
    count = PartCount()
    found = top_level(data, count)
    media = [box for box in found if box.kind == b"mdat"]
    still, animation = only(found, b"meta"), only(found, b"moov")
    ftyp = needed(found, b"ftyp")
    pictures = {
        b"avif": still and survey_items(data, still, media, limits, count),
        b"avis": animation and survey_tracks(data, animation, media, limits, count),
    }
    brand = data[ftyp.body : ftyp.body + 4]
    shown = pictures[brand] if brand in pictures else pictures[b"avis"] or pictures[b"avif"]
    if shown is None:
        raise UndecodableImage(detail=f"nothing to show in a file of brand {brand!r}")
    return shown
