"""Files made of nothing but tiny parts: every loop over parts of a container has one that keeps it busy."""

import struct
from collections.abc import Callable

from tests.imaging.samples import bare_gif, box, gif_extension, inserted, riff, sample

_FTYP = box(b"ftyp", b"avif\0\0\0\0mif1avif")
_ITEMS = box(b"iinf", b"\0\0\0\0\0\1" + box(b"infe", b"\2\0\0\0\0\7\0\0av01\0"))
_PLACES = box(b"iloc", b"\0\0\0\0\x44\0\0\0")
_EMPTY_BOX = box(b"none", b"")
_LOOPS = b"\x21\xff\x0bNETSCAPE2.0"
_PROFILE = b"\x21\xff\x0bICCRGBG1012"


def _gif_frame(count: int) -> bytes:
    """One frame, whose pixels are followed by sub-blocks of one byte."""
    return inserted(bare_gif(1), len(bare_gif(1)) - 2, b"\1\0" * count)


def _gif_with(start: bytes) -> Callable[[int], bytes]:
    """An extension of sub-blocks of one byte."""
    return lambda count: inserted(bare_gif(1), 19, start + b"\1\0" * count + b"\0")


def _webp(frames: int) -> Callable[[int], bytes]:
    """Empty chunks in frames."""

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
    """Tables of extents that take no room, none of which has too many by itself."""
    each = 500
    place = b"\0\7\0\0" + struct.pack(">H", each)
    return _FTYP + _meta(_ITEMS, box(b"iloc", bytes(6) + b"\0\1" + place)) * (count // each)


def _avif_places(count: int) -> bytes:
    """Items that lie nowhere."""
    head = b"\2\0\0\0\0\0" + struct.pack(">I", count)
    return _FTYP + _meta(_ITEMS, box(b"iloc", head + (struct.pack(">I", 7) + bytes(6)) * count))


CROWDED: dict[str, Callable[[int], bytes]] = {
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
    "avif extents": _avif_extents,
    "avif places": _avif_places,
}
"""Files of about as many tiny parts as they are asked for."""


def _after_webp(chunks: bytes) -> bytes:
    data = sample("webp") + chunks
    return data[:4] + struct.pack("<I", len(data) - 8) + data[8:]
