"""AVIF files assembled from AV1 bitstreams encoded by Pillow, so that tests can falsify each table."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

from PIL import Image

from tests.imaging.samples import box, picture, saved

FTYP = box(b"ftyp", b"avif\0\0\0\0avifmif1miaf")
AVIS = box(b"ftyp", b"avis\0\0\0\0avismsf1iso8miaf")
ALPHA = b"\0\0\0\0urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0"
HANDLER = bytes(8) + b"pict" + bytes(13)


@cache
def av1(size: tuple[int, int], variant: int = 0, mode: str = "RGB") -> bytes:
    """Return the bitstream of one frame: a temporal delimiter, a sequence header, and the frame."""
    image = picture(variant, mode, size) if max(size) < 500 else Image.new(mode, size, 90)
    data = saved(image, "avif", speed=10)
    return data[data.index(b"mdat") + 4 :]


@cache
def av1_frames(size: tuple[int, int], count: int) -> tuple[bytes, ...]:
    """Return the bitstream of an animation, split into its samples."""
    frames = [picture(variant, size=size) for variant in range(count)]
    data = saved(frames[0], "avif", save_all=True, append_images=frames[1:], speed=10)
    table, start = data.index(b"stsz") + 12, data.index(b"mdat") + 4
    samples = []
    for at in range(table + 4, table + 4 + 4 * count, 4):
        (length,) = struct.unpack_from(">I", data, at)
        samples.append(data[start : start + length])
        start += length
    return tuple(samples)


def av1c(units: bytes = b"") -> bytes:
    """Return the codec configuration that Pillow writes for colour images."""
    return box(b"av1C", b"\x81\x00\x0c\x00" + units)


def ispe(width: int, height: int) -> bytes:
    """Return the property with the size of an item."""
    return box(b"ispe", struct.pack(">III", 0, width, height))


@dataclass
class Item:
    """One item. Items are numbered from 1 in their order. `pieces` are offsets and lengths in the payload."""

    payload: bytes
    properties: list[bytes]
    kind: bytes = b"av01"
    pieces: list[tuple[int, int]] | None = None
    method: int = 0


def picture_item(size: tuple[int, int], declared: tuple[int, int] | None = None, variant: int = 0) -> Item:
    """Return an AV1 item of this size. Its property declares the size `declared`, by default the true one."""
    return Item(av1(size, variant), [ispe(*(declared or size)), av1c()])


def grid_item(rows: int, columns: int, canvas: tuple[int, int]) -> Item:
    """Return a grid item: an image that is composed of cells."""
    payload = struct.pack(">BBBBHH", 0, 0, rows - 1, columns - 1, *canvas)
    return Item(payload, [ispe(*canvas)], kind=b"grid")


Reference = tuple[bytes, int, Sequence[int]]


def still(
    items: list[Item], references: Sequence[Reference] = (), *, primary: int = 1, more: bytes = b""
) -> bytes:
    """Return a file with these items. Their payloads are in `mdat`, in order. `more` goes into `meta`."""
    front = FTYP + _meta(items, references, primary, more, 0)
    return FTYP + _meta(items, references, primary, more, len(front) + 8) + _media(items)


def _media(items: list[Item]) -> bytes:
    return box(b"mdat", b"".join(item.payload for item in items))


def _meta(items: list[Item], references: Sequence[Reference], primary: int, more: bytes, start: int) -> bytes:
    properties = list(dict.fromkeys(each for item in items for each in item.properties))
    infos, places, owned = b"", b"", b""
    for number, item in enumerate(items, 1):
        infos += box(b"infe", struct.pack(">IHH", 2 << 24, number, 0) + item.kind + b"\0\0")
        pieces = item.pieces or [(0, len(item.payload))]
        places += struct.pack(">HHHH", number, item.method, 0, len(pieces))
        places += b"".join(struct.pack(">II", (start + at) % 2**32, length) for at, length in pieces)
        start += len(item.payload)
        indexes = [properties.index(each) + 1 for each in item.properties]
        owned += struct.pack(">HB", number, len(indexes)) + bytes(indexes)
    linked = b"".join(
        box(kind, struct.pack(f">HH{len(targets)}H", source, len(targets), *targets))
        for kind, source, targets in references
    )
    return box(
        b"meta",
        bytes(4)
        + box(b"hdlr", HANDLER)
        + box(b"pitm", struct.pack(">IH", 0, primary))
        + box(b"iloc", struct.pack(">IHH", 1 << 24, 0x4400, len(items)) + places)
        + box(b"iinf", struct.pack(">IH", 0, len(items)) + infos)
        + (box(b"iref", bytes(4) + linked) if linked else b"")
        + box(
            b"iprp",
            box(b"ipco", b"".join(properties)) + box(b"ipma", struct.pack(">II", 0, len(items)) + owned),
        )
        + more,
    )


@dataclass
class Track:
    """One track.

    `places` are the offsets of its samples in the media data. `units` are the AV1 units in its codec
    configuration. `tables` replace the correct tables, and `more` are additional boxes.
    """

    samples: Sequence[bytes]
    size: tuple[int, int]
    number: int = 1
    auxiliary_for: int = 0
    places: Sequence[int] | None = None
    entry_size: tuple[int, int] | None = None
    entries: int = 1
    tables: dict[bytes, bytes] = field(default_factory=dict)
    units: bytes = b""
    more: bytes = b""


def animated(*tracks: Track, moov: bytes = b"", more: bytes = b"") -> bytes:
    """Return a file with these tracks.

    `moov` is added at the end of the moov box, and `more` before the mdat box.
    """
    front = len(AVIS + box(b"moov", _tracks(tracks, 0) + moov) + more) + 8
    media = b"".join(sample for track in tracks for sample in track.samples)
    return AVIS + box(b"moov", _tracks(tracks, front) + moov) + more + box(b"mdat", media)


def _tracks(tracks: Sequence[Track], start: int) -> bytes:
    found = b""
    for track in tracks:
        found += _track(track, start)
        start += sum(map(len, track.samples))
    return box(b"mvhd", bytes(12) + struct.pack(">II", 1000, 1000) + bytes(80)) + found


def _track(track: Track, start: int) -> bytes:
    width, height = track.size
    count = len(track.places or track.samples)
    places = track.places
    if places is None:
        places = [sum(map(len, track.samples[:number])) for number in range(count)]
    sizes = [len(sample) for sample in track.samples] if len(track.samples) == count else []
    header = struct.pack(">IIIIII", 7, 0, 0, track.number, 0, 1000) + bytes(52)
    entry = bytes(24) + struct.pack(">HH", *(track.entry_size or track.size)) + bytes(50) + av1c(track.units)
    tables = {
        b"stsd": struct.pack(">II", 0, track.entries) + box(b"av01", entry) * track.entries,
        b"stts": struct.pack(">IIII", 0, 1, count, 40),
        b"stsc": struct.pack(">IIIII", 0, 1, 1, 1, 1),
        b"stsz": struct.pack(">III", 0, 0 if sizes else len(track.samples[0]), count)
        + b"".join(struct.pack(">I", size) for size in sizes),
        b"stco": struct.pack(">II", 0, count)
        + b"".join(struct.pack(">I", (start + at) % 2**32) for at in places),
    } | track.tables
    media = (
        box(b"mdhd", bytes(12) + struct.pack(">III", 1000, 1000, 0))
        + box(b"hdlr", HANDLER)
        + box(b"minf", box(b"stbl", b"".join(box(kind, table) for kind, table in tables.items())))
    )
    linked = (
        box(b"tref", box(b"auxl", struct.pack(">I", track.auxiliary_for))) if track.auxiliary_for else b""
    )
    return box(
        b"trak",
        box(b"tkhd", header + struct.pack(">II", width << 16, height << 16))
        + linked
        + track.more
        + box(b"mdia", media),
    )
