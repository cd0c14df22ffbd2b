"""JPEG (ITU-T T.81, annex B): a walk over its segments that leaves out what isn't needed to draw it."""

from dataclasses import replace

from app.core.errors import TooManyPixels, UndecodableImage
from app.imaging import gain_map
from app.imaging.jpeg_segments import (
    APP0,
    APP1,
    APP2,
    APP14,
    DNL,
    DRI,
    END,
    EOI,
    SOI,
    SOS,
    Frame,
    Segment,
    segments,
)
from app.imaging.survey import UPRIGHT, GainMap, ImageLimits, Survey, bounded, check_profile, orientation_of

_FRAME_HEADERS = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_METADATA = {*range(0xE0, 0xFF)}

_MAX_PASSES = 20
"""How many passes over `max_pixels` pixels a decoder may need for one image.

Each scan may cost a pass over all pixels for a few bytes of file (libjpeg-turbo, "Two Issues with the JPEG
Standard"). Encoders write about ten, and libjpeg 18 for four colours.
"""

_MAX_EXIF = 200
"""Segments of Exif. For each of them Pillow copies all those before; a phone's depth map may need some."""


def survey_jpeg(data: bytes, limits: ImageLimits) -> Survey:
    """Walk to the end of the first picture, and of its gain map if there is one.

    The other pictures of a multi-picture file (CIPA DC-007) are dropped. Raises UndecodableImage if a segment
    is cut, if there is not exactly one size, if scans are missing, or if decoding would take too many
    passes; TooManyPixels.
    """
    walk = _Walk(limits)
    for segment in bounded(segments(data)):
        walk.add(segment)
    survey = walk.survey()
    if walk.end > len(data):
        return replace(survey, missing_end=END[len(data) - walk.end :])
    return replace(survey, gain_map=_gain_map(data, walk, survey)) if limits.strip_metadata else survey


def _gain_map(data: bytes, walk: "_Walk", survey: Survey) -> GainMap | None:
    """Return the gain map that the picture announces; None if it is missing, damaged, or larger than it."""
    try:
        found = gain_map.find(data, walk.end, walk.announced)
        if found is None:
            return None
        inner = _Walk(replace(walk.limits, max_pixels=survey.width * survey.height))
        picture = data[found.start :]
        for segment in bounded(segments(picture)):
            inner.add(segment)
        clean = inner.survey()
    except (UndecodableImage, TooManyPixels):
        return None
    if inner.end > len(picture):
        return None
    return GainMap(clean.clean, (clean.width, clean.height), found.parameters, found.iso)


class _Walk:
    """Reads segments one by one; `end` is the offset of the first byte after the picture."""

    def __init__(self, limits: ImageLimits) -> None:
        self.limits = limits
        self.announced = gain_map.Announced()
        self.end = 0
        self._pieces = [bytes((0xFF, SOI))]
        self._orientation = UPRIGHT
        self._frame: Frame | None = None
        self._scans = self._profile = self._exif = self._restart_interval = 0

    def add(self, segment: Segment) -> None:
        """Read the next segment."""
        if segment.marker == EOI:
            self.end = segment.end
            return
        if segment.marker == APP1 and segment.payload.startswith(b"Exif\0"):
            self._exif += 1
            if self._orientation == UPRIGHT:
                self._orientation = orientation_of(segment.payload)
        elif segment.marker in _FRAME_HEADERS or segment.marker == DNL:
            self._read_frame(segment)
        elif segment.marker == DRI:
            self._restart_interval = int.from_bytes(segment.payload[:2], "big")
        elif segment.marker == SOS:
            self._read_scan(segment)
        self.announced.read(segment)
        self._profile += len(segment.payload) * _is_profile(segment)
        if (kept := _without_metadata(segment)) is not None:
            self._pieces.append(kept.encoded())

    def _read_frame(self, segment: Segment) -> None:
        if self._frame is not None or segment.marker == DNL:
            raise UndecodableImage(detail=f"a second size in 0x{segment.marker:02x}")
        self._frame = Frame(segment.marker, segment.payload)
        self.limits.check(self._frame.size, 1)

    def _read_scan(self, segment: Segment) -> None:
        if self._frame is None:
            raise UndecodableImage(detail="a scan before the frame header")
        self._scans += 1
        self._frame.scan(segment.payload, segment.scan, self._restart_interval)

    def survey(self) -> Survey:
        """Return what was found, after the last segment."""
        check_profile(self._profile)
        if self._frame is None:
            raise UndecodableImage(detail="no frame header")
        width, height = self._frame.size
        passes = self._scans * width * height
        if self._exif > _MAX_EXIF or passes > _MAX_PASSES * self.limits.max_pixels:
            detail = f"{self._scans} scans of {width} × {height}, {self._exif} segments of Exif"
            raise UndecodableImage(detail=detail)
        self._frame.check_sent()
        return Survey(b"".join([*self._pieces, END]), width, height, orientation=self._orientation)


def _is_profile(segment: Segment) -> bool:
    return segment.marker == APP2 and segment.payload.startswith(b"ICC_PROFILE\0")


def _without_metadata(segment: Segment) -> Segment | None:
    """The segment as far as it is needed to draw the picture, None where it isn't."""
    marker, payload = segment.marker, segment.payload
    if marker not in _METADATA:
        return segment
    if _is_profile(segment):
        return segment
    if marker == APP0 and payload.startswith(b"JFIF\0") and len(payload) >= 14:
        # The last two bytes are the size of a thumbnail that follows them (JFIF 1.02).
        return segment._replace(payload=payload[:12] + b"\0\0")
    if marker == APP14 and payload.startswith(b"Adobe") and len(payload) >= 12:
        # Says which colour transform was used; decoders read twelve bytes and no more.
        return segment._replace(payload=payload[:12])
    return None
