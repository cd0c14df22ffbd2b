"""Files with many tiny parts: at least one file for every loop over the parts of a container."""

import struct
from collections.abc import Callable

from tests.imaging.av1_bits import PADDING, unit
from tests.imaging.avif_files import Item, Track, animated, av1, av1_frames, av1c, ispe, still
from tests.imaging.samples import bare_gif, box, gif_extension, inserted, riff, sample

_FTYP = box(b"ftyp", b"avif\0\0\0\0mif1avif")
_ITEMS = box(b"iinf", b"\0\0\0\0\0\1" + box(b"infe", b"\2\0\0\0\0\7\0\0av01\0"))
_PLACES = box(b"iloc", b"\0\0\0\0\x44\0\0\0")
_EMPTY_BOX = box(b"none", b"")
_LOOPS = b"\x21\xff\x0bNETSCAPE2.0"
_PROFILE = b"\x21\xff\x0bICCRGBG1012"


def _gif_frame(count: int) -> bytes:
    """Return a frame whose pixels are followed by sub-blocks of one byte."""
    return inserted(bare_gif(1), len(bare_gif(1)) - 2, b"\1\0" * count)


def _gif_with(start: bytes) -> Callable[[int], bytes]:
    """Return a function that makes an extension of sub-blocks of one byte."""
    return lambda count: inserted(bare_gif(1), 19, start + b"\1\0" * count + b"\0")


def _webp(frames: int) -> Callable[[int], bytes]:
    """Return a function that makes empty chunks in frames."""

    def made(count: int) -> bytes:
        frame = bytes(16) + (b"NONE" + bytes(4)) * (count // frames)
        parts = [(b"ANMF", frame)] * frames
        return riff((b"VP8X", b"\2\0\0\0" + bytes(6)), (b"ANIM", bytes(6)), *parts)

    return made


def _meta(*children: bytes) -> bytes:
    return box(b"meta", b"\0\0\0\0" + b"".join(children))


def _avif_items(count: int) -> bytes:
    entry = box(b"infe", b"\2\0\0\0\0\7\0\0av01")
    return _FTYP + _meta(box(b"iinf", b"\0\0\0\0\0\1" + entry * count), _PLACES)


def _avif_references(reference: bytes) -> Callable[[int], bytes]:
    return lambda count: _FTYP + _meta(_ITEMS, _PLACES, box(b"iref", b"\0\0\0\0" + reference * count))


def _avif_extents(count: int) -> bytes:
    """Return tables of empty extents. None of the tables has too many entries by itself."""
    each = 500
    place = b"\0\7\0\0" + struct.pack(">H", each)
    return _FTYP + _meta(_ITEMS, box(b"iloc", bytes(6) + b"\0\1" + place)) * (count // each)


def _avif_places(count: int) -> bytes:
    """Return a table of items without extents."""
    head = b"\2\0\0\0\0\0" + struct.pack(">I", count)
    return _FTYP + _meta(_ITEMS, box(b"iloc", head + (struct.pack(">I", 7) + bytes(6)) * count))


def _avif_units(count: int) -> bytes:
    """Return a bitstream that ends in empty units."""
    size = (64, 64)
    return still([Item(av1(size) + unit(PADDING, b"") * count, [ispe(*size), av1c()])])


def _avif_samples(kind: bytes, fields: int) -> Callable[[int], bytes]:
    """Return a function that makes an animation whose table of this kind has `count` rows."""

    def made(count: int) -> bytes:
        size = (64, 64)
        head = struct.pack(">II", 0, count) if kind != b"stsz" else struct.pack(">III", 0, 0, count)
        table = head + struct.pack(f">{fields}I", *range(1, fields + 1)) * count
        return animated(Track(av1_frames(size, 4), size, tables={kind: table}))

    return made


def _avif_associations(count: int) -> bytes:
    """Return items that each have the same property many times."""
    each = 250
    owned = b"".join(
        struct.pack(">HB", number, each) + b"\1" * each for number in range(1, count // each + 1)
    )
    head = struct.pack(">II", 0, count // each)
    properties = box(b"iprp", box(b"ipco", _EMPTY_BOX) + box(b"ipma", head + owned))
    primary = box(b"pitm", b"\0\0\0\0\0\7")
    return _FTYP + _meta(primary, _ITEMS, _PLACES + properties)


TINY_PARTS: dict[str, Callable[[int], bytes]] = {
    "gif frame": _gif_frame,
    "gif comment": _gif_with(b"\x21\xfe"),
    "gif loop count": _gif_with(_LOOPS),
    "gif profile": _gif_with(_PROFILE),
    "gif comments": lambda count: inserted(bare_gif(1), 19, gif_extension(0xFE, b"a") * count),
    "webp frame": _webp(1),
    "webp frames": _webp(25),
    "webp chunks": lambda count: _after_webp((b"NONE" + bytes(4)) * count),
    "avif boxes": lambda count: _FTYP + box(b"moov", _EMPTY_BOX * count),
    "avif boxes in boxes": lambda count: _FTYP + box(b"moov", _EMPTY_BOX * 100) * (count // 100),
    "avif items": _avif_items,
    "avif references": _avif_references(box(b"cdsc", b"\0\7\0\0")),
    "avif thumbnails": _avif_references(box(b"thmb", b"\0\7\0\0")),
    "avif targets of references": lambda count: (
        _FTYP
        + _meta(
            _ITEMS,
            _PLACES,
            box(
                b"iref", bytes(4) + box(b"dimg", b"\0\7\xff\xff" + bytes(2 * 65_535)) * (count // 50_000 + 1)
            ),
        )
    ),
    "avif associations": _avif_associations,
    "avif units": _avif_units,
    "avif sample sizes": _avif_samples(b"stsz", 1),
    "avif chunks": _avif_samples(b"stco", 1),
    "avif runs of chunks": _avif_samples(b"stsc", 3),
    "avif durations": _avif_samples(b"stts", 2),
    "avif sync samples": _avif_samples(b"stss", 1),
    "avif extents": _avif_extents,
    "avif places": _avif_places,
}
"""Functions that return a file with about as many tiny parts as their argument says."""


def _after_webp(chunks: bytes) -> bytes:
    data = sample("webp") + chunks
    return data[:4] + struct.pack("<I", len(data) - 8) + data[8:]
