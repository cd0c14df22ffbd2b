"""JPEG (ITU-T T.81, annex B): a walk over its segments that leaves out what isn't needed to draw it."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from app.errors import UndecodableImage
from app.imaging.bytereader import ByteReader
from app.imaging.exif import UPRIGHT, orientation_of
from app.imaging.limits import ImageLimits
from app.imaging.survey import Survey, bounded

_SOI, _EOI, _SOS, _APP0, _APP1, _APP2, _APP14 = 0xD8, 0xD9, 0xDA, 0xE0, 0xE1, 0xE2, 0xEE
_FRAME_HEADERS = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_METADATA = {*range(0xE0, 0xFF)}

_MARKER = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd8]")
"""The next segment; markers that stand alone between segments mean nothing there."""
_END_OF_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")

_MAX_SCANS = 100
"""Each scan of a progressive JPEG may cost a pass over all its pixels for a few bytes of file;
encoders write about ten (libjpeg-turbo, "Two Issues with the JPEG Standard")."""


class _Segment(NamedTuple):
    marker: int
    payload: bytes
    scan: bytes

    def encoded(self) -> bytes:
        length = (len(self.payload) + 2).to_bytes(2, "big")
        return bytes((0xFF, self.marker)) + length + self.payload + self.scan


def survey_jpeg(data: bytes, limits: ImageLimits) -> Survey:
    """Walk to the end of the first picture; in a multi-picture file (CIPA DC-007) the others are dropped.

    Raises UndecodableImage where a segment is cut or the end marker is missing, and TooManyPixels.
    """
    pieces = [bytes((0xFF, _SOI))]
    orientation = UPRIGHT
    for segment in bounded(_segments(data)):
        if segment.marker == _APP1 and segment.payload.startswith(b"Exif\0") and orientation == UPRIGHT:
            orientation = orientation_of(segment.payload)
        if segment.marker in _FRAME_HEADERS:
            _check_frame_header(segment.payload, limits)
        if (kept := _without_metadata(segment)) is not None:
            pieces.append(kept.encoded())
    pieces.append(bytes((0xFF, _EOI)))
    return Survey(b"".join(pieces), frames=1, orientation=orientation)


def _segments(data: bytes) -> Iterator[_Segment]:
    """Every segment between SOI and EOI; what lies between segments is passed over."""
    position, scans = 2, 0
    while (found := _MARKER.search(data, position)) and data[found.start() + 1] != _EOI:
        marker, position = data[found.start() + 1], found.end()
        reader = ByteReader(data, position)
        payload = reader.take(reader.big(2) - 2)
        scan = _scan(data, reader.position) if marker == _SOS else b""
        scans += marker == _SOS
        if scans > _MAX_SCANS:
            raise UndecodableImage(detail=f"more than {_MAX_SCANS} scans")
        position = reader.position + len(scan)
        yield _Segment(marker, payload, scan)
    if found is None or not scans:
        raise UndecodableImage(detail="no end of image, or no scan before it")


def _scan(data: bytes, start: int) -> bytes:
    end = _END_OF_SCAN.search(data, start)
    if end is None:
        raise UndecodableImage(detail="the scan has no end")
    return data[start : end.start()]


def _check_frame_header(payload: bytes, limits: ImageLimits) -> None:
    reader = ByteReader(payload, 1)
    height, width = reader.big(2), reader.big(2)
    limits.check((width, height), 1)


def _without_metadata(segment: _Segment) -> _Segment | None:
    """The segment as far as it is needed to draw the picture, None where it isn't."""
    marker, payload, _ = segment
    if marker not in _METADATA:
        return segment
    if marker == _APP2 and payload.startswith(b"ICC_PROFILE\0"):
        return segment
    if marker == _APP0 and payload.startswith(b"JFIF\0") and len(payload) >= 14:
        # The last two bytes are the size of a thumbnail that follows them (JFIF 1.02).
        return segment._replace(payload=payload[:12] + b"\0\0")
    if marker == _APP14 and payload.startswith(b"Adobe") and len(payload) >= 12:
        # Says which colour transform was used; decoders read twelve bytes and no more.
        return segment._replace(payload=payload[:12])
    return None
