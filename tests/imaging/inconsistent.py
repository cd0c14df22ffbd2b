"""Images whose container contradicts their content, and similar images that are unusual but consistent."""

import struct
import zlib
from collections.abc import Callable
from functools import partial
from itertools import accumulate

from tests.imaging.av1_bits import FRAME_HEADER, TILE_LIST, Frame, Sequence, enlarged, unit
from tests.imaging.avif_files import (
    ALPHA,
    FTYP,
    HANDLER,
    Item,
    Track,
    animated,
    av1,
    av1_frames,
    av1c,
    grid_item,
    ispe,
    picture_item,
    still,
)
from tests.imaging.samples import (
    ICC,
    animation,
    bare_gif,
    box,
    inserted,
    jpeg_segment,
    picture,
    png_chunk,
    riff,
    sample,
    saved,
)

Make = Callable[[], bytes]

LARGE, SMALL = (2048, 2048), (64, 64)
CELLS = [picture_item(SMALL, variant=variant) for variant in range(4)]
QUARTERS = [(b"dimg", 1, (2, 3, 4, 5))]
AUXILIARY = box(b"auxC", ALPHA)


def _alpha(size: tuple[int, int], declared: tuple[int, int]) -> Item:
    return Item(av1(size, mode="L"), [ispe(*declared), box(b"av1C", b"\x81\x00\x1c\x00"), AUXILIARY])


def _item(payload: bytes, *properties: bytes, **options: object) -> bytes:
    item = Item(payload, [ispe(*SMALL), av1c(), *properties])
    for name, value in options.items():
        setattr(item, name, value)
    return still([item])


def _frames(count: int = 4, **options: object) -> Track:
    track = Track(av1_frames(SMALL, count), SMALL)
    for name, value in options.items():
        setattr(track, name, value)
    return track


def shared_frame(count: int) -> bytes:
    """Return an animation whose samples all refer to the same frame."""
    return animated(_frames(samples=av1_frames(SMALL, 4)[:1], places=[0] * count))


def _places() -> list[int]:
    """Return the offsets of the samples of an animation in its media data."""
    return [0, *accumulate(map(len, av1_frames(SMALL, 4)))][:-1]


def _hidden(count: int) -> bytes:
    """Return an item with `count` hidden frames after the frame that is shown."""
    sequence = Sequence(size_bits=6, order_hint_bits=7)
    return _item(av1(SMALL) + sequence.unit(SMALL) + Frame(shown=False).unit(sequence, None) * count)


def _metadata(count: int) -> bytes:
    """Return a meta box with `count` items, none of which is an image."""
    items = b"".join(
        box(b"infe", struct.pack(">IHH4s", 2 << 24, number, 0, b"mime") + bytes(2))
        for number in range(1, count + 1)
    )
    return box(b"meta", bytes(4) + box(b"hdlr", HANDLER) + box(b"iinf", struct.pack(">IH", 0, count) + items))


def _patched(data: bytes, *changes: tuple[bytes, int, bytes]) -> bytes:
    """Return the file with bytes overwritten. Each change is a word, an offset after it, and a value."""
    changed = bytearray(data)
    for word, after, value in changes:
        at = changed.index(word) + len(word) + after
        changed[at : at + len(value)] = value
    return bytes(changed)


def _pillow_sequence() -> bytes:
    """Return an animation of 2048 × 2048 pixels in which every box declares a size of 64 × 64."""
    frames = [picture(variant, size=LARGE) for variant in range(2)]
    data = saved(frames[0], "avif", save_all=True, append_images=frames[1:], speed=10)
    wide = struct.pack(">II", *(side << 16 for side in SMALL))
    entry = data.index(b"av01", data.index(b"stsd")) - data.index(b"stsd") + 24
    return _patched(
        data,
        (b"ispe", 4, struct.pack(">II", *SMALL)),
        (b"tkhd", 88 if data[data.index(b"tkhd") + 4] else 76, wide),
        (b"stsd", entry, struct.pack(">HH", *SMALL)),
    )


INCONSISTENT_AVIF: dict[str, Make] = {
    "still image": lambda: still([picture_item(LARGE, SMALL)]),
    "still image by one pixel": lambda: still([picture_item((64, 65), SMALL)]),
    "still image, smaller": lambda: still([picture_item(SMALL, (640, 640))]),
    "animation of Pillow's": _pillow_sequence,
    "animation": lambda: animated(Track(av1_frames(LARGE, 2), SMALL)),
    "animation, only in the sample entry": lambda: animated(
        Track(av1_frames(LARGE, 2), LARGE, entry_size=SMALL)
    ),
    "frame in a consistent sequence": lambda: _item(enlarged(av1_frames(LARGE, 2)[0], SMALL)),
    "frame of an animation": lambda: animated(
        Track([av1_frames(SMALL, 2)[0], enlarged(av1_frames(LARGE, 2)[0], SMALL)], SMALL)
    ),
    "second sequence": lambda: _item(av1(SMALL) + av1(LARGE)),
    "second sequence of an animation": lambda: animated(
        Track([*av1_frames(SMALL, 2), *av1_frames(LARGE, 2)], SMALL)
    ),
    "codec configuration": lambda: still(
        [Item(av1(SMALL), [ispe(*SMALL), av1c(Sequence(reduced=True).unit(LARGE))])]
    ),
    "codec configuration of an animation": lambda: animated(_frames(units=Sequence().unit(LARGE))),
    "alpha": lambda: still([*CELLS[:1], _alpha(LARGE, SMALL)], [(b"auxl", 2, (1,))]),
    "alpha of an animation": lambda: animated(
        _frames(), Track(av1_frames(LARGE, 4), SMALL, number=2, auxiliary_for=1)
    ),
    "image beside the primary one": lambda: still([*CELLS[:1], picture_item(LARGE, SMALL)]),
    "cell": lambda: still([grid_item(2, 2, (128, 128)), *CELLS[:3], picture_item(LARGE, SMALL)], QUARTERS),
    "cell that is a thumbnail": lambda: still(
        [grid_item(2, 2, (128, 128)), *CELLS[:3], picture_item(LARGE, SMALL)], [*QUARTERS, (b"thmb", 5, (2,))]
    ),
    "alpha of cells that are thumbnails": lambda: still(
        [grid_item(2, 2, (128, 128)), *CELLS, *[_alpha(LARGE, SMALL)] * 4],
        [
            *QUARTERS,
            *((b"auxl", cell + 4, (cell,)) for cell in (2, 3, 4, 5)),
            *((b"thmb", cell + 4, (cell,)) for cell in (2, 3, 4, 5)),
        ],
    ),
    "cell of another size": lambda: still(
        [grid_item(2, 2, (128, 128)), *CELLS[:3], picture_item((64, 80))], QUARTERS
    ),
    "cells for a larger canvas": lambda: still([grid_item(2, 2, (64, 64)), *CELLS], QUARTERS),
    "cells for a smaller canvas": lambda: still([grid_item(2, 2, (129, 128)), *CELLS], QUARTERS),
    "canvas of a grid": lambda: still(
        [Item(grid_item(2, 2, (128, 128)).payload, [ispe(100, 100)], b"grid"), *CELLS], QUARTERS
    ),
    "too few cells": lambda: still([grid_item(2, 2, (128, 128)), *CELLS], [(b"dimg", 1, (2, 3, 4))]),
    "cell twice": lambda: still([grid_item(2, 2, (128, 128)), *CELLS], [(b"dimg", 1, (2, 3, 4, 4))]),
    "cells twice": lambda: still([grid_item(2, 2, (128, 128)), *CELLS], QUARTERS * 2),
    "grid in a grid": lambda: still(
        [grid_item(1, 1, (64, 64)), grid_item(1, 1, (64, 64)), *CELLS],
        [(b"dimg", 1, (2,)), (b"dimg", 2, (3,))],
    ),
    "grid with extra bytes": lambda: still(
        [Item(grid_item(2, 2, (128, 128)).payload + b"\0", [ispe(128, 128)], b"grid"), *CELLS], QUARTERS
    ),
    "50 samples of one frame": lambda: shared_frame(50),
    "2 samples of one frame": lambda: shared_frame(2),
    "samples that overlap by a byte": lambda: animated(_frames(places=[0, 200, 600, 900])),
    "hidden frames": lambda: _hidden(4),
    "hidden frames of a sample": lambda: animated(
        Track([*av1_frames(SMALL, 2), av1_frames(SMALL, 2)[0] * 12], SMALL)
    ),
    "frame shown repeatedly": lambda: _item(av1_frames(SMALL, 2)[0] + unit(FRAME_HEADER, b"\x80") * 4),
    "sample without a frame": lambda: animated(_frames(samples=[*av1_frames(SMALL, 2), b"\x12\0"])),
    "item without a frame": lambda: _item(Sequence(reduced=True).unit(SMALL)),
    "item without a sequence": lambda: _item(av1_frames(SMALL, 2)[1]),
    "tile list": lambda: _item(av1(SMALL) + unit(TILE_LIST, bytes(8))),
    "samples in the boxes": lambda: animated(_frames(places=[-1, *_places()[1:]])),
    "samples past the end": lambda: animated(_frames(places=[*_places()[:-1], _places()[-1] + 1])),
    "pieces of an item that overlap": lambda: _item(av1(SMALL), pieces=[(0, 60), (0, len(av1(SMALL)))]),
    "item in the boxes": lambda: _item(av1(SMALL), pieces=[(-20, 20), (0, len(av1(SMALL)))]),
    "item of another item": lambda: _item(av1(SMALL), method=2),
    "items that share everything": lambda: still(
        [Item(av1(SMALL), [ispe(*SMALL), av1c()], pieces=[(0, 60)] * 60_000)]
    ),
    "two sizes of an item": lambda: _item(av1(SMALL), ispe(*LARGE)),
    "two configurations": lambda: _item(av1(SMALL), av1c(Sequence(reduced=True).unit(SMALL))),
    "two primary items": lambda: still(CELLS[:2], more=box(b"pitm", b"\0\0\0\0\0\2")),
    "two tables of places": lambda: still(CELLS[:1], more=box(b"iloc", bytes(8))),
    "two tables of properties": lambda: still(CELLS[:1], more=box(b"iprp", box(b"ipco", b""))),
    "two tables of references": lambda: still(CELLS[:1], more=box(b"iref", bytes(4)) * 2),
    "two meta boxes": lambda: still(CELLS[:1]) + still([picture_item(LARGE)])[len(FTYP) :],
    "two movies": lambda: animated(_frames(), more=box(b"moov", b"")),
    "missing primary item": lambda: still(CELLS[:1], primary=9),
    "primary item that is metadata": lambda: still([Item(b"x", [ispe(1, 1)], b"mime"), *CELLS]),
    "primary item that is a thumbnail": lambda: still(CELLS[:2], [(b"thmb", 1, (2,))]),
    "overlay": lambda: still([Item(bytes(20), [ispe(*SMALL)], b"iovl"), *CELLS], QUARTERS),
    "identity": lambda: still([Item(b"x", [ispe(*SMALL)], b"iden"), *CELLS], [(b"dimg", 1, (2,))]),
    "sample transform": lambda: still(
        [*CELLS[:1], Item(b"x", [ispe(*SMALL)], b"sato")], [(b"dimg", 2, (1,))]
    ),
    "two kinds of samples": lambda: animated(_frames(entries=2)),
    "two colour tracks": lambda: animated(_frames(), _frames(number=2)),
    "alpha of no track": lambda: animated(_frames(), _frames(number=2, auxiliary_for=7)),
    "movie fragments": lambda: animated(_frames(), more=box(b"moof", b"")),
    "movie that announces fragments": lambda: animated(_frames(), moov=box(b"mvex", b"")),
    "chunks of no samples": lambda: animated(
        _frames(tables={b"stsc": struct.pack(">IIIIIIII", 0, 2, 1, 0, 1, 2, 4, 1)})
    ),
    "chunks of more samples than there are": lambda: animated(
        _frames(tables={b"stsc": struct.pack(">IIIII", 0, 1, 1, 2, 1)})
    ),
    "chunks out of order": lambda: animated(
        _frames(tables={b"stsc": struct.pack(">IIIIIIII", 0, 2, 2, 1, 1, 1, 1, 1)})
    ),
    "two tables of chunks": lambda: animated(_frames(tables={b"co64": bytes(8)})),
    "durations for more samples than there are": lambda: animated(
        _frames(tables={b"stts": struct.pack(">II", 0, 5) + struct.pack(">II", 1, 40) * 5})
    ),
    "properties used repeatedly": lambda: _item(
        av1(SMALL), *[box(b"xxxx", bytes(20_000) + bytes((n,))) for n in range(60)]
    ),
    "profile of 5 MiB": lambda: _item(av1(SMALL), box(b"colr", b"prof" + bytes(5 * 2**20))),
    "metadata of 1,000 items": lambda: animated(_frames(), more=_metadata(1000)),
    "metadata of 1,000 items in a track of sound": lambda: animated(
        _frames(), moov=box(b"trak", box(b"tkhd", bytes(84)) + _metadata(1000))
    ),
    "metadata of 1,000 items in a track": lambda: animated(_frames(more=_metadata(1000))),
}
"""AVIF files that are ambiguous, or that are larger when decoded than their boxes declare."""


def _anmf(left: int, top: int, width: int, height: int, *parts: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
    head = b"".join(
        struct.pack("<I", value)[:3] for value in (left // 2, top // 2, width - 1, height - 1, 40)
    )
    return b"ANMF", head + b"\0" + riff(*parts)[12:]


def _vp8x(flags: int, width: int, height: int) -> tuple[bytes, bytes]:
    sides = b"".join(struct.pack("<I", side - 1)[:3] for side in (width, height))
    return b"VP8X", bytes((flags, 0, 0, 0)) + sides


def _webp_part(size: tuple[int, int], *, lossless: bool = False) -> tuple[bytes, bytes]:
    data = saved(picture(size=size), "webp", lossless=lossless)
    return data[12:16], data[20 : 20 + struct.unpack_from("<I", data, 16)[0]]


def _animated_webp(*frames: tuple[bytes, bytes], size: tuple[int, int] = SMALL, flags: int = 2) -> bytes:
    return riff(_vp8x(flags, *size), (b"ANIM", bytes(6)), *frames)


ANIM = (b"ANIM", bytes(6))

INCONSISTENT_WEBP: dict[str, Make] = {
    **{
        f"picture of another size than its {where}, {'lossless' if lossless else 'lossy'}": partial(
            make, _webp_part(LARGE, lossless=lossless)
        )
        for lossless in (False, True)
        for where, make in {
            "canvas": lambda part: riff(_vp8x(0, *SMALL), part),
            "frame": lambda part: _animated_webp(_anmf(0, 0, *SMALL, part)),
        }.items()
    },
    "frame that sticks out": lambda: _animated_webp(_anmf(2, 0, *SMALL, _webp_part(SMALL))),
    "frame larger than the canvas": lambda: _animated_webp(_anmf(0, 0, *LARGE, _webp_part(LARGE))),
    "two pictures": lambda: riff(_vp8x(0, *SMALL), _webp_part(SMALL), _webp_part(LARGE)),
    "two pictures in a frame": lambda: _animated_webp(
        _anmf(0, 0, *SMALL, _webp_part(SMALL), _webp_part(LARGE))
    ),
    "alpha after its picture": lambda: riff(_vp8x(16, *SMALL), _webp_part(SMALL), (b"ALPH", bytes(4097))),
    "frame without a picture": lambda: _animated_webp(_anmf(0, 0, *SMALL)),
    "unannounced frames": lambda: _animated_webp(_anmf(0, 0, *SMALL, _webp_part(SMALL)), flags=0),
    "animation without frames": lambda: riff(_vp8x(2, *SMALL), ANIM, _webp_part(SMALL)),
    "still image in an animation": lambda: _animated_webp(
        _anmf(0, 0, *SMALL, _webp_part(SMALL)), _webp_part(LARGE)
    ),
    "two canvases": lambda: riff(_vp8x(0, *SMALL), _vp8x(0, *LARGE), _webp_part(SMALL)),
    "profile of 5 MiB": lambda: riff(_vp8x(32, *SMALL), (b"ICCP", bytes(5 * 2**20)), _webp_part(SMALL)),
}


def _apng(width: int, height: int, left: int = 0, top: int = 0, *, operations: bytes = b"\0\0") -> bytes:
    """Return an animation with one frame of this size at this position."""
    control = struct.pack(">IIIIIHH", 0, width, height, left, top, 1, 10) + operations
    chunks = png_chunk(b"acTL", struct.pack(">II", 1, 0)) + png_chunk(b"fcTL", control)
    return inserted(sample("png"), 33, chunks)


def _late_animation() -> bytes:
    data = sample("png")
    return inserted(data, len(data) - 12, png_chunk(b"acTL", struct.pack(">II", 1, 0)))


INCONSISTENT_PNG: dict[str, Make] = {
    "frame without pixels": lambda: _apng(0, 32),
    "frame to the right": lambda: _apng(48, 32, left=1),
    "frame below": lambda: _apng(48, 32, top=1),
    "frame larger than the image": lambda: _apng(2048, 2048),
    "frame far outside": lambda: _apng(1, 1, left=2**32 - 1),
    "frame with an unknown way to dispose of it": lambda: _apng(48, 32, operations=b"\3\0"),
    "frame with an unknown way to blend it": lambda: _apng(48, 32, operations=b"\0\2"),
    "frame with more than its control": lambda: _apng(48, 32, operations=b"\0\0\0"),
    "frame with less than its control": lambda: _apng(48, 32, operations=b"\0"),
    "animation announced after the pixels": _late_animation,
    "profiles that unpack to 100 MiB": lambda: inserted(
        sample("png"), 33, png_chunk(b"iCCP", b"icc\0\0" + zlib.compress(bytes(2**20 - 9))) * 100
    ),
    "two palettes": lambda: inserted(
        saved(picture(mode="P"), "png"), 33, png_chunk(b"PLTE", bytes(range(48)))
    ),
}


def _jpeg_head(marker: int, size: tuple[int, int]) -> bytes:
    return jpeg_segment(marker, struct.pack(">BHHB", 8, *size[::-1], 3) + b"\1\x22\0\2\x11\1\3\x11\1")


def _renamed(marker: int) -> bytes:
    """Return a JPEG whose frame header declares a different coding process."""
    return sample("jpeg").replace(b"\xff\xc0", bytes((0xFF, marker)), 1)


def _after_tables(piece: bytes) -> bytes:
    data = sample("jpeg")
    return inserted(data, data.index(b"\xff\xda"), piece)


INCONSISTENT_JPEG: dict[str, Make] = {
    "two sizes": lambda: _after_tables(_jpeg_head(0xC0, LARGE)),
    "one size twice": lambda: _after_tables(_jpeg_head(0xC0, (48, 32))),
    "size in the scans": lambda: inserted(sample("jpeg"), len(sample("jpeg")) - 2, _jpeg_head(0xC2, LARGE)),
    "number of lines after the scan": lambda: inserted(
        sample("jpeg"), len(sample("jpeg")) - 2, jpeg_segment(0xDC, b"\x08\0")
    ),
    "no size": lambda: sample("jpeg").replace(b"\xff\xc0", b"\xff\xfe", 1),
    "arithmetic codes": lambda: _renamed(0xC9),
    "progressive arithmetic codes": lambda: _renamed(0xCA),
    "lossless": lambda: _renamed(0xC3),
    "hierarchical": lambda: _renamed(0xC5),
    "profile of 5 MiB": lambda: inserted(
        sample("jpeg"), 20, jpeg_segment(0xE2, b"ICC_PROFILE\0\1\x54" + bytes(65_000)) * 80
    ),
    "1,000 segments of Exif": lambda: inserted(
        sample("jpeg"), 20, jpeg_segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0\0\0") * 1000
    ),
}

INCONSISTENT_GIF: dict[str, Make] = {
    "screen of nothing, frames of nothing": lambda: bare_gif(1, (0, 0)).replace(
        struct.pack("<HHHHB", 0, 0, 1, 1, 0), bytes(9)
    ),
}

INCONSISTENT: dict[str, Make] = {
    f"{format}: {name}": make
    for format, files in {
        "avif": INCONSISTENT_AVIF,
        "webp": INCONSISTENT_WEBP,
        "png": INCONSISTENT_PNG,
        "jpeg": INCONSISTENT_JPEG,
        "gif": INCONSISTENT_GIF,
    }.items()
    for name, make in files.items()
}
"""These get 422 undecodable_image before a decoder runs."""


_ONE_CHUNK = {
    b"stsc": struct.pack(">IIIII", 0, 1, 1, 4, 1),
    b"stsz": struct.pack(">III4I", 0, 0, 4, *map(len, av1_frames(SMALL, 4))),
}

CONSISTENT: dict[str, tuple[tuple[int, int, int], Make]] = {
    "avif": ((64, 64, 1), lambda: still(CELLS[:1])),
    "avif with alpha": ((64, 64, 1), lambda: still([*CELLS[:1], _alpha(SMALL, SMALL)], [(b"auxl", 2, (1,))])),
    "avif in two pieces": (
        (64, 64, 1),
        lambda: _item(av1(SMALL), pieces=[(0, 60), (60, len(av1(SMALL)) - 60)]),
    ),
    "avif with a thumbnail": ((64, 64, 1), lambda: still(CELLS[:2], [(b"thmb", 2, (1,))])),
    "avif grid": ((128, 100, 1), lambda: still([grid_item(2, 2, (128, 100)), *CELLS], QUARTERS)),
    "avif grid of a quarter of its cells": (
        (66, 66, 1),
        lambda: still([grid_item(2, 2, (66, 66)), *CELLS], QUARTERS),
    ),
    "avif grid whose cells are equal": (
        (128, 128, 1),
        lambda: still([grid_item(2, 2, (128, 128)), *CELLS[:1] * 4], QUARTERS),
    ),
    "avif grid with alpha": (
        (128, 128, 1),
        lambda: still(
            [
                grid_item(2, 2, (128, 128)),
                *CELLS,
                Item(grid_item(2, 2, (128, 128)).payload, [ispe(128, 128), AUXILIARY], b"grid"),
                *[_alpha(SMALL, SMALL)] * 4,
            ],
            [*QUARTERS, (b"dimg", 6, (7, 8, 9, 10)), (b"auxl", 6, (1,))],
        ),
    ),
    "avif grid with alpha for each cell": (
        (128, 128, 1),
        lambda: still(
            [grid_item(2, 2, (128, 128)), *CELLS, *[_alpha(SMALL, SMALL)] * 4],
            [*QUARTERS, *((b"auxl", cell + 4, (cell,)) for cell in (2, 3, 4, 5))],
        ),
    ),
    "avif with frames that are not shown": ((64, 64, 1), lambda: _item(b"".join(av1_frames(SMALL, 3)))),
    "avif with units in its configuration": (
        (64, 64, 1),
        lambda: still([Item(av1(SMALL), [ispe(*SMALL), av1c(Sequence(reduced=True).unit(SMALL))])]),
    ),
    "avif animation": ((64, 64, 4), lambda: animated(_frames())),
    "avif animation in one chunk": (
        (64, 64, 4),
        lambda: animated(_frames(places=[0], tables=_ONE_CHUNK)),
    ),
    "avif animation of 40 frames, some of them hidden": ((64, 64, 40), lambda: animated(_frames(40))),
    "avif animation with alpha": (
        (64, 64, 40),
        lambda: animated(_frames(40), _frames(40, number=2, auxiliary_for=1)),
    ),
    "avif animation with sound": (
        (64, 64, 4),
        lambda: animated(_frames(), moov=box(b"trak", box(b"tkhd", bytes(84)))),
    ),
    "avif animation with metadata": (
        (64, 64, 4),
        lambda: animated(_frames(more=_metadata(20)), more=_metadata(20)),
    ),
    "avif of 4 MiB of profile": (
        (64, 64, 1),
        lambda: _item(av1(SMALL), box(b"colr", b"prof" + ICC + bytes(4 * 2**20 - len(ICC) - 12))),
    ),
    "webp animation": ((48, 32, 3), lambda: saved(picture(), "webp", **animation())),
    "webp frame in a corner": (
        (66, 64, 1),
        lambda: _animated_webp(_anmf(2, 0, *SMALL, _webp_part(SMALL)), size=(66, 64)),
    ),
    "png frame in a corner": (
        (48, 32, 3),
        lambda: saved(picture(), "png", default_image=True, **animation()),
    ),
    "jpeg with a profile of 4 MiB": (
        (48, 32, 1),
        lambda: saved(picture(), "jpeg", icc_profile=ICC + bytes(4_100_000)),
    ),
    "gif that grows": ((4, 3, 2), lambda: _growing_gif()),
}
"""These are accepted, with this width, height and number of frames."""


def _growing_gif() -> bytes:
    data = bytearray(bare_gif(2))
    second = data.rindex(b"\x2c")
    data[second + 1 : second + 9] = struct.pack("<HHHH", 3, 2, 1, 1)
    return bytes(data)
