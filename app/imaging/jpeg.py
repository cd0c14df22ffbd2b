"""JPEG (ITU-T T.81, annex B): a walk over its segments that leaves out what isn't needed to draw it."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from app.errors import UndecodableImage
from app.imaging.bytereader import ByteReader
from app.imaging.exif import UPRIGHT, orientation_of
from app.imaging.limits import ImageLimits
from app.imaging.survey import Survey, bounded, check_profile

_SOI, _EOI, _SOS, _APP0, _APP1, _APP2, _APP14 = 0xD8, 0xD9, 0xDA, 0xE0, 0xE1, 0xE2, 0xEE
_FRAME_HEADERS = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_SUPPORTED = {0xC0, 0xC1, 0xC2}
"""Baseline, extended and progressive with Huffman codes. No browser draws arithmetically coded, lossless or
hierarchical JPEG, and decoding arithmetic codes takes long even if there are few bytes."""
_DNL = 0xDC
_METADATA = {*range(0xE0, 0xFF)}

_MARKER = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd8]")
"""The next segment; markers that stand alone between segments mean nothing there."""
_END_OF_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")

_MAX_SCANS = 100
_MAX_PASSES = 20
"""How many passes over `max_pixels` pixels a decoder may need for one image.

Each scan may cost a pass over all pixels for a few bytes of file (libjpeg-turbo, "Two Issues with the JPEG
Standard"). Encoders write about ten, and libjpeg 18 for four colours.
"""

_MAX_EXIF = 200
"""Segments of Exif. For each of them Pillow copies all those before; a phone's depth map may need some."""


class _Segment(NamedTuple):
    marker: int
    payload: bytes
    scan: bytes

    def encoded(self) -> bytes:
        length = (len(self.payload) + 2).to_bytes(2, "big")
        return bytes((0xFF, self.marker)) + length + self.payload + self.scan


def survey_jpeg(data: bytes, limits: ImageLimits) -> Survey:
    """Walk to the end of the first picture; in a multi-picture file (CIPA DC-007) the others are dropped.

    Raises UndecodableImage if a segment is cut, if the end marker is missing, if there is not exactly one
    size, or if decoding would take too many passes; TooManyPixels.
    """
    pieces = [bytes((0xFF, _SOI))]
    orientation, size, scans, profile, exif = UPRIGHT, (0, 0), 0, 0, 0
    for segment in bounded(_segments(data)):
        if segment.marker == _APP1 and segment.payload.startswith(b"Exif\0"):
            exif += 1
            orientation = orientation_of(segment.payload) if orientation == UPRIGHT else orientation
        elif segment.marker in _FRAME_HEADERS or segment.marker == _DNL:
            size = _size(segment, limits, first=size == (0, 0))
        scans += segment.marker == _SOS
        profile += len(segment.payload) * _is_profile(segment)
        if (kept := _without_metadata(segment)) is not None:
            pieces.append(kept.encoded())
    check_profile(profile)
    _check_work(size, scans, exif, limits)
    pieces.append(bytes((0xFF, _EOI)))
    return Survey(b"".join(pieces), *size, orientation=orientation)


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


def _size(segment: _Segment, limits: ImageLimits, *, first: bool) -> tuple[int, int]:
    """Return width and height from the frame header (B.2.2)."""
    if not first or segment.marker not in _SUPPORTED:
        raise UndecodableImage(detail=f"a second size, or an unsupported frame type, 0x{segment.marker:02x}")
    reader = ByteReader(segment.payload, 1)
    height, width = reader.big(2), reader.big(2)
    limits.check((width, height), 1)
    return width, height


def _check_work(size: tuple[int, int], scans: int, exif: int, limits: ImageLimits) -> None:
    passes = scans * size[0] * size[1]
    if exif > _MAX_EXIF or not size[0] or passes > _MAX_PASSES * limits.max_pixels:
        raise UndecodableImage(detail=f"{scans} scans of {size}, {exif} segments of Exif")


def _is_profile(segment: _Segment) -> bool:
    return segment.marker == _APP2 and segment.payload.startswith(b"ICC_PROFILE\0")


def _without_metadata(segment: _Segment) -> _Segment | None:
    """The segment as far as it is needed to draw the picture, None where it isn't."""
    marker, payload, _ = segment
    if marker not in _METADATA:
        return segment
    if _is_profile(segment):
        return segment
    if marker == _APP0 and payload.startswith(b"JFIF\0") and len(payload) >= 14:
        # The last two bytes are the size of a thumbnail that follows them (JFIF 1.02).
        return segment._replace(payload=payload[:12] + b"\0\0")
    if marker == _APP14 and payload.startswith(b"Adobe") and len(payload) >= 12:
        # Says which colour transform was used; decoders read twelve bytes and no more.
        return segment._replace(payload=payload[:12])
    return None
