"""Truncated, inconsistent and randomly damaged images raise only errors of this project."""

import struct
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import UndecodableImage, UnsupportedImage
from app.imaging.survey import ImageLimits

from .inconsistent import CONSISTENT
from .oracle import assert_decodes_as_declared
from .png_samples import made, noise
from .samples import (
    ICC,
    KINDS,
    LIMITS,
    NAMES,
    RAW_LIMITS,
    animation,
    bare_gif,
    box,
    check,
    exif,
    inserted,
    picture,
    png_chunk,
    riff,
    riff_chunk,
    sample,
    saved,
)
from .ultra_hdr import FIELDS, gain_map, packet, photo

END_MARKERS = {"png": 12, "jpeg": 2, "gif": 2}
"""The number of bytes at the end of a file that contain no pixels. In GIF, this includes the end of data."""
CUTS = [0.01, *(tenth / 10 for tenth in range(1, 10)), 0.95, 0.99]
BOTH = pytest.mark.parametrize("limits", [LIMITS, RAW_LIMITS], ids=["strip", "raw"])


@pytest.mark.parametrize(("name", "animated"), KINDS)
@BOTH
def test_truncated_images_are_refused(name: str, animated: bool, limits: ImageLimits) -> None:
    data = sample(name, animated)
    pixels = len(data) - END_MARKERS.get(name, 0)
    ends = {int(pixels * cut) for cut in CUTS} | {pixels - back for back in (4, 8, 12)}
    for end in ends:
        with pytest.raises((UndecodableImage, UnsupportedImage)):
            check(data[:end], limits)


@pytest.mark.parametrize(("name", "animated"), KINDS)
@pytest.mark.parametrize("tail", [b"<script>", png_chunk(b"IEND", b"")], ids=["html", "IEND"])
def test_a_tail_does_not_complete_a_truncated_image(name: str, animated: bool, tail: bytes) -> None:
    data = sample(name, animated)
    with pytest.raises(UndecodableImage):
        check(data[: len(data) * 6 // 10] + tail)


def _png(*pieces: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(pieces)


HEADER = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
LONG_HEADER = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0) + b"hidden")
PIXEL = png_chunk(b"IDAT", bytes.fromhex("789c6360000000020001"))
END = png_chunk(b"IEND", b"")
ONE_FRAME = png_chunk(b"acTL", struct.pack(">II", 1, 0))
CONTROL = png_chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 1, 1, 0, 0, 1, 10, 0, 0))


def test_the_png_that_inconsistent_ones_are_made_of_is_accepted() -> None:
    assert check(_png(HEADER, PIXEL, END)).width == 1
    assert check(_png(HEADER, ONE_FRAME, CONTROL, PIXEL, END)).frames == 1


@BOTH
@pytest.mark.parametrize(
    "data",
    [
        _png(PIXEL, HEADER, END),
        _png(LONG_HEADER, PIXEL, END),
        _png(HEADER, HEADER, PIXEL, END),
        _png(HEADER, png_chunk(b"CgBI", b"\0\0\0\0"), PIXEL, END),
        _png(HEADER, PIXEL[:-1] + b"\0", END),
        _png(HEADER, PIXEL, png_chunk(b"IEND", b"hidden")),
        _png(HEADER),
        _png(HEADER, END),
        _png(HEADER, ONE_FRAME, ONE_FRAME, CONTROL, PIXEL, END),
        _png(HEADER, ONE_FRAME, PIXEL, END),
        _png(HEADER, CONTROL, PIXEL, END),
        _png(HEADER, png_chunk(b"acTL", struct.pack(">II", 0, 0)), PIXEL, END),
        _png(HEADER, png_chunk(b"acTL", struct.pack(">II", 2, 0)), CONTROL, PIXEL, END),
        bare_gif(0),
        bare_gif(1)[:-1] + b"\x99\x3b",
        riff((b"VP8 ", b"\0\0\0notvp8....")),
        riff((b"VP8L", b"\0\0\0\0\0")),
        riff((b"VP8X", b"\0")),
        b"\xff\xd8\xff\xd9",
        b"\xff\xd8\xff\xe0\0\0\xff\xd9",
        box(b"ftyp", b"avif\0\0\0\0mif1"),
        box(b"ftyp", b"avif\0\0\0\0mif1") + box(b"meta", b"\0" * 4 + b"\0\0\0\0abcd"),
        box(b"ftyp", b"avif\0\0\0\0mif1") + b"\0\0\0\1meta" + b"\xff" * 8,
        box(b"ftyp", b"avif\0\0\0\0mif1") + box(b"moov", b"\0\0\0\x08trak" + b"\0\0\0\x08mvhd"),
    ],
)
def test_inconsistent_containers_are_refused(data: bytes, limits: ImageLimits) -> None:
    with pytest.raises(UndecodableImage):
        check(data, limits)


def test_deeply_nested_boxes_are_refused() -> None:
    data = b""
    for _ in range(3000):
        data = box(b"moov", data)
    with pytest.raises(UndecodableImage):
        check(box(b"ftyp", b"avif\0\0\0\0mif1") + data)


def test_metadata_outside_the_file_is_refused() -> None:
    items = b"\0\0\0\0\0\1" + box(b"infe", b"\2\0\0\0\0\1\0\0Exif\0")
    places = b"\0\0\0\0\x44\0\0\1\0\1\0\0\0\1" + struct.pack(">II", 5000, 10)
    meta = box(b"meta", b"\0" * 4 + box(b"iinf", items) + box(b"iloc", places))
    with pytest.raises(UndecodableImage) as caught:
        check(box(b"ftyp", b"avif\0\0\0\0mif1") + meta)
    assert "lie outside" in caught.value.detail


def test_zeros_between_gif_blocks_are_skipped() -> None:
    data = bare_gif(2)
    assert check(data[:-1] + b"\0\0\x3b").data == data


def test_junk_and_fill_bytes_between_jpeg_segments_are_skipped() -> None:
    data = sample("jpeg")
    assert check(inserted(data, 20, b"junk\0\xff\xff\xff")).data == data


def test_a_webp_without_its_last_padding_byte_is_accepted() -> None:
    data = sample("webp")
    unpadded = riff((b"VP8X", b"\0" * 4 + b"\x2f\0\0\x1f\0\0"), (data[12:16], data[20:]))
    end = unpadded + riff_chunk(b"XMP ", b"odd")[:-1]
    whole = end[:4] + struct.pack("<I", len(end) - 8) + end[8:]
    assert check(whole).data == unpadded


@pytest.mark.parametrize("name", NAMES)
def test_the_cause_is_in_the_detail_and_not_in_the_message(name: str) -> None:
    with pytest.raises(UndecodableImage) as caught:
        check(sample(name)[:-20])
    assert caught.value.message == UndecodableImage.message
    assert caught.value.detail


INTERESTING = [b"\0", b"\xff", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\0\1"]
SEEDS: list[Callable[[], bytes]] = [
    *(partial(sample, name, animated) for name, animated in KINDS),
    partial(saved, picture(), "jpeg", progressive=True, exif=exif(6), icc_profile=ICC),
    partial(saved, picture(mode="CMYK"), "jpeg", exif=exif(5)),
    partial(saved, picture(mode="P"), "png", transparency=3, exif=exif(8)),
    partial(saved, picture(mode="RGBA"), "webp", lossless=True, exif=exif(3), xmp=b"<x/>"),
    partial(saved, picture(mode="RGBA"), "avif", exif=exif(6), xmp=b"<x/>"),
    *(
        CONSISTENT[name][1]
        for name in ("avif grid with alpha", "avif animation with alpha", "gif that grows")
    ),
    partial(saved, picture(), "png", default_image=True, **animation()),
    partial(made, noise(16, 6, (9, 7)), 16, 6, png_chunk(b"eXIf", exif(5).removeprefix(b"Exif\0\0"))),
    partial(made, noise(2, 0, (9, 7)), 2, 0, png_chunk(b"eXIf", exif(3).removeprefix(b"Exif\0\0"))),
    partial(photo, gain_map(packet(FIELDS)), xmp=packet('hdrgm:Version="1.0"'), orientation=6),
]


@st.composite
def _damaged(draw: st.DrawFn, good: bytes) -> bytes:
    """Return the image with some bytes overwritten, removed, inserted or duplicated."""
    data = bytearray(good)
    for _ in range(draw(st.integers(1, 6))):
        # Headers are a small part of a file, but most errors are possible in them.
        at = draw(st.integers(0, min(400, len(data))) | st.integers(0, len(data)))
        length = draw(st.integers(0, 4) | st.integers(0, 200))
        piece = draw(st.sampled_from(INTERESTING) | st.binary(min_size=1, max_size=4))
        doubled = bytes(data[at : at + length])
        match draw(st.sampled_from(["overwrite", "remove", "insert", "double"])):
            case "overwrite":
                data[at : at + len(piece)] = piece
            case "remove":
                del data[at : at + length]
            case "insert":
                data[at:at] = piece
            case _:
                data[at:at] = doubled
    return bytes(data)


@pytest.mark.fuzz
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # Pillow warns about damaged metadata
@pytest.mark.parametrize("seed", range(len(SEEDS)))
@BOTH
@given(draw=st.data())
def test_damaged_images_are_refused_or_decode_to_their_declared_size(
    seed: int, limits: ImageLimits, draw: st.DataObject
) -> None:
    data = draw.draw(_damaged(SEEDS[seed]()))
    try:
        checked = assert_decodes_as_declared(data, limits)
    except (UnsupportedImage, UndecodableImage):
        return
    assert check(checked.data, limits) == checked
