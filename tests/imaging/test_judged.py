"""What is accepted is as large as it was judged, and what would not be is refused before it is decoded."""

import time
from dataclasses import replace
from typing import NoReturn

import pytest
from PIL import Image

from app.core.errors import TooManyPixels, UndecodableImage
from app.core.objects import FORMATS
from app.imaging.check import clean_image
from app.imaging.decode import decode
from app.imaging.survey import ImageLimits

from .avif_files import Item, av1, grid_item, picture_item, still
from .lying import CELLS, HONEST, LYING, QUARTERS, one_frame_often
from .oracle import MOST_SECONDS, assert_as_judged
from .samples import KINDS, LIMITS, RAW_LIMITS, SIZE, check, exif, picture, sample, saved

BOTH = pytest.mark.parametrize("limits", [LIMITS, RAW_LIMITS], ids=["strip", "raw"])


class _Decoded(BaseException):
    """A decoder was asked; nothing that expects damaged images catches this."""


@pytest.fixture
def undecoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no decoder run."""

    def opened(*_: object, **__: object) -> NoReturn:
        raise _Decoded

    monkeypatch.setattr(Image, "open", opened)


@BOTH
@pytest.mark.parametrize("name", LYING)
def test_lies_are_refused_before_a_decoder_sees_them(
    name: str, limits: ImageLimits, request: pytest.FixtureRequest
) -> None:
    data = LYING[name]()
    request.getfixturevalue("undecoded")
    with pytest.raises(UndecodableImage):
        check(data, limits)


@BOTH
@pytest.mark.parametrize("name", HONEST)
def test_honest_images_that_look_like_lies(name: str, limits: ImageLimits) -> None:
    judged, make = HONEST[name]
    checked = assert_as_judged(make(), limits)
    assert (checked.width, checked.height, checked.frames) == judged


@BOTH
@pytest.mark.parametrize(("name", "animated"), KINDS)
def test_samples_are_as_judged(name: str, animated: bool, limits: ImageLimits) -> None:
    assert_as_judged(sample(name, animated), limits)


@pytest.mark.parametrize(("name", "animated"), KINDS)
@pytest.mark.parametrize(
    ("wider", "higher", "more"), [(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1)]
)
def test_what_a_decoder_finds_otherwise_is_refused(
    name: str, animated: bool, wider: int, higher: int, more: int
) -> None:
    data, frames = sample(name, animated), 3 if animated else 1
    assert decode(data, FORMATS[name], SIZE, frames) == SIZE
    with pytest.raises(UndecodableImage, match=r"decoded, .* in the container"):
        decode(data, FORMATS[name], (SIZE[0] + wider, SIZE[1] + higher), frames + more)


@pytest.mark.parametrize("name", ["gif", "png", "webp", "avif"])
def test_fewer_frames_than_a_decoder_finds_are_refused(name: str) -> None:
    with pytest.raises(UndecodableImage, match="3 frames decoded, 2 in the container"):
        decode(sample(name, True), FORMATS[name], SIZE, 2)


@pytest.mark.parametrize("name", ["jpeg", "png", "webp"])
def test_a_turned_image_is_judged_as_it_is_stored(name: str) -> None:
    cleaned = clean_image(saved(picture(), name, exif=exif(6)), LIMITS)
    assert (cleaned.width, cleaned.height, cleaned.frames, cleaned.pixels) == (32, 48, 1, 1536)
    cleaned = clean_image(saved(picture(), name, exif=exif(6)), RAW_LIMITS)
    assert (cleaned.width, cleaned.height) == (48, 32)


def test_pixels_count_all_frames() -> None:
    assert clean_image(sample("gif", True), LIMITS).pixels == 3 * 48 * 32


@BOTH
def test_limits_hold_before_a_decoder_is_asked(limits: ImageLimits, undecoded: None) -> None:
    tight = replace(limits, max_pixels=1535)
    for name, animated in KINDS:
        with pytest.raises(TooManyPixels):
            clean_image(_sample[name, animated], tight)


_sample = {kind: sample(*kind) for kind in KINDS}


def test_cells_count_where_they_stick_out() -> None:
    data = still([grid_item(2, 2, (66, 66)), *CELLS], QUARTERS)
    assert check(data, replace(LIMITS, max_pixels=128 * 128)).width == 66
    with pytest.raises(TooManyPixels, match="128 × 128"):
        check(data, replace(LIMITS, max_pixels=128 * 128 - 1))


def test_other_items_are_within_the_limits() -> None:
    data = still([picture_item((64, 64)), picture_item((64, 65))])
    with pytest.raises(TooManyPixels, match="64 × 65"):
        check(data, replace(LIMITS, max_pixels=64 * 64))


def test_items_are_only_so_many() -> None:
    flat = Item(av1((64, 64)), CELLS[0].properties)
    metadata = [Item(b"x", [], b"mime")] * 4095
    assert check(still([flat, *metadata])).width == 64
    with pytest.raises(UndecodableImage, match="items of"):
        check(still([flat, *metadata, metadata[0]]))


@pytest.mark.parametrize("frames", [2, 5, 17])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_animations_of_pillow_with_hidden_frames(mode: str, frames: int) -> None:
    pictures = [picture(turn, size=(96, 80)) for turn in range(frames)]
    if mode == "RGBA":
        for each in pictures:
            each.putalpha(each.getchannel("R"))
    data = saved(pictures[0], "avif", save_all=True, append_images=pictures[1:], speed=8)
    assert assert_as_judged(data, LIMITS).frames == frames


@BOTH
def test_999_names_of_one_frame_are_refused_whatever_the_limits(limits: ImageLimits) -> None:
    data = one_frame_often(999)
    limits = replace(limits, max_frames=1000, max_pixels=2**40)
    started = time.process_time()
    with pytest.raises(UndecodableImage, match="overlap"):
        check(data, limits)
    assert time.process_time() - started < MOST_SECONDS
