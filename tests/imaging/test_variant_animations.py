"""Animations stay animated: composed frames, timing, number of plays and limits."""

import struct
from io import BytesIO
from typing import Any

import pytest
from PIL import Image, ImageChops, ImageDraw, ImageStat

from app.core.errors import TooManyPixels
from app.core.variant_specs import parse_spec
from app.imaging.variants import VariantRequest, make_variant

from .samples import ANIMATED, LIMITS, colour_table_end, gif_extension, picture, sample, saved
from .test_variants import made

SIZE = (40, 30)
LOSSY = 13.0
"""The mean difference of values in 0…255 in small pictures with colours of half the resolution."""
DURATIONS = [80, 120, 200]


def frames(data: bytes) -> list[tuple[Image.Image, float]]:
    """Return each frame as a viewer shows it, in RGBA, and its duration in milliseconds."""
    found = []
    with Image.open(BytesIO(data)) as image:
        for index in range(getattr(image, "n_frames", 1)):
            image.seek(index)
            image.load()
            found.append((image.convert("RGBA"), float(image.info.get("duration", 0))))
    return found


def visible(image: Image.Image) -> Image.Image:
    """Return the picture on a background, so that the colour of transparent pixels does not matter."""
    return Image.alpha_composite(Image.new("RGBA", image.size, "#808080"), image)


def distance(one: Image.Image, other: Image.Image) -> float:
    """Return the mean difference of the values in 0…255."""
    return max(ImageStat.Stat(ImageChops.difference(visible(one), visible(other))).mean)


def blocks() -> list[Image.Image]:
    """Return three pictures with plain areas, which all encoders reproduce well."""
    found = []
    for index in range(3):
        image = Image.new("RGBA", SIZE, (240, 240, 230, 255))
        ImageDraw.Draw(image).rectangle((10 * index, 0, 10 * index + 9, 29), fill=(200, 30 + 60 * index, 40))
        found.append(image)
    return found


def gif_block(image: Image.Image, at: tuple[int, int], disposal: int, centiseconds: int) -> bytes:
    """Return a frame of a GIF at an offset. White pixels are transparent."""
    paletted = image.convert("RGB").quantize(4)
    palette = paletted.getpalette() or []
    white = next(
        (index for index in range(len(palette) // 3) if palette[3 * index : 3 * index + 3] == [255] * 3), None
    )
    single = saved(paletted, "gif", interlace=0)
    table = single[13 : colour_table_end(single)]
    start = single.index(b"\x2c", colour_table_end(single)) + 10
    control = struct.pack("<BHB", disposal << 2 | (white is not None), centiseconds, white or 0)
    bits = (len(table) // 3).bit_length() - 2
    descriptor = struct.pack("<BHHHHB", 0x2C, *at, *image.size, 0x80 | bits)
    return gif_extension(0xF9, control) + descriptor + table + single[start:-1]


def gif(*encoded: bytes, loop: bytes = b"") -> bytes:
    """Return a GIF with these frames."""
    return b"GIF89a" + struct.pack("<HHBBB", *SIZE, 0, 0, 0) + loop + b"".join(encoded) + b"\x3b"


def composed_gif(disposal: int) -> tuple[bytes, list[Image.Image]]:
    """Return a GIF whose second frame is disposed of in this way, and what a viewer must show."""
    first = blocks()[0]
    patch = Image.new("RGBA", (20, 20), (20, 60, 200, 255))
    ImageDraw.Draw(patch).rectangle((4, 4, 9, 9), fill="white")
    last = Image.new("RGBA", (10, 10), (250, 200, 0, 255))
    data = gif(
        gif_block(first, (0, 0), 1, 8),
        gif_block(patch, (10, 5), disposal, 12),
        gif_block(last, (28, 2), 1, 20),
    )
    seen = patch.copy()
    seen.putalpha(patch.convert("RGB").convert("L").point(lambda value: 255 * (value < 255)))
    second = first.copy()
    second.alpha_composite(seen, (10, 5))
    third = (first if disposal == 3 else second).copy()
    if disposal == 2:
        third.paste((0, 0, 0, 0), (10, 5, 30, 25))
    third.alpha_composite(last, (28, 2))
    return data, [first, second, third]


@pytest.mark.parametrize("format", ANIMATED)
@pytest.mark.parametrize("disposal", [1, 2, 3])
def test_frames_are_composed_as_their_disposal_says(disposal: int, format: str) -> None:
    data, expected = composed_gif(disposal)
    sizes = [(SIZE, "w40,q95"), ((20, 15), "w20")]
    for size, text in sizes if format == "png" else sizes[:1]:
        found = frames(made(data, text, format).data)
        assert [duration for _, duration in found] == DURATIONS
        for (frame, _), whole in zip(found, expected, strict=True):
            resized = whole.resize(size, Image.Resampling.LANCZOS)
            assert distance(frame, resized) < (3 if format == "png" else LOSSY)


@pytest.mark.parametrize("disposal", [0, 1, 2])
@pytest.mark.parametrize("blend", [0, 1])
def test_frames_of_a_png_are_composed(disposal: int, blend: int) -> None:
    pictures = blocks()
    pictures[1].putalpha(Image.linear_gradient("L").resize(SIZE))
    options = {"append_images": pictures[1:], "duration": DURATIONS, "disposal": disposal, "blend": blend}
    data = saved(pictures[0], "png", save_all=True, **options)
    expected, found = frames(data), frames(made(data, "w40").data)
    assert [duration for _, duration in found] == DURATIONS
    assert [distance(a, b) < 1 for (a, _), (b, _) in zip(found, expected, strict=True)] == [True] * 3


@pytest.mark.parametrize("source", ["png", "gif", "webp"])
@pytest.mark.parametrize("format", ANIMATED)
def test_transparent_pixels_of_later_frames_stay_transparent(source: str, format: str) -> None:
    pictures = blocks()
    for index, image in enumerate(pictures):
        image.paste((0, 0, 0, 0), (5 + 10 * index, 5, 15 + 10 * index, 20))
    options: dict[str, Any] = (
        {"lossless": True} if source == "webp" else {"disposal": 2} if source == "gif" else {}
    )
    data = saved(
        pictures[0], source, save_all=True, append_images=pictures[1:], duration=DURATIONS, **options
    )
    found = frames(made(data, "w40,q95", format).data)
    for index, (frame, _) in enumerate(found):
        clear = frame.getpixel((10 + 10 * index, 12))
        assert isinstance(clear, tuple)
        assert clear[3] < 20
        assert distance(frame, pictures[index]) < LOSSY


PLAYS: dict[str, dict[int, dict[str, int]]] = {
    "gif": {0: {"loop": 0}, 1: {}, 2: {"loop": 1}, 5: {"loop": 4}},
    "webp": {0: {"loop": 0}, 1: {"loop": 1}, 2: {"loop": 2}, 5: {"loop": 5}},
    "png": {0: {"loop": 0}, 1: {"loop": 1}, 2: {"loop": 2}, 5: {"loop": 5}},
}
"""The option of Pillow for an animation that is played as often as the key says, by format."""


@pytest.mark.parametrize("plays", [0, 1, 2, 5])
@pytest.mark.parametrize("source", PLAYS)
@pytest.mark.parametrize("format", PLAYS)
def test_an_animation_is_played_as_often_as_its_source(source: str, format: str, plays: int) -> None:
    """A GIF says how often the animation is repeated, and nothing if it is played once."""
    pictures = blocks()
    options: dict[str, Any] = {"append_images": pictures[1:], "duration": 100} | PLAYS[source][plays]
    data = made(saved(pictures[0], source, save_all=True, **options), "w20", format).data
    with Image.open(BytesIO(data)) as image:
        assert {key: image.info[key] for key in ("loop",) if key in image.info} == PLAYS[format][plays]


@pytest.mark.parametrize("format", ["webp", "avif", "gif"])
def test_rounded_durations_do_not_add_up_to_a_drift(format: str) -> None:
    """An animation with 30 frames per second must not become faster, though a GIF counts in 10 ms."""
    pictures = [Image.new("RGB", (16, 16), (8 * index, 0, 200)) for index in range(30)]
    options = {"append_images": pictures[1:], "duration": 1000 / 30}
    data = saved(pictures[0], "png", save_all=True, **options)
    found = frames(made(data, "w16", format).data)
    assert len(found) == 30
    assert sum(duration for _, duration in found) == pytest.approx(1000, abs=10)


def test_the_picture_for_viewers_without_animation_is_not_shown() -> None:
    pictures = blocks()
    options = {"append_images": pictures, "duration": 100, "default_image": True}
    data = saved(Image.new("RGBA", SIZE, "green"), "png", save_all=True, **options)
    still = frames(made(data, "w40,still").data)
    assert distance(still[0][0], pictures[0]) < 1
    animated = made(data, "w40", "webp")
    assert (animated.frames, animated.source_frames) == (3, 3)


@pytest.mark.parametrize("source", ANIMATED)
@pytest.mark.parametrize(("format", "text"), [("jpeg", "w24"), ("webp", "w24,still"), ("gif", "w24,still")])
def test_stills_show_the_first_frame(source: str, format: str, text: str) -> None:
    variant = made(sample(source, True), text, format)
    assert (variant.frames, variant.is_flattened) == (1, False)
    shown = frames(variant.data)[0][0]
    apart = [
        distance(shown, each.resize((24, 16), Image.Resampling.LANCZOS).convert("RGBA"))
        for each in (picture(), picture(1), picture(2))
    ]
    assert apart[0] < LOSSY
    assert apart[0] < min(apart[1:]) / 2


@pytest.mark.parametrize("source", ANIMATED)
@pytest.mark.parametrize("format", ANIMATED)
def test_an_animation_with_too_many_pixels_is_flattened(source: str, format: str) -> None:
    pixels = 24 * 16
    whole = made(sample(source, True), "w24", format, max_pixels=3 * pixels)
    assert (whole.frames, whole.is_flattened) == (3, False)
    first = made(sample(source, True), "w24", format, max_pixels=3 * pixels - 1)
    assert (first.frames, first.is_flattened, first.source_frames) == (1, True, 3)
    assert first.data == made(sample(source, True), "w24,still", format).data
    with pytest.raises(TooManyPixels):
        made(sample(source, True), "w24", format, max_pixels=pixels - 1)


def test_a_still_image_is_never_said_to_be_flattened() -> None:
    assert not made(sample("gif"), "w24", "webp", max_pixels=24 * 16).is_flattened


@pytest.mark.parametrize("text", ["w20,h20,cover,smart", "w20,h20,pad,bgff0000", "w30,h15,cover,south"])
@pytest.mark.parametrize("format", ANIMATED)
def test_every_frame_is_cropped_and_padded_alike(text: str, format: str) -> None:
    data = saved(blocks()[0], "gif", save_all=True, append_images=blocks()[1:], duration=DURATIONS)
    request = VariantRequest(parse_spec(text + ",q95"), format, 100_000)
    found = frames(make_variant(data, request, LIMITS).data)
    still = frames(make_variant(data, VariantRequest(parse_spec(text), "png", 100_000), LIMITS).data)
    assert len(found) == len(still) == 3
    for (frame, duration), (expected, expected_duration) in zip(found, still, strict=True):
        assert duration == expected_duration
        assert distance(frame, expected) < LOSSY
