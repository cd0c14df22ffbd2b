"""The segments of a JPEG (ITU-T T.81, annex B): read them, and insert new ones."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from app.core.errors import UndecodableImage
from app.imaging.survey import ByteReader

SOI, EOI, SOS, DNL, DRI = 0xD8, 0xD9, 0xDA, 0xDC, 0xDD
APP0, APP1, APP2, APP14 = 0xE0, 0xE1, 0xE2, 0xEE

START = bytes((0xFF, SOI))
END = bytes((0xFF, EOI))

_MARKER = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd8]")
"""The marker at the start of a segment. It does not match markers without a segment, which have no meaning
between segments."""
_SCAN_END = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""The first marker after a scan. It does not match restart markers, which belong to the scan."""

_MAX_SCANS = 100


class Segment(NamedTuple):
    """One segment. In a segment of type SOS (start of scan), `scan` is the entropy-coded data that follows.

    `scan` is a view of the file, since it is nearly all of it. `start` is the offset of `payload` in the
    file. `end` is the offset after `payload` and `scan`.
    """

    marker: int
    payload: bytes
    scan: memoryview = memoryview(b"")
    start: int = 0
    end: int = 0

    def encoded(self) -> bytes:
        """Return the bytes of the segment as they are stored in a file, including the scan."""
        length = (len(self.payload) + 2).to_bytes(2, "big")
        return b"".join((bytes((0xFF, self.marker)), length, self.payload, self.scan))


def segments(data: bytes, start: int = 0) -> Iterator[Segment]:
    """Yield every segment of the JPEG at `start` up to EOI. Bytes between segments are skipped.

    The last segment is EOI, with an empty payload. If EOI is missing in the file, the `end` of that segment
    is beyond the end of the file. Raises UndecodableImage if a segment is truncated, if there are more than
    100 scans, or if there are none.
    """
    position, scans = start + len(START), 0
    while (found := _MARKER.search(data, position)) and data[found.start() + 1] != EOI:
        marker = data[found.start() + 1]
        reader = ByteReader(data, found.end())
        payload = reader.read(reader.uint_be(2) - 2)
        scan = _scan(data, reader.position) if marker == SOS else memoryview(b"")
        scans += marker == SOS
        if scans > _MAX_SCANS:
            raise UndecodableImage(detail=f"more than {_MAX_SCANS} scans")
        position = reader.position + len(scan)
        yield Segment(marker, payload, scan, reader.position - len(payload), position)
    if not scans:
        raise UndecodableImage(detail="no scan")
    end = found.end() if found else len(data.removesuffix(b"\xff")) + len(END)
    yield Segment(EOI, b"", start=end, end=end)


def _scan(data: bytes, start: int) -> memoryview:
    """Return the entropy-coded data at `start`, up to the next marker or the end of the file."""
    found = _SCAN_END.search(data, start)
    end = found.start() if found else len(data) - data.endswith(b"\xff", start)
    return memoryview(data)[start:end]


def insertion_offset(jpeg: bytes) -> int:
    """Return the offset at which segments may be inserted: after the JFIF header, if the file has one."""
    at = len(START)
    return at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big") if jpeg[at + 1] == APP0 else at


def insert_segments(jpeg: bytes, *added: Segment) -> bytes:
    """Return the JPEG with these segments inserted at `insertion_offset`."""
    at = insertion_offset(jpeg)
    return jpeg[:at] + b"".join(segment.encoded() for segment in added) + jpeg[at:]
