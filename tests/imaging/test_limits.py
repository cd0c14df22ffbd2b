"""The limits on pixels, frames, scans and parts apply before an image is decoded."""

import struct
from dataclasses import replace

import pytest

from app.core.errors import TooManyPixels, UndecodableImage
from app.imaging import survey
from app.imaging.check import clean_image
from app.imaging.survey import MAX_PARTS, ByteReader, ImageLimits

from .samples import (
    ANIMATED,
    LIMITS,
    NAMES,
    RAW_LIMITS,
    SIZE,
    bare_gif,
    bare_png,
    check,
    inserted,
    jpeg_segment,
    picture,
    png_chunk,
    riff,
    sample,
    saved,
)
from .tiny_parts import TINY_PARTS

AREA = SIZE[0] * SIZE[1]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("limits", [LIMITS, RAW_LIMITS], ids=["strip", "raw"])
def test_max_pixels_is_exact(name: str, limits: ImageLimits) -> None:
    assert check(sample(name), replace(limits, max_pixels=AREA)).frames == 1
    with pytest.raises(TooManyPixels) as caught:
        check(sample(name), replace(limits, max_pixels=AREA - 1))
    assert caught.value.message == ("The image has too many pixels: 48 × 32 = 1,536; the limit is 1,535.")


@pytest.mark.parametrize("name", ANIMATED)
def test_max_pixels_counts_all_frames(name: str) -> None:
    assert check(sample(name, True), replace(LIMITS, max_pixels=3 * AREA)).frames == 3
    with pytest.raises(TooManyPixels, match="48 × 32 × 3 frames = 4,608; the limit is 4,607"):
        check(sample(name, True), replace(LIMITS, max_pixels=3 * AREA - 1))


@pytest.mark.parametrize("name", ANIMATED)
def test_max_frames_is_exact(name: str) -> None:
    assert check(sample(name, True), replace(LIMITS, max_frames=3)).frames == 3
    with pytest.raises(TooManyPixels, match="too many frames; the limit is 2\\."):
        check(sample(name, True), replace(LIMITS, max_frames=2))


def _bomb_jpeg() -> bytes:
    frame_header = struct.pack(">BHHB", 8, 65000, 65000, 1) + b"\1\x11\0"
    return (
        b"\xff\xd8" + jpeg_segment(0xC0, frame_header) + jpeg_segment(0xDA, b"\1\1\0\0\x3f\0") + b"\0\xff\xd9"
    )


def _bomb_webp() -> bytes:
    canvas = b"\0\0\0\0" + struct.pack("<I", 65000)[:3] + struct.pack("<I", 65000)[:3]
    return riff((b"VP8X", canvas), (b"VP8L", b"\x2f\0\0\0\0"))


def _frame_outside_the_gif() -> bytes:
    data = bytearray(bare_gif(1))
    data[20:28] = struct.pack("<HHHH", 0, 0, 65000, 65000)
    return bytes(data)


@pytest.mark.parametrize("limits", [LIMITS, RAW_LIMITS], ids=["strip", "raw"])
@pytest.mark.parametrize(
    ("bomb", "size"),
    [
        (bare_png(30_000, 30_000), "30,000 × 30,000"),
        (_bomb_jpeg(), "65,000 × 65,000"),
        (_bomb_webp(), "65,001 × 65,001"),
        (bare_gif(1, (65_000, 65_000)), "65,000 × 65,000"),
        (_frame_outside_the_gif(), "65,000 × 65,000"),
    ],
    ids=["png", "jpeg", "webp", "gif", "gif frame"],
)
def test_bombs_are_refused_by_their_declared_size(bomb: bytes, size: str, limits: ImageLimits) -> None:
    assert len(bomb) < 1000
    with pytest.raises(TooManyPixels, match=size):
        check(bomb, limits)


def test_pillows_own_limit_on_pixels_is_not_applied() -> None:
    """By default, Pillow warns about images of 89 to 179 million pixels, and refuses larger ones."""
    with pytest.raises(UndecodableImage) as caught:
        check(bare_png(10_000, 9_500), replace(LIMITS, max_pixels=100_000_000))
    assert not isinstance(caught.value, TooManyPixels)
    assert "Decompression" not in caught.value.detail


def test_parsing_stops_at_the_first_frame_over_the_limits() -> None:
    # The file is also truncated. This would be the error if parsing continued to the end.
    data = bare_gif(10_000)[:-1]
    with pytest.raises(TooManyPixels, match="too many frames; the limit is 50\\."):
        check(data)
    with pytest.raises(TooManyPixels, match="101 frames = 1,010,000"):
        check(bare_gif(10_000, (100, 100))[:-1], replace(LIMITS, max_frames=100_000))


def test_a_growing_canvas_counts_for_every_frame() -> None:
    small, large = bare_gif(2), bytearray(bare_gif(2))
    assert check(small, replace(LIMITS, max_pixels=2)).frames == 2
    second = large.rindex(b"\x2c")
    large[second + 1 : second + 9] = struct.pack("<HHHH", 3, 0, 1, 1)
    with pytest.raises(TooManyPixels, match="4 × 1 × 2 frames = 8"):
        check(bytes(large), replace(LIMITS, max_pixels=7))


def _tiny_parts(name: str, count: int) -> bytes:
    data, at = sample(name), {"jpeg": 20, "png": 33}.get(name, len(sample(name)) - 1)
    part = {"jpeg": b"\xff\xfe\0\2", "png": png_chunk(b"tEXt", b""), "gif": b"\x21\xfe\0"}[name]
    return inserted(data, at, part * count)


@pytest.mark.parametrize("name", ["jpeg", "png", "gif"])
def test_a_file_may_have_up_to_max_parts(name: str) -> None:
    assert check(_tiny_parts(name, 1000)).data == sample(name)
    with pytest.raises(UndecodableImage) as caught:
        check(_tiny_parts(name, MAX_PARTS))
    assert "parts" in caught.value.detail


def test_a_jpeg_with_more_than_100_scans_is_refused() -> None:
    data = sample("jpeg")
    scan = data[data.index(b"\xff\xda") : -2]
    with pytest.raises(UndecodableImage) as caught:
        check(data[:-2] + scan * 100 + data[-2:])
    assert "scans" in caught.value.detail


def test_the_scans_of_a_jpeg_may_make_20_passes_over_max_pixels() -> None:
    data = saved(picture(), "jpeg", progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    scans = data.count(b"\xff\xda")
    longest = data[:-2] + scan * (20 - scans) + data[-2:]
    tight = replace(LIMITS, max_pixels=AREA)
    assert check(longest, tight).data == longest
    with pytest.raises(UndecodableImage) as caught:
        check(data[:-2] + scan * (21 - scans) + data[-2:], tight)
    assert "21 scans" in caught.value.detail


MAX_READS_PER_PART = 8
"""An extent of an AVIF item has six fields."""


class _ReadCounter:
    """Counts how often any ByteReader reads."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        skip = ByteReader.skip

        def counted(reader: ByteReader, count: int) -> None:
            self.count += 1
            skip(reader, count)

        monkeypatch.setattr(ByteReader, "skip", counted)


@pytest.mark.parametrize("name", TINY_PARTS)
def test_parsing_stops_after_max_parts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    max_parts = 1000
    monkeypatch.setattr(survey, "MAX_PARTS", max_parts)
    data, reads = TINY_PARTS[name](50 * max_parts), _ReadCounter(monkeypatch)
    with pytest.raises(UndecodableImage, match="more than 1000 parts"):
        clean_image(data, LIMITS)
    assert reads.count <= MAX_READS_PER_PART * max_parts


@pytest.mark.parametrize("name", ["gif frame", "gif comment", "gif loop count", "gif profile"])
def test_a_few_tiny_parts_are_accepted(name: str) -> None:
    assert check(TINY_PARTS[name](100)).frames == 1


def test_full_sub_blocks_of_a_gif_do_not_count_as_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GIF of 100 MB has 400,000 full sub-blocks."""
    data = saved(picture(size=(500, 300)).effect_spread(200), "gif")
    assert data.count(b"\xff") > 100
    monkeypatch.setattr(survey, "MAX_PARTS", 20)
    assert check(data).data == data


def test_each_frame_of_a_webp_animation_counts_as_two_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """One is in the file and one in the frame, so MAX_IMAGE_FRAMES must be at most half of MAX_PARTS."""
    frames = [picture(turn, "RGBA", SIZE) for turn in range(20)]
    data = saved(frames[0], "webp", save_all=True, append_images=frames[1:], lossless=True)
    monkeypatch.setattr(survey, "MAX_PARTS", 2 * len(frames) + 2)
    assert check(data).frames == len(frames)
