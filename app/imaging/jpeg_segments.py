"""The segments of a JPEG (ITU-T T.81, annex B), for everything that reads or rewrites one."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from app.errors import UndecodableImage
from app.imaging.bytereader import ByteReader

SOI, EOI, SOS, DNL, DRI = 0xD8, 0xD9, 0xDA, 0xDC, 0xDD
APP0, APP1, APP2, APP14 = 0xE0, 0xE1, 0xE2, 0xEE

_START = bytes((0xFF, SOI))
END = bytes((0xFF, EOI))

_MARKER = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd8]")
"""The next segment; markers that stand alone between segments mean nothing there."""
_END_OF_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")

_MAX_SCANS = 100


class Segment(NamedTuple):
    """One segment, and for SOS the entropy-coded data after it.

    `start` is the offset of `payload` in the file, `end` that of the first byte after payload and scan.
    """

    marker: int
    payload: bytes
    scan: bytes = b""
    start: int = 0
    end: int = 0

    def encoded(self) -> bytes:
        """Return the segment as it stands in a file."""
        length = (len(self.payload) + 2).to_bytes(2, "big")
        return bytes((0xFF, self.marker)) + length + self.payload + self.scan


def segments(data: bytes, start: int = 0) -> Iterator[Segment]:
    """Yield every segment of the JPEG at `start`, from SOI to EOI; bytes between segments are skipped.

    The last one is EOI, with an empty payload. If the file ends before it, `end` of EOI lies behind the file.
    Raises UndecodableImage if a segment is cut, if there are more than 100 scans, or if there is none.
    """
    position, scans = start + len(_START), 0
    while (found := _MARKER.search(data, position)) and data[found.start() + 1] != EOI:
        marker = data[found.start() + 1]
        reader = ByteReader(data, found.end())
        payload = reader.take(reader.big(2) - 2)
        scan = _scan(data, reader.position) if marker == SOS else b""
        scans += marker == SOS
        if scans > _MAX_SCANS:
            raise UndecodableImage(detail=f"more than {_MAX_SCANS} scans")
        position = reader.position + len(scan)
        yield Segment(marker, payload, scan, reader.position - len(payload), position)
    if not scans:
        raise UndecodableImage(detail="no scan")
    end = found.end() if found else len(data.removesuffix(b"\xff")) + len(END)
    yield Segment(EOI, b"", start=end, end=end)


def _scan(data: bytes, start: int) -> bytes:
    """Return the entropy-coded data at `start`, up to the next marker or the end of the file."""
    end = _END_OF_SCAN.search(data, start)
    return data[start : end.start()] if end else data[start:].removesuffix(b"\xff")


def first_place(jpeg: bytes) -> int:
    """Return the offset at which segments may be inserted: a JFIF header has to come first."""
    at = len(_START)
    return at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big") if jpeg[at + 1] == APP0 else at


def inserted(jpeg: bytes, *added: Segment) -> bytes:
    """Return the JPEG with these segments at its beginning."""
    at = first_place(jpeg)
    return jpeg[:at] + b"".join(segment.encoded() for segment in added) + jpeg[at:]
