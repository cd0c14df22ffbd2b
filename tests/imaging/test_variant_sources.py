"""Sources that are damaged, extreme or larger than they seem."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import pytest
from PIL import Image, ImageChops

from app.core.errors import AppError, TooManyPixels, UndecodableImage, UnsupportedImage
from app.core.variant_specs import MAX_SIDE, parse_spec
from app.imaging.variants import VariantRequest, describe_image, make_variant

from .samples import KINDS, LIMITS, NAMES, bare_gif, bare_png, exif, picture, sample, saved
from .test_variants import made, opened

REQUEST = VariantRequest(parse_spec("w24"), "webp", 100_000)
JOBS: tuple[Callable[[bytes], object], ...] = (
    lambda data: make_variant(data, REQUEST, LIMITS),
    lambda data: describe_image(data, LIMITS),
)


@pytest.mark.parametrize(("name", "animated"), KINDS)
def test_truncated_sources_are_refused(name: str, animated: bool) -> None:
    data = sample(name, animated)
    for share in (0.2, 0.5, 0.8, 0.95):
        with pytest.raises(AppError):
            make_variant(data[: int(len(data) * share)], REQUEST, LIMITS)


@pytest.mark.parametrize(("name", "animated"), KINDS)
def test_damaged_sources_make_a_variant_or_are_refused(name: str, animated: bool) -> None:
    data = sample(name, animated)
    for at in range(12, len(data), max(1, len(data) // 12)):
        damaged = data[:at] + bytes(value ^ 0x5A for value in data[at : at + 6]) + data[at + 6 :]
        for job in JOBS:
            with suppress(UndecodableImage, UnsupportedImage):
                job(damaged)


@pytest.mark.parametrize("missing", [1, 2])
def test_a_jpeg_without_its_end_marker_is_complete(missing: int) -> None:
    data = sample("jpeg")
    assert made(data[:-missing], "w24").data == made(data, "w24").data


@pytest.mark.parametrize("name", ["jpeg", "png", "webp", "avif"])
def test_bytes_after_the_end_are_ignored(name: str) -> None:
    data = sample(name)
    assert made(data + b"<script>", "w24").data == made(data, "w24").data


@pytest.mark.parametrize("format", NAMES)
@pytest.mark.parametrize("size", [(1, 1), (1, 16_383), (16_383, 1), (2, 3)])
@pytest.mark.parametrize("text", ["w1", "w16", "w16383", "h16383", "w50,h50,cover,smart", "w50,h70,pad"])
def test_extreme_sizes(size: tuple[int, int], text: str, format: str) -> None:
    data = saved(Image.new("RGBA", size, (200, 100, 50, 255)), "png")
    variant = made(data, text, format)
    spec = parse_spec(text)
    assert variant.width <= (spec.width or MAX_SIDE)
    assert variant.height <= (spec.height or MAX_SIDE)
    if spec.fit != "pad":
        assert variant.width <= size[0]
        assert variant.height <= size[1]


@pytest.mark.parametrize("format", NAMES)
@pytest.mark.parametrize("source", ["png", "jpeg"])
def test_sides_that_only_some_formats_can_hold(source: str, format: str) -> None:
    data = saved(Image.new("RGB", (1, 65_500), "teal"), source)
    assert made(data, "w16", format).height == MAX_SIDE


def test_the_limits_of_uploads_apply_to_sources() -> None:
    for data in (bare_png(2000, 2000), bare_gif(60), bare_gif(2, (60_000, 60_000))):
        for job in JOBS:
            with pytest.raises(TooManyPixels):
                job(data)


def test_limits_apply_before_a_decoder_runs() -> None:
    seen: list[int] = []
    with pytest.raises(TooManyPixels):
        make_variant(bare_png(2000, 2000), REQUEST, LIMITS, before_decoding=seen.append)
    with pytest.raises(UndecodableImage):
        make_variant(bare_png(900, 900), REQUEST, LIMITS, before_decoding=seen.append)
    assert len(seen) == 1


def test_a_frame_that_is_never_reached_is_not_decoded() -> None:
    """For a still variant of an animation, the first frame is enough."""
    data = bytearray(sample("webp", True))
    last = data.rindex(b"ANMF")
    data[last + 60 : last + 90] = bytes(30)
    assert made(bytes(data), "w24,still", "webp").frames == 1


@pytest.mark.parametrize("name", ["jpeg", "png", "webp", "avif"])
def test_nothing_of_the_metadata_is_left(name: str) -> None:
    data = saved(picture(), name, exif=exif(3))
    for format in NAMES:
        found = made(data, "w24", format).data
        assert b"Exif" not in found.replace(b"\0Exif\0", b"")
        assert b"SECRET" not in found


@pytest.mark.parametrize("allowed", [("gif",), ("webp", "avif")])
def test_only_allowed_formats_are_read(allowed: tuple[str, ...]) -> None:
    with pytest.raises(AppError) as caught:
        make_variant(sample("png"), REQUEST, replace(LIMITS, formats=allowed))
    assert caught.value.code == "unsupported_image"


@pytest.mark.parametrize("text", ["w100", "w90,h90,cover,fp0.3x0.7", "w333"])
def test_sources_that_are_converted_in_bands_have_no_seams(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = saved(picture(1, "P", (700, 900)), "png", transparency=bytes(range(256)))
    whole = opened(made(data, text).data).convert("RGBa")
    monkeypatch.setattr("app.imaging.source._BAND_PIXELS", 5000)
    in_bands = opened(made(data, text).data).convert("RGBa")
    assert max(ImageChops.difference(whole, in_bands).tobytes()) <= 1
