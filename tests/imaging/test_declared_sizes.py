"""Accepted images decode to the size that their container declares. Others are refused before decoding."""

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
from .inconsistent import CELLS, CONSISTENT, INCONSISTENT, QUARTERS, shared_frame
from .oracle import MAX_CPU_SECONDS, assert_decodes_as_declared
from .samples import KINDS, LIMITS, RAW_LIMITS, SIZE, check, exif, picture, sample, saved

BOTH = pytest.mark.parametrize("limits", [LIMITS, RAW_LIMITS], ids=["strip", "raw"])


class _DecoderCalled(BaseException):
    """A decoder was called. Not an Exception, so that handlers for damaged images don't catch it."""


@pytest.fixture
def no_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail if a decoder is called."""

    def opened(*_: object, **__: object) -> NoReturn:
        raise _DecoderCalled

    monkeypatch.setattr(Image, "open", opened)


@BOTH
@pytest.mark.parametrize("name", INCONSISTENT)
def test_inconsistent_images_are_refused_before_a_decoder_runs(
    name: str, limits: ImageLimits, request: pytest.FixtureRequest
) -> None:
    data = INCONSISTENT[name]()
    request.getfixturevalue("no_decoder")
    with pytest.raises(UndecodableImage):
        check(data, limits)


@BOTH
@pytest.mark.parametrize("name", CONSISTENT)
def test_unusual_but_consistent_images_are_accepted(name: str, limits: ImageLimits) -> None:
    declared, make = CONSISTENT[name]
    checked = assert_decodes_as_declared(make(), limits)
    assert (checked.width, checked.height, checked.frames) == declared


@BOTH
@pytest.mark.parametrize(("name", "animated"), KINDS)
def test_samples_decode_to_their_declared_size(name: str, animated: bool, limits: ImageLimits) -> None:
    assert_decodes_as_declared(sample(name, animated), limits)


@pytest.mark.parametrize(("name", "animated"), KINDS)
@pytest.mark.parametrize(
    ("wider", "higher", "more"), [(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1)]
)
def test_a_different_decoded_size_or_number_of_frames_is_refused(
    name: str, animated: bool, wider: int, higher: int, more: int
) -> None:
    data, frames = sample(name, animated), 3 if animated else 1
    info = decode(data, FORMATS[name], SIZE, frames)
    assert (info.width, info.height, info.frames) == (*SIZE, frames)
    with pytest.raises(UndecodableImage, match=r"decoded, .* in the container"):
        decode(data, FORMATS[name], (SIZE[0] + wider, SIZE[1] + higher), frames + more)


@pytest.mark.parametrize("name", ["gif", "png", "webp", "avif"])
def test_declaring_fewer_frames_than_are_decoded_is_refused(name: str) -> None:
    with pytest.raises(UndecodableImage, match="3 frames decoded, 2 in the container"):
        decode(sample(name, True), FORMATS[name], SIZE, 2)


@pytest.mark.parametrize("name", ["jpeg", "png", "webp"])
def test_clean_image_returns_the_size_after_rotation(name: str) -> None:
    cleaned = clean_image(saved(picture(), name, exif=exif(6)), LIMITS)
    assert (cleaned.width, cleaned.height, cleaned.frames, cleaned.pixels) == (32, 48, 1, 1536)
    cleaned = clean_image(saved(picture(), name, exif=exif(6)), RAW_LIMITS)
    assert (cleaned.width, cleaned.height) == (48, 32)


def test_pixels_of_a_cleaned_image_count_all_frames() -> None:
    assert clean_image(sample("gif", True), LIMITS).pixels == 3 * 48 * 32


@BOTH
def test_limits_are_checked_before_a_decoder_runs(limits: ImageLimits, no_decoder: None) -> None:
    tight = replace(limits, max_pixels=1535)
    for name, animated in KINDS:
        with pytest.raises(TooManyPixels):
            clean_image(_sample[name, animated], tight)


_sample = {kind: sample(*kind) for kind in KINDS}


def test_cells_count_in_full_if_they_exceed_the_canvas() -> None:
    data = still([grid_item(2, 2, (66, 66)), *CELLS], QUARTERS)
    assert check(data, replace(LIMITS, max_pixels=128 * 128)).width == 66
    with pytest.raises(TooManyPixels, match="128 × 128"):
        check(data, replace(LIMITS, max_pixels=128 * 128 - 1))


def test_limits_apply_to_all_items() -> None:
    data = still([picture_item((64, 64)), picture_item((64, 65))])
    with pytest.raises(TooManyPixels, match="64 × 65"):
        check(data, replace(LIMITS, max_pixels=64 * 64))


def test_an_avif_may_have_4096_items() -> None:
    flat = Item(av1((64, 64)), CELLS[0].properties)
    metadata = [Item(b"x", [], b"mime")] * 4095
    assert check(still([flat, *metadata])).width == 64
    with pytest.raises(UndecodableImage, match="items with"):
        check(still([flat, *metadata, metadata[0]]))


@pytest.mark.parametrize("frames", [2, 5, 17])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_hidden_frames_in_animations_by_pillow_are_accepted(mode: str, frames: int) -> None:
    pictures = [picture(turn, size=(96, 80)) for turn in range(frames)]
    if mode == "RGBA":
        for each in pictures:
            each.putalpha(each.getchannel("R"))
    data = saved(pictures[0], "avif", save_all=True, append_images=pictures[1:], speed=8)
    assert assert_decodes_as_declared(data, LIMITS).frames == frames


@BOTH
def test_samples_that_share_one_frame_are_refused_whatever_the_limits(limits: ImageLimits) -> None:
    data = shared_frame(999)
    limits = replace(limits, max_frames=1000, max_pixels=2**40)
    started = time.process_time()
    with pytest.raises(UndecodableImage, match="overlap"):
        check(data, limits)
    assert time.process_time() - started < MAX_CPU_SECONDS
