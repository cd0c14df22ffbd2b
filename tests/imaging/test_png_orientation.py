"""Rotating a PNG upright moves its pixels, but keeps its bit depth, its colours and its density."""

import struct

import pytest

from .png_samples import KINDS, Rows, made, noise, read
from .samples import ICC, check, exif, inserted, picture, png_chunk, sample, saved

SIZE = (21, 13)


def _rotated(rows: Rows, orientation: int) -> Rows:
    """Return the rows as viewers display them, as defined for the orientation (CIPA DC-008, 4.6.4 A)."""
    if orientation >= 5:
        rows = [list(column) for column in zip(*rows, strict=True)]
    if orientation in (2, 3, 6, 7):
        rows = [row[::-1] for row in rows]
    return rows[::-1] if orientation in (3, 4, 7, 8) else rows


def _exif(orientation: int) -> bytes:
    return png_chunk(b"eXIf", exif(orientation).removeprefix(b"Exif\0\0"))


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize(("bits", "colour"), KINDS)
def test_rotation_keeps_the_depth_of_every_sample(bits: int, colour: int, orientation: int) -> None:
    rows = noise(bits, colour, SIZE)
    checked = check(made(rows, bits, colour, _exif(orientation)))
    result = read(checked.data)
    assert (result.bits, result.colour) == (bits, colour)
    assert result.rows == _rotated(rows, orientation)
    assert result.size == (checked.width, checked.height) == (SIZE[::-1] if orientation > 4 else SIZE)
    assert check(checked.data).data is checked.data


@pytest.mark.parametrize(("bits", "colour"), KINDS)
def test_interlaced_pngs_are_rotated(bits: int, colour: int) -> None:
    rows = noise(bits, colour, SIZE)
    result = read(check(made(rows, bits, colour, _exif(6), interlaced=True)).data)
    assert (result.bits, result.colour, result.rows) == (bits, colour, _rotated(rows, 6))


def test_pngs_with_more_rows_than_are_written_at_once_are_rotated() -> None:
    rows = noise(16, 6, (5, 100))
    assert read(check(made(rows, 16, 6, _exif(3))).data).rows == _rotated(rows, 3)


TRANSPARENT = {0: b"\0\3", 2: b"\1\2\3\4\5\6", 3: b"\0\x80\xff"}
COLOURS = [
    (b"gAMA", struct.pack(">I", 45455)),
    (b"cHRM", struct.pack(">8I", *range(30000, 38000, 1000))),
    (b"cICP", b"\x09\x10\0\1"),
    (b"mDCV", bytes(24)),
    (b"cLLI", bytes(8)),
    (b"sRGB", b"\0"),
]


@pytest.mark.parametrize(("bits", "colour"), KINDS)
def test_rotation_keeps_all_colour_chunks(bits: int, colour: int) -> None:
    significant = (b"sBIT", bytes([1] * {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}[colour]))
    background = (b"bKGD", bytes({0: 2, 2: 6, 3: 1, 4: 2, 6: 6}[colour]))
    late = [(b"tRNS", TRANSPARENT[colour])] if colour in TRANSPARENT else []
    kept = [*COLOURS, significant, background, *late]
    written = made(noise(bits, colour, SIZE), bits, colour, _exif(8), *(png_chunk(*each) for each in kept))
    chunks = read(check(written).data).chunks
    assert [chunk for chunk in chunks if chunk[0] != b"PLTE"] == kept
    palettes = [payload for kind, payload in chunks if kind == b"PLTE"]
    assert palettes == ([payload] if (payload := written.partition(b"PLTE")[2][: 3 << bits]) else [])


def test_rotation_keeps_the_colour_profile_byte_for_byte() -> None:
    plain = saved(picture(), "png", icc_profile=ICC)
    profile = next(payload for kind, payload in read(plain).chunks if kind == b"iCCP")
    assert (b"iCCP", profile) in read(check(inserted(plain, 33, _exif(7))).data).chunks


@pytest.mark.parametrize(("orientation", "swapped"), [(3, False), (6, True)])
def test_rotation_swaps_the_density_of_a_png(orientation: int, swapped: bool) -> None:
    density = struct.pack(">IIB", 3000, 6000, 1)
    data = inserted(sample("png"), 33, _exif(orientation) + png_chunk(b"pHYs", density))
    wanted = struct.pack(">IIB", 6000, 3000, 1) if swapped else density
    assert read(check(data).data).chunks == [(b"pHYs", wanted)]


def test_rotation_makes_an_animation_of_one_frame_a_still_image() -> None:
    rows = noise(8, 2, SIZE)
    one = png_chunk(b"acTL", struct.pack(">II", 1, 0))
    control = png_chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, *SIZE, 0, 0, 1, 10, 0, 0))
    result = read(check(made(rows, 8, 2, one, control, _exif(6))).data)
    assert (result.rows, result.chunks) == (_rotated(rows, 6), [])
