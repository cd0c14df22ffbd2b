"""Gain maps in JPEG files ("Ultra HDR"): find the gain map, and write the metadata that readers need for it.

The gain map is a second JPEG after the picture. Readers find it through the MP index of a multi-picture file
(CIPA DC-007), through a directory in the XMP of the picture, or directly after the picture.

The gain map contains parameters that say how to apply it. They are stored as XMP
(https://developer.android.com/media/platform/hdr-image-format), in a segment defined by ISO 21496-1, or in
both forms. The picture declares which of the two forms the gain map contains.

This module parses the parameters and the MP index into numbers, and writes new ones from these numbers, so
that no other metadata remains in them.
"""

import re
import struct
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import Literal, NamedTuple
from xml.etree import ElementTree

from app.core.errors import UndecodableImage
from app.imaging.jpeg_segments import (
    APP1,
    APP2,
    SOS,
    START,
    Segment,
    insert_segments,
    insertion_offset,
    segments,
)
from app.imaging.survey import ByteReader, GainMap

_XMP_PREFIX = b"http://ns.adobe.com/xap/1.0/\0"
_ISO_PREFIX = b"urn:iso:std:iso:ts:21496:-1\0"
_MPF_PREFIX = b"MPF\0"

_MAX_PICTURES = 8
"""Maximum number of pictures that are examined in a multi-picture file. Phones write two to four."""
_MAX_METADATA_SEGMENTS = 8
"""Maximum number of segments with XMP or an MP index that are parsed in one picture. Most pictures have one
of each, or one with an MP index and two with XMP."""
_MAX_SEGMENTS_BEFORE_PIXELS = 200
"""Maximum number of segments of a gain map that are read to find its pixels. Usually a dozen segments precede
the pixels, but more than a hundred if the gain map has a large colour profile."""

_RDF_NAMESPACE = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_HDRGM_NAMESPACE = "http://ns.adobe.com/hdr-gain-map/1.0/"
_CONTAINER_NAMESPACE = "http://ns.google.com/photos/1.0/container/"

_NUMBER = r"[+-]?(\d{1,20}(\.\d{0,20})?|\.\d{1,20})([eE][+-]?\d{1,3})?"
_XMP_FIELDS = {
    "Version": re.compile(r"\d{1,3}\.\d{1,3}"),
    "BaseRenditionIsHDR": re.compile(r"[Tt]rue|[Ff]alse"),
    **dict.fromkeys(("GainMapMin", "GainMapMax", "Gamma", "OffsetSDR", "OffsetHDR"), re.compile(_NUMBER)),
    **dict.fromkeys(("HDRCapacityMin", "HDRCapacityMax"), re.compile(_NUMBER)),
}
"""Patterns of the valid values, keyed by field. In browsers, each field except the version has a default.
libultrahdr also requires GainMapMax."""
_CHANNEL_COUNTS = (1, 3)

_MULTICHANNEL_FLAG, _COMMON_DENOMINATOR_FLAG = 0x80, 0x08
"""Flags of the parameters in ISO 21496-1, annex C."""

_MP_ENTRY_TAG = 0xB002
_BYTE_ORDERS: dict[bytes, Literal["little", "big"]] = {b"II*\0": "little", b"MM\0*": "big"}
_MP_HEADER = struct.pack(
    ">4sIHHHI4sHHIIHHIII",
    *(b"MM\0*", 8, 3),
    *(0xB000, 7, 4, b"0100"),
    *(0xB001, 4, 1, 2),
    *(_MP_ENTRY_TAG, 7, 32, 50),
    0,
)
"""The MP index of a file with two pictures, without the entries that follow (DC-007, 5.2)."""
_MP_ENTRY_BYTES = 16
_PRIMARY_PICTURE, _OTHER_PICTURE = 0x030000, 0
"""Types of pictures in the MP index (5.2.3.3)."""


class FoundGainMap(NamedTuple):
    """A gain map found in a file.

    `start` is its offset in the file. `xmp` and `iso` say how to apply it: `xmp` as XMP, and `iso` in the
    form of ISO 21496-1. One of the two may be empty.
    """

    start: int
    xmp: bytes
    iso: bytes


class GainMapAnnouncement:
    """What the segments of a picture say about its gain map.

    `xmp` is true if they declare that the gain map has parameters in XMP, and `iso` if they declare that it
    has parameters in the form of ISO 21496-1. `starts` lists the offsets of all pictures in the file but the
    first.
    """

    def __init__(self) -> None:
        self.xmp = self.iso = False
        self.starts: list[int] = []
        self._remaining = _MAX_METADATA_SEGMENTS

    def read(self, segment: Segment) -> None:
        """Read a segment of the picture. Segments that are damaged or unrelated to gain maps are ignored."""
        if segment.marker == APP2 and segment.payload.startswith(_ISO_PREFIX):
            self.iso |= segment.payload[len(_ISO_PREFIX) :][:2] == b"\0\0"
        elif self._remaining and segment.marker == APP1 and segment.payload.startswith(_XMP_PREFIX):
            self._remaining -= 1
            self.xmp |= "Version" in _xmp_fields(segment.payload)
        elif self._remaining and segment.marker == APP2 and segment.payload.startswith(_MPF_PREFIX):
            self._remaining -= 1
            with suppress(UndecodableImage):
                self.starts += islice(_picture_starts(segment), _MAX_PICTURES)


def find_gain_map(data: bytes, end: int, announcement: GainMapAnnouncement) -> FoundGainMap | None:
    """Return the first gain map among the pictures at or after offset `end`, or None if there is none.

    Raises UndecodableImage if an examined picture is damaged before its pixels begin.
    """
    if not (announcement.xmp or announcement.iso):
        return None
    for start in dict.fromkeys([*announcement.starts[:_MAX_PICTURES], end]):
        if start >= end and data[start : start + 3] == START + b"\xff":
            found = _read_description(data, start, announcement)
            if found.xmp or found.iso:
                return found
    return None


def append_gain_map(picture: bytes, clean: bytes, gain_map: GainMap) -> bytes:
    """Return a file that contains `picture` and the gain map `clean`, both of them JPEGs without metadata.

    The parameters in `gain_map` are added to the gain map. Segments that declare the parameters are added to
    the picture.
    """
    description, announcement = [], []
    if gain_map.xmp:
        description.append(Segment(APP1, _XMP_PREFIX + gain_map.xmp))
    if gain_map.iso:
        description.append(Segment(APP2, _ISO_PREFIX + gain_map.iso))
        announcement.append(Segment(APP2, _ISO_PREFIX + bytes(4)))
    second = insert_segments(clean, *description)
    if gain_map.xmp:
        announcement.insert(0, Segment(APP1, _XMP_PREFIX + _directory_xmp(len(second))))
    index = Segment(APP2, _MPF_PREFIX + _MP_HEADER + bytes(_MP_ENTRY_BYTES * 2))
    length = len(insert_segments(picture, *announcement, index))
    # Offsets count from the byte order mark of the MP index.
    announcement_bytes = sum(len(each.encoded()) for each in announcement)
    mark = insertion_offset(picture) + announcement_bytes + 4 + len(_MPF_PREFIX)
    entries = struct.pack(
        ">IIIHHIIIHH",
        *(_PRIMARY_PICTURE, length, 0, 0, 0),
        *(_OTHER_PICTURE, len(second), length - mark, 0, 0),
    )
    index = Segment(APP2, _MPF_PREFIX + _MP_HEADER + entries)
    return insert_segments(picture, *announcement, index) + second


def _picture_starts(index: Segment) -> Iterator[int]:
    """Yield the offsets of all pictures except the first, as given by the MP index (DC-007, 5.2.3)."""
    tiff = index.payload[len(_MPF_PREFIX) :]
    order = _BYTE_ORDERS.get(tiff[:4], "big")
    directory = ByteReader(tiff, int.from_bytes(tiff[4:8], order))
    for _ in range(int.from_bytes(directory.read(2), order)):
        entry = directory.read(12)
        if int.from_bytes(entry[:2], order) == _MP_ENTRY_TAG:
            size, at = int.from_bytes(entry[4:8], order), int.from_bytes(entry[8:12], order)
            pictures = ByteReader(tiff, at, at + size)
            pictures.skip(_MP_ENTRY_BYTES)
            while pictures.remaining >= _MP_ENTRY_BYTES:
                picture = pictures.read(_MP_ENTRY_BYTES)
                yield index.start + len(_MPF_PREFIX) + int.from_bytes(picture[8:12], order)


def _read_description(data: bytes, start: int, announcement: GainMapAnnouncement) -> FoundGainMap:
    """Read the parameters of the gain map at `start`, in the forms that the picture declares.

    If the JPEG at `start` is not a gain map, `xmp` and `iso` of the result are empty.
    """
    xmp = iso = b""
    for segment in islice(segments(data, start), _MAX_SEGMENTS_BEFORE_PIXELS):
        if segment.marker == SOS:
            break
        if announcement.xmp and segment.marker == APP1 and segment.payload.startswith(_XMP_PREFIX):
            fields = _xmp_fields(segment.payload)
            xmp = _xmp_packet(fields) if "Version" in fields else xmp
        elif announcement.iso and segment.marker == APP2 and segment.payload.startswith(_ISO_PREFIX):
            iso = _iso_numbers(segment.payload[len(_ISO_PREFIX) :]) or iso
    return FoundGainMap(start, xmp, iso)


def _iso_numbers(payload: bytes) -> bytes:
    """Return the parameters in the form of ISO 21496-1, annex C, without the bytes that follow them.

    Return empty bytes if the parameters are truncated.
    """
    if len(payload) < 5 or payload[:2] != b"\0\0":
        return b""
    channels = 3 if payload[4] & _MULTICHANNEL_FLAG else 1
    size = 12 + 20 * channels if payload[4] & _COMMON_DENOMINATOR_FLAG else 16 + 40 * channels
    return payload[: 5 + size] if len(payload) >= 5 + size else b""


def _xmp_fields(payload: bytes) -> dict[str, tuple[str, ...]]:
    """Return a dict of the fields that describe the gain map in a segment of XMP, from names to values.

    Each field has either one value for all channels or one value for each channel. Return an empty dict if
    the segment has no such fields, or if one of them is invalid.
    """
    try:
        text = payload[len(_XMP_PREFIX) :].decode().strip("\0 \t\r\n")
        if _HDRGM_NAMESPACE not in text or "<!DOCTYPE" in text:
            return {}
        root = ElementTree.fromstring(text)
    except (UnicodeDecodeError, ElementTree.ParseError, ValueError):
        return {}
    found: dict[str, tuple[str, ...]] = {}
    for description in root.iter(f"{{{_RDF_NAMESPACE}}}Description"):
        for name in _XMP_FIELDS:
            if values := _property_values(description, f"{{{_HDRGM_NAMESPACE}}}{name}"):
                found[name] = values
    valid = all(
        len(values) in _CHANNEL_COUNTS and all(map(_XMP_FIELDS[name].fullmatch, values))
        for name, values in found.items()
    )
    return found if valid else {}


def _property_values(description: ElementTree.Element, name: str) -> tuple[str, ...]:
    """Return a tuple of the values of a property (XMP, part 1, 7.4 to 7.7).

    A list may have several values; any other property has one. Return an empty tuple if the property is
    missing.
    """
    attribute = description.get(name)
    if attribute is not None:
        return (attribute.strip(),)
    element = description.find(name)
    if element is None:
        return ()
    items = element.findall(f"{{{_RDF_NAMESPACE}}}Seq/{{{_RDF_NAMESPACE}}}li")
    return tuple((item.text or "").strip() for item in items or [element])


def _xmp_packet(fields: dict[str, tuple[str, ...]]) -> bytes:
    """Return the XMP of a gain map that has these fields."""
    attributes, lists = "", ""
    for name in (name for name in _XMP_FIELDS if name in fields):
        values = fields[name]
        if len(values) == 1:
            attributes += f' hdrgm:{name}="{values[0]}"'
        else:
            items = "".join(f"<rdf:li>{value}</rdf:li>" for value in values)
            lists += f"<hdrgm:{name}><rdf:Seq>{items}</rdf:Seq></hdrgm:{name}>"
    return _xmp_document(f'xmlns:hdrgm="{_HDRGM_NAMESPACE}"{attributes}', lists)


def _directory_xmp(size: int) -> bytes:
    """Return XMP for a picture that is followed by a gain map of `size` bytes."""
    namespaces = (
        f'xmlns:Container="{_CONTAINER_NAMESPACE}" xmlns:Item="{_CONTAINER_NAMESPACE}item/"'
        f' xmlns:hdrgm="{_HDRGM_NAMESPACE}" hdrgm:Version="1.0"'
    )
    items = "".join(
        f'<rdf:li rdf:parseType="Resource"><Container:Item {item} Item:Mime="image/jpeg"{length}/></rdf:li>'
        for item, length in (
            ('Item:Semantic="Primary"', ""),
            ('Item:Semantic="GainMap"', f' Item:Length="{size}"'),
        )
    )
    return _xmp_document(namespaces, f"<Container:Directory><rdf:Seq>{items}</rdf:Seq></Container:Directory>")


def _xmp_document(attributes: str, content: str) -> bytes:
    return (
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{_RDF_NAMESPACE}">'
        f'<rdf:Description rdf:about="" {attributes}>{content}</rdf:Description></rdf:RDF></x:xmpmeta>'
    ).encode()
