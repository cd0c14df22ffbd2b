"""Write photos with a gain map as phones and image editors do, and read such files."""

import re
import struct
from typing import NamedTuple

from .samples import MARKER, exif, inserted, jpeg_segment, picture, saved

XMP = b"http://ns.adobe.com/xap/1.0/\0"
ISO = b"urn:iso:std:iso:ts:21496:-1\0"
MPF = b"MPF\0"
SIZE, SMALL = (96, 64), (24, 16)
ISO_NUMBERS = struct.pack(">HHB", 0, 0, 0) + struct.pack(
    ">14I", *[0, 1, 3, 1], *[0, 1, 3, 1, 1, 1, 1, 64, 1, 64]
)
ISO_OF_THREE = struct.pack(">HHB", 0, 0, 0x88) + struct.pack(">18I", 64, 0, 192, *[0, 192, 64, 1, 1] * 3)

FIELDS = (
    'hdrgm:Version="1.0" hdrgm:GainMapMin="-0.5" hdrgm:GainMapMax="2.3" hdrgm:Gamma="1"'
    ' hdrgm:OffsetSDR="0.015625" hdrgm:OffsetHDR="0.015625" hdrgm:HDRCapacityMin="0"'
    ' hdrgm:HDRCapacityMax="2.3" hdrgm:BaseRenditionIsHDR="False"'
)
ELEMENTS = (
    "<hdrgm:GainMapMax><rdf:Seq><rdf:li>2.1</rdf:li><rdf:li>2.2</rdf:li><rdf:li>2.3</rdf:li></rdf:Seq>"
    "</hdrgm:GainMapMax><hdrgm:HDRCapacityMax>2.3</hdrgm:HDRCapacityMax><hdrgm:Gamma>1.5</hdrgm:Gamma>"
)


def packet(attributes: str, content: str = "") -> bytes:
    """Return a segment of XMP that contains a person's name."""
    return jpeg_segment(
        0xE1,
        XMP
        + (
            '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
            '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""'
            ' xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/"'
            f' xmlns:C="http://ns.google.com/photos/1.0/container/" dc:creator="{MARKER.decode()}"'
            f" {attributes}>"
            f'{content}</rdf:Description></rdf:RDF></x:xmpmeta>   <?xpacket end="w"?>'
        ).encode(),
    )


def index(pictures: list[tuple[int, int, int]], *, order: str = ">") -> bytes:
    """Return the MP index (DC-007) of pictures, given as (type, size, offset from the byte order mark)."""
    head = (b"MM\0*" if order == ">" else b"II*\0") + struct.pack(order + "IH", 8, 3)
    entries = struct.pack(order + "HHI4s", 0xB000, 7, 4, b"0100") + struct.pack(
        order + "HHIIHHIII", *(0xB001, 4, 1, len(pictures)), *(0xB002, 7, 16 * len(pictures), 50), 0
    )
    table = b"".join(struct.pack(order + "IIIHH", *each, 0, 0) for each in pictures)
    return jpeg_segment(0xE2, MPF + head + entries + table)


def gain_map(xmp: bytes = b"", iso: bytes = ISO_NUMBERS, *, mode: str = "L", variant: int = 1) -> bytes:
    """Return the second picture of a photo, with the metadata of a gain map."""
    own = jpeg_segment(0xE1, exif()) + xmp + (jpeg_segment(0xE2, ISO + iso + MARKER) if iso else b"")
    return inserted(saved(picture(variant, mode, SMALL), "jpeg", quality=90), 20, own)


def photo(
    second: bytes,
    *,
    xmp: bytes = b"",
    iso: bool = True,
    orientation: int = 1,
    order: str = ">",
    between: bytes = b"",
) -> bytes:
    """Return a photo, followed by `between` and by `second`, which is listed in the MP index of the photo."""
    plain = saved(picture(size=SIZE), "jpeg", quality=90)
    own = jpeg_segment(0xE1, exif(orientation)) + xmp
    own += jpeg_segment(0xE2, ISO + bytes(4) + MARKER) if iso else b""
    length = len(plain) + len(own) + len(index([(0, 0, 0)] * 2))
    mark = 20 + len(own) + 8
    own += index([(0x030000, length, 0), (0, len(second), length + len(between) - mark)], order=order)
    return inserted(plain, 20, own) + between + second


class Read(NamedTuple):
    """The two pictures of a file, found through its MP index, and the segments before the pixels of each."""

    pictures: list[bytes]
    segments: list[list[tuple[int, bytes]]]

    def payload(self, picture: int, start: bytes) -> bytes:
        """Return the rest of the first segment that begins with `start`, or raise StopIteration."""
        return next(payload for _, payload in self.segments[picture] if payload.startswith(start))[
            len(start) :
        ]


def read(data: bytes) -> Read:
    """Read a file through its MP index. Assert that the index and the XMP directory agree with the file."""
    first = _segments(data)
    at, payload = next((at, payload) for at, payload in first if payload.startswith(MPF))
    mark = at + len(MPF)
    assert payload[4:8] == b"MM\0*"
    number, entries = struct.unpack_from(">I", payload, 4 + 30)[0], payload[4 + 50 :]
    assert number == 2
    assert len(entries) == 32
    kind, length, zero = struct.unpack_from(">III", entries)
    _, size, offset = struct.unpack_from(">III", entries, 16)
    assert (kind, zero) == (0x030000, 0)
    start = mark + offset
    assert (start, start + size) == (length, len(data))
    pictures = [data[:length], data[start:]]
    assert all(each[:2] == b"\xff\xd8" and each[-2:] == b"\xff\xd9" for each in pictures)
    found = Read(pictures, [first, _segments(pictures[1])])
    for _, payload in first:
        if payload.startswith(XMP):
            items = re.findall(
                rb'Item:Semantic="(\w+)" Item:Mime="image/jpeg"(?: Item:Length="(\d+)")?', payload
            )
            assert items == [(b"Primary", b""), (b"GainMap", b"%d" % size)]
    return found


def _segments(data: bytes) -> list[tuple[int, bytes]]:
    """Return the offset and the payload of every segment up to the first scan."""
    found, at = [], 2
    while data[at + 1] != 0xDA:
        length = struct.unpack_from(">H", data, at + 2)[0]
        found.append((at + 4, data[at + 4 : at + 2 + length]))
        at += 2 + length
    return found
