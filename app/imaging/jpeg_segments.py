"""What the scans of a JPEG add up to: whether every coefficient of every component is there.

The segments of a JPEG (ITU-T T.81, annex B), for everything that reads or rewrites one.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from app.core.errors import UndecodableImage
from app.imaging.survey import ByteReader

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


_PROGRESSIVE = 0xC2
SUPPORTED = {0xC0, 0xC1, _PROGRESSIVE}
"""Baseline, extended and progressive with Huffman codes. No browser draws arithmetically coded, lossless or
hierarchical JPEG, and decoding arithmetic codes takes long even if there are few bytes."""
_BITS = 8
"""Bits of a sample that browsers draw; extended and progressive files may have 12 (B.2.2)."""
_COEFFICIENTS = 64
_UNSENT = 255


class _Component(NamedTuple):
    """Sampling factors, and for each coefficient the lowest of its bits that was sent."""

    across: int
    down: int
    lowest: bytearray


class Frame:
    """A frame header (B.2.2), and what the scans that follow it have sent.

    Raises UndecodableImage for a kind of frame that browsers don't draw.
    """

    def __init__(self, marker: int, payload: bytes) -> None:
        reader = ByteReader(payload)
        bits, height, width = reader.big(1), reader.big(2), reader.big(2)
        if marker not in SUPPORTED or bits != _BITS:
            raise UndecodableImage(detail=f"unsupported frame type 0x{marker:02x}, {bits} bits")
        self.size = width, height
        self._progressive = marker == _PROGRESSIVE
        self._components: dict[int, _Component] = {}
        for _ in range(reader.big(1)):
            number, sampling = reader.big(1), reader.big(1)
            reader.skip(1)
            lowest = bytearray([_UNSENT] * _COEFFICIENTS)
            self._components[number] = _Component(sampling >> 4, sampling & 15, lowest)
        if any(not (each.across and each.down) for each in self._components.values()):
            raise UndecodableImage(detail="a sampling factor of 0")

    def scan(self, payload: bytes, scan: bytes, restart_interval: int) -> None:
        """Read a scan header (B.2.3) and count the restart markers in the scan.

        Raises UndecodableImage if the scan names an unknown component, or if it ends before the last restart
        interval. A decoder tells neither: it fills the rest with grey.
        """
        reader = ByteReader(payload)
        numbers = [reader.big(2) >> 8 for _ in range(reader.big(1))]
        first, last, bits = reader.big(1), reader.big(1), reader.big(1)
        before, bits = bits >> 4, bits & 15
        if not numbers or not self._components.keys() >= {*numbers}:
            raise UndecodableImage(detail=f"a scan of components {numbers}")
        if not self._progressive:
            first, last, before, bits = 0, _COEFFICIENTS - 1, 0, 0
        for number in numbers:
            lowest = self._components[number].lowest
            for coefficient in range(first, min(last + 1, _COEFFICIENTS)):
                # A scan that refines needs the one before it.
                if not before or lowest[coefficient] <= before:
                    lowest[coefficient] = bits
        if restart_interval:
            needed = -(-self._units(numbers) // restart_interval) - 1
            found = sum(scan.count(bytes((0xFF, 0xD0 + number))) for number in range(8))
            if found < needed:
                raise UndecodableImage(detail=f"{found} restart markers, {needed} needed")

    def _units(self, numbers: list[int]) -> int:
        """Return how many MCUs a scan of these components has (A.2)."""
        across = max(each.across for each in self._components.values())
        down = max(each.down for each in self._components.values())
        width, height = self.size
        if len(numbers) == 1:
            component = self._components[numbers[0]]
            width, height = -(-width * component.across // across), -(-height * component.down // down)
            across = down = 1
        return -(-width // (8 * across)) * -(-height // (8 * down))

    def check_sent(self) -> None:
        """Raise UndecodableImage unless all coefficients of all components were sent to the last bit.

        Every encoder does so in the end; a progressive file that doesn't was cut between two scans.
        """
        for number, component in self._components.items():
            if any(component.lowest):
                raise UndecodableImage(detail=f"component {number} is not sent to its last bit")
