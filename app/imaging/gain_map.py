"""Gain maps in JPEG files ("Ultra HDR"): finds one, and writes what readers need to find and apply it.

The gain map is a JPEG behind the picture. Readers find it by the index of a multi-picture file (CIPA
DC-007), by a directory in the picture's XMP, or because it comes next. How to apply it is said in its own XMP
(https://developer.android.com/media/platform/hdr-image-format), in a segment of ISO 21496-1, or in both, and
the picture announces which. All of that is written again from its numbers, so that nothing else rides on it.
"""

import re
import struct
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import Literal, NamedTuple
from xml.etree import ElementTree

from app.core.errors import UndecodableImage
from app.imaging.jpeg_segments import APP1, APP2, SOS, Segment, first_place, inserted, segments
from app.imaging.survey import ByteReader, GainMap

_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_ISO = b"urn:iso:std:iso:ts:21496:-1\0"
_MPF = b"MPF\0"

_MOST_PICTURES = 8
"""Pictures of a multi-picture file that are looked at; phones write two to four."""
_MOST_SEGMENTS = 8
"""Segments of XMP or with an index that are looked at, in a picture; there is one of each, or two of XMP."""
_MOST_BEFORE_PIXELS = 200
"""Segments of a gain map before its pixels, of which a dozen are usual and more than a hundred may be its
colour profile."""

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_HDRGM = "http://ns.adobe.com/hdr-gain-map/1.0/"
_CONTAINER = "http://ns.google.com/photos/1.0/container/"

_FRACTION = r"[+-]?(\d{1,20}(\.\d{0,20})?|\.\d{1,20})([eE][+-]?\d{1,3})?"
_FIELDS = {
    "Version": re.compile(r"\d{1,3}\.\d{1,3}"),
    "BaseRenditionIsHDR": re.compile(r"[Tt]rue|[Ff]alse"),
    **dict.fromkeys(("GainMapMin", "GainMapMax", "Gamma", "OffsetSDR", "OffsetHDR"), re.compile(_FRACTION)),
    **dict.fromkeys(("HDRCapacityMin", "HDRCapacityMax"), re.compile(_FRACTION)),
}
"""Fields of the XMP. Browsers have a default for each but the version; libultrahdr needs GainMapMax, too."""
_CHANNELS = (1, 3)

_MANY_CHANNELS, _COMMON_DENOMINATOR = 0x80, 0x08
"""Flags of ISO 21496-1, annex C."""

_MP_ENTRIES = 0xB002
_BYTE_ORDERS: dict[bytes, Literal["little", "big"]] = {b"II*\0": "little", b"MM\0*": "big"}
_MP_HEADER = struct.pack(
    ">4sIHHHI4sHHIIHHIII",
    *(b"MM\0*", 8, 3),
    *(0xB000, 7, 4, b"0100"),
    *(0xB001, 4, 1, 2),
    *(_MP_ENTRIES, 7, 32, 50),
    0,
)
"""The index of two pictures, up to the entries (DC-007, 5.2)."""
_MP_ENTRY = 16
_PRIMARY, _SECONDARY = 0x030000, 0
"""Types of pictures (5.2.3.3)."""


class Found(NamedTuple):
    """Where a gain map starts, and how to apply it: `parameters` as XMP, `iso` as in ISO 21496-1."""

    start: int
    parameters: bytes
    iso: bytes


class Announced:
    """What the segments of the picture say about its gain map."""

    def __init__(self) -> None:
        self.xmp = self.iso = False
        self.starts: list[int] = []
        self._left = _MOST_SEGMENTS

    def read(self, segment: Segment) -> None:
        """Read a segment of the picture; damage is ignored, and so is whatever belongs to no gain map."""
        if segment.marker == APP2 and segment.payload.startswith(_ISO):
            self.iso |= segment.payload[len(_ISO) :][:2] == b"\0\0"
        elif self._left and segment.marker == APP1 and segment.payload.startswith(_XMP):
            self._left -= 1
            self.xmp |= "Version" in _xmp_fields(segment.payload)
        elif self._left and segment.marker == APP2 and segment.payload.startswith(_MPF):
            self._left -= 1
            with suppress(UndecodableImage):
                self.starts += islice(_starts(segment), _MOST_PICTURES)


def find(data: bytes, end: int, announced: Announced) -> Found | None:
    """Return the first gain map among the pictures that come at `end` or later; None if there is none.

    Raises UndecodableImage if one of the pictures looked at is damaged before its pixels begin.
    """
    if not (announced.xmp or announced.iso):
        return None
    for start in dict.fromkeys([*announced.starts[:_MOST_PICTURES], end]):
        if start >= end and data[start : start + 3] == b"\xff\xd8\xff":
            found = _described(data, start, announced)
            if found.parameters or found.iso:
                return found
    return None


def joined(picture: bytes, small: bytes, gain_map: GainMap) -> bytes:
    """Return one file of a picture and its gain map `small`, two JPEGs without metadata."""
    own, announcing = [], []
    if gain_map.parameters:
        own.append(Segment(APP1, _XMP + gain_map.parameters))
    if gain_map.iso:
        own.append(Segment(APP2, _ISO + gain_map.iso))
        announcing.append(Segment(APP2, _ISO + bytes(4)))
    second = inserted(small, *own)
    if gain_map.parameters:
        announcing.insert(0, Segment(APP1, _XMP + _directory(len(second))))
    index = Segment(APP2, _MPF + _MP_HEADER + bytes(_MP_ENTRY * 2))
    length = len(inserted(picture, *announcing, index))
    # Offsets count from the byte order mark of the index.
    mark = first_place(picture) + sum(len(each.encoded()) for each in announcing) + 4 + len(_MPF)
    entries = struct.pack(
        ">IIIHHIIIHH",
        *(_PRIMARY, length, 0, 0, 0),
        *(_SECONDARY, len(second), length - mark, 0, 0),
    )
    return inserted(picture, *announcing, Segment(APP2, _MPF + _MP_HEADER + entries)) + second


def _starts(index: Segment) -> Iterator[int]:
    """Yield the offsets in the file of all pictures but the first (DC-007, 5.2.3)."""
    tiff = index.payload[len(_MPF) :]
    order = _BYTE_ORDERS.get(tiff[:4], "big")
    directory = ByteReader(tiff, int.from_bytes(tiff[4:8], order))
    for _ in range(int.from_bytes(directory.take(2), order)):
        entry = directory.take(12)
        if int.from_bytes(entry[:2], order) == _MP_ENTRIES:
            size, at = int.from_bytes(entry[4:8], order), int.from_bytes(entry[8:12], order)
            pictures = ByteReader(tiff, at, at + size)
            pictures.skip(_MP_ENTRY)
            while pictures.left >= _MP_ENTRY:
                picture = pictures.take(_MP_ENTRY)
                yield index.start + len(_MPF) + int.from_bytes(picture[8:12], order)


def _described(data: bytes, start: int, announced: Announced) -> Found:
    """Return what the JPEG at `start` says of itself, in the forms that the picture announced."""
    parameters = iso = b""
    for segment in islice(segments(data, start), _MOST_BEFORE_PIXELS):
        if segment.marker == SOS:
            break
        if announced.xmp and segment.marker == APP1 and segment.payload.startswith(_XMP):
            fields = _xmp_fields(segment.payload)
            parameters = _packet(fields) if "Version" in fields else parameters
        elif announced.iso and segment.marker == APP2 and segment.payload.startswith(_ISO):
            iso = _iso_numbers(segment.payload[len(_ISO) :]) or iso
    return Found(start, parameters, iso)


def _iso_numbers(payload: bytes) -> bytes:
    """Return the numbers of ISO 21496-1, annex C, without what follows them; nothing if they are cut."""
    if len(payload) < 5 or payload[:2] != b"\0\0":
        return b""
    channels = 3 if payload[4] & _MANY_CHANNELS else 1
    size = 12 + 20 * channels if payload[4] & _COMMON_DENOMINATOR else 16 + 40 * channels
    return payload[: 5 + size] if len(payload) >= 5 + size else b""


def _xmp_fields(payload: bytes) -> dict[str, tuple[str, ...]]:
    """Return the fields of a gain map in a segment of XMP, each with a value for all channels or for each.

    Nothing if it has none, or invalid ones.
    """
    try:
        text = payload[len(_XMP) :].decode().strip("\0 \t\r\n")
        if _HDRGM not in text or "<!DOCTYPE" in text:
            return {}
        root = ElementTree.fromstring(text)
    except (UnicodeDecodeError, ElementTree.ParseError, ValueError):
        return {}
    found: dict[str, tuple[str, ...]] = {}
    for description in root.iter(f"{{{_RDF}}}Description"):
        for name in _FIELDS:
            if values := _values(description, f"{{{_HDRGM}}}{name}"):
                found[name] = values
    valid = all(
        len(values) in _CHANNELS and all(map(_FIELDS[name].fullmatch, values))
        for name, values in found.items()
    )
    return found if valid else {}


def _values(description: ElementTree.Element, name: str) -> tuple[str, ...]:
    """Return the value of a property, or its values if it is a list (XMP, part 1, 7.4 to 7.7)."""
    attribute = description.get(name)
    if attribute is not None:
        return (attribute.strip(),)
    element = description.find(name)
    if element is None:
        return ()
    items = element.findall(f"{{{_RDF}}}Seq/{{{_RDF}}}li")
    return tuple((item.text or "").strip() for item in items or [element])


def _packet(fields: dict[str, tuple[str, ...]]) -> bytes:
    """Return the XMP of a gain map that has these fields."""
    attributes, lists = "", ""
    for name in (name for name in _FIELDS if name in fields):
        values = fields[name]
        if len(values) == 1:
            attributes += f' hdrgm:{name}="{values[0]}"'
        else:
            items = "".join(f"<rdf:li>{value}</rdf:li>" for value in values)
            lists += f"<hdrgm:{name}><rdf:Seq>{items}</rdf:Seq></hdrgm:{name}>"
    return _description(f'xmlns:hdrgm="{_HDRGM}"{attributes}', lists)


def _directory(size: int) -> bytes:
    """Return the XMP of a picture whose gain map, of `size` bytes, comes next."""
    namespaces = (
        f'xmlns:Container="{_CONTAINER}" xmlns:Item="{_CONTAINER}item/"'
        f' xmlns:hdrgm="{_HDRGM}" hdrgm:Version="1.0"'
    )
    items = "".join(
        f'<rdf:li rdf:parseType="Resource"><Container:Item {item} Item:Mime="image/jpeg"{length}/></rdf:li>'
        for item, length in (
            ('Item:Semantic="Primary"', ""),
            ('Item:Semantic="GainMap"', f' Item:Length="{size}"'),
        )
    )
    return _description(namespaces, f"<Container:Directory><rdf:Seq>{items}</rdf:Seq></Container:Directory>")


def _description(attributes: str, content: str) -> bytes:
    return (
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{_RDF}">'
        f'<rdf:Description rdf:about="" {attributes}>{content}</rdf:Description></rdf:RDF></x:xmpmeta>'
    ).encode()
