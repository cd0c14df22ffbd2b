"""JPEG (ITU-T T.81, annex B): parse the segments, and keep those that are needed to draw the picture."""

from dataclasses import replace
from typing import NamedTuple

from app.core.errors import TooManyPixels, UndecodableImage
from app.imaging.gain_map import GainMapAnnouncement, find_gain_map
from app.imaging.jpeg_segments import (
    APP0,
    APP1,
    APP2,
    APP14,
    DNL,
    DRI,
    END,
    EOI,
    SOS,
    START,
    Segment,
    segments,
)
from app.imaging.survey import (
    UPRIGHT,
    ByteReader,
    GainMap,
    ImageLimits,
    Survey,
    check_profile_size,
    exif_orientation,
    limit_parts,
)

_FRAME_HEADERS = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = 0xC2
_SUPPORTED_FRAMES = {0xC0, 0xC1, _PROGRESSIVE}
"""Baseline, extended and progressive JPEG with Huffman coding. No browser draws JPEG with arithmetic,
lossless or hierarchical coding, and decoding arithmetic codes takes long even if the file is small."""
_SUPPORTED_BITS = 8
"""The number of bits per sample that browsers support. Extended and progressive files may have 12 bits
per sample (B.2.2)."""
_METADATA = {*range(0xE0, 0xFF)}

_MAX_PASSES = 20
"""Maximum cost of decoding one image, in passes over `max_pixels` pixels.

Even a scan of a few bytes may cost a pass over all pixels (libjpeg-turbo, "Two Issues with the JPEG
Standard"). Encoders write about ten scans; libjpeg writes 18 for images with four colour components.
"""

_MAX_EXIF_SEGMENTS = 200
"""Maximum number of Exif segments. Pillow copies all previous ones whenever it reads another one. A phone may
need several to store a depth map."""

_COEFFICIENTS = 64
_NOT_SENT = 255
"""The value in `lowest_bits` for a coefficient of which no scan read so far contains a bit."""


def survey_jpeg(data: bytes, limits: ImageLimits) -> Survey:
    """Parse the first picture, and its gain map if it has one.

    Other pictures of a multi-picture file (CIPA DC-007) are dropped. If metadata is not stripped, nothing is
    collected in `clean`, and gain maps are not looked for. Raises TooManyPixels if the picture
    exceeds the limits. Raises UndecodableImage if a segment is truncated, if the picture does not declare
    exactly one size, if scans are missing, or if decoding would take too many passes.
    """
    parser = _JpegParser(limits)
    for segment in limit_parts(segments(data)):
        parser.add(segment)
    survey = parser.survey()
    if parser.end > len(data):
        return replace(survey, missing_end=END[len(data) - parser.end :])
    return replace(survey, gain_map=_gain_map(data, parser, survey)) if limits.strip_metadata else survey


def _gain_map(data: bytes, parser: "_JpegParser", survey: Survey) -> GainMap | None:
    """Return the gain map of the picture.

    Return None if the picture has none, or if the gain map is damaged or has more pixels than the picture.
    """
    try:
        found = find_gain_map(data, parser.end, parser.announcement)
        if found is None:
            return None
        inner = _JpegParser(replace(parser.limits, max_pixels=survey.width * survey.height))
        picture = data[found.start :]
        for segment in limit_parts(segments(picture)):
            inner.add(segment)
        clean = inner.survey()
    except (UndecodableImage, TooManyPixels):
        return None
    if inner.end > len(picture):
        return None
    return GainMap(clean.clean, (clean.width, clean.height), found.xmp, found.iso)


class _JpegParser:
    """Reads the segments of one picture. After EOI, `end` is the offset of the first byte after it."""

    def __init__(self, limits: ImageLimits) -> None:
        self.limits = limits
        self.announcement = GainMapAnnouncement()
        self.end = 0
        self._pieces = [START]
        self._orientation = UPRIGHT
        self._frame: _Frame | None = None
        self._scans = self._profile_bytes = self._exif_segments = self._restart_interval = 0

    def add(self, segment: Segment) -> None:
        """Read the next segment."""
        if segment.marker == EOI:
            self.end = segment.end
            return
        if segment.marker == APP1 and segment.payload.startswith(b"Exif\0"):
            self._read_exif(segment)
        elif segment.marker in _FRAME_HEADERS or segment.marker == DNL:
            self._read_frame(segment)
        elif segment.marker == DRI:
            self._restart_interval = int.from_bytes(segment.payload[:2], "big")
        elif segment.marker == SOS:
            self._read_scan(segment)
        self.announcement.read(segment)
        if _is_profile(segment):
            self._profile_bytes += len(segment.payload)
        if self.limits.strip_metadata and (kept := _without_metadata(segment)) is not None:
            self._pieces.append(kept.encoded())

    def _read_exif(self, segment: Segment) -> None:
        self._exif_segments += 1
        if self._orientation == UPRIGHT:
            self._orientation = exif_orientation(segment.payload)

    def _read_frame(self, segment: Segment) -> None:
        if self._frame is not None or segment.marker == DNL:
            raise UndecodableImage(detail=f"a second size in 0x{segment.marker:02x}")
        self._frame = _Frame(segment.marker, segment.payload)
        self.limits.check(self._frame.size, 1)

    def _read_scan(self, segment: Segment) -> None:
        if self._frame is None:
            raise UndecodableImage(detail="a scan before the frame header")
        self._scans += 1
        self._frame.read_scan(segment.payload, segment.scan, self._restart_interval)

    def survey(self) -> Survey:
        """Return the survey. Call this after the last segment."""
        check_profile_size(self._profile_bytes)
        if self._frame is None:
            raise UndecodableImage(detail="no frame header")
        width, height = self._frame.size
        passes = self._scans * width * height
        if self._exif_segments > _MAX_EXIF_SEGMENTS or passes > _MAX_PASSES * self.limits.max_pixels:
            detail = f"{self._scans} scans of {width} × {height}, {self._exif_segments} Exif segments"
            raise UndecodableImage(detail=detail)
        self._frame.check_complete()
        return Survey(b"".join([*self._pieces, END]), width, height, orientation=self._orientation)


def _is_profile(segment: Segment) -> bool:
    return segment.marker == APP2 and segment.payload.startswith(b"ICC_PROFILE\0")


def _without_metadata(segment: Segment) -> Segment | None:
    """Return the part of the segment that is needed to draw the picture, or None if no part is."""
    marker, payload = segment.marker, segment.payload
    if marker not in _METADATA or _is_profile(segment):
        return segment
    if marker == APP0 and payload.startswith(b"JFIF\0") and len(payload) >= 14:
        # Drop the thumbnail. The two bytes before it are its width and height (JFIF 1.02).
        return segment._replace(payload=payload[:12] + b"\0\0")
    if marker == APP14 and payload.startswith(b"Adobe") and len(payload) >= 12:
        # The segment says which colour transform was used. Decoders read only its first twelve bytes.
        return segment._replace(payload=payload[:12])
    return None


class _Component(NamedTuple):
    """A colour component, and the precision of its coefficients in the scans read so far.

    `across` and `down` are its sampling factors. `lowest_bits` holds, for each coefficient, the lowest bit
    that these scans contain.
    """

    across: int
    down: int
    lowest_bits: bytearray


class _Frame:
    """A frame header (B.2.2), and the precision of the coefficients in the scans read so far.

    `size` is the width and height in pixels. The constructor raises UndecodableImage for frames that browsers
    don't draw.
    """

    def __init__(self, marker: int, payload: bytes) -> None:
        reader = ByteReader(payload)
        bits, height, width = reader.uint_be(1), reader.uint_be(2), reader.uint_be(2)
        if marker not in _SUPPORTED_FRAMES or bits != _SUPPORTED_BITS:
            raise UndecodableImage(detail=f"unsupported frame type 0x{marker:02x}, {bits} bits")
        self.size = width, height
        self._progressive = marker == _PROGRESSIVE
        self._components: dict[int, _Component] = {}
        for _ in range(reader.uint_be(1)):
            number, sampling = reader.uint_be(1), reader.uint_be(1)
            reader.skip(1)
            lowest_bits = bytearray([_NOT_SENT] * _COEFFICIENTS)
            self._components[number] = _Component(sampling >> 4, sampling & 15, lowest_bits)
        if any(not (each.across and each.down) for each in self._components.values()):
            raise UndecodableImage(detail="a sampling factor of 0")

    def read_scan(self, payload: bytes, scan: memoryview, restart_interval: int) -> None:
        """Read a scan header (B.2.3) and count the restart markers in the scan.

        Raises UndecodableImage if the scan names an unknown component, or if the scan ends before its last
        restart interval. A decoder would report neither error, and would fill the rest of the picture with
        grey.
        """
        reader = ByteReader(payload)
        numbers = [reader.uint_be(2) >> 8 for _ in range(reader.uint_be(1))]
        first, last, bits = reader.uint_be(1), reader.uint_be(1), reader.uint_be(1)
        previous_bit, lowest_bit = bits >> 4, bits & 15
        if not numbers or not self._components.keys() >= {*numbers}:
            raise UndecodableImage(detail=f"a scan of components {numbers}")
        if not self._progressive:
            first, last, previous_bit, lowest_bit = 0, _COEFFICIENTS - 1, 0, 0
        for number in numbers:
            lowest_bits = self._components[number].lowest_bits
            for coefficient in range(first, min(last + 1, _COEFFICIENTS)):
                # A refinement scan counts only if an earlier scan contains the previous bit.
                if not previous_bit or lowest_bits[coefficient] <= previous_bit:
                    lowest_bits[coefficient] = lowest_bit
        if restart_interval:
            needed = -(-self._mcu_count(numbers) // restart_interval) - 1
            data = scan.tobytes()
            found = sum(data.count(bytes((0xFF, 0xD0 + number))) for number in range(8))
            if found < needed:
                raise UndecodableImage(detail=f"{found} restart markers, {needed} needed")

    def _mcu_count(self, numbers: list[int]) -> int:
        """Return the number of MCUs (minimum coded units) in a scan of the components `numbers` (A.2)."""
        across = max(each.across for each in self._components.values())
        down = max(each.down for each in self._components.values())
        width, height = self.size
        if len(numbers) == 1:
            component = self._components[numbers[0]]
            width, height = -(-width * component.across // across), -(-height * component.down // down)
            across = down = 1
        return -(-width // (8 * across)) * -(-height // (8 * down))

    def check_complete(self) -> None:
        """Raise UndecodableImage unless the scans contain all bits of every coefficient of every component.

        All encoders write all bits. If some are missing in a progressive file, the file was truncated between
        two scans.
        """
        for number, component in self._components.items():
            if any(component.lowest_bits):
                raise UndecodableImage(detail=f"component {number} was not sent to its last bit")
