"""The pixels of variants, compared with those that libvips makes from the same file.

libvips is a different program with a different resizer and colour engine settings, so values may differ a
little: the mean difference of the values in 0…255 must stay below `CLOSE`. Formats with loss get `LOSSY`.
"""

from dataclasses import replace
from io import BytesIO
from typing import Any

import pytest
import pyvips
from PIL import Image, ImageChops, ImageStat

from app.core.errors import TooManyPixels
from app.core.variant_specs import parse_spec
from app.imaging.check import check_image
from app.imaging.variants import MadeVariant, VariantRequest, describe_image, make_variant

from .icc_profiles import ADOBE_RGB, vips_profile
from .samples import KINDS, LIMITS, NAMES, exif, inserted, picture, png_chunk, sample, saved

CLOSE, LOSSY = 2.0, 6.0
SOURCE = (96, 64)
MAX_PIXELS = 1_000_000


def made(data: bytes, text: str, format: str = "png", max_pixels: int = MAX_PIXELS) -> MadeVariant:
    """Return a variant, whose file has been checked to be what the variant says."""
    variant = make_variant(data, VariantRequest(parse_spec(text), format, max_pixels), LIMITS)
    checked = check_image(variant.data, LIMITS)
    assert checked.data is variant.data, "there is metadata in it"
    facts = checked.format.name, checked.width, checked.height, checked.frames
    assert facts == (format, variant.width, variant.height, variant.frames)
    return variant


def opened(data: bytes, mode: str = "RGBA") -> Image.Image:
    """Return the first frame of a file. It must have no colour profile."""
    with Image.open(BytesIO(data)) as image:
        assert "icc_profile" not in image.info
        return image.convert(mode)


def vips(data: bytes) -> Any:
    """Return the upright image in sRGB, as libvips reads it."""
    image: Any = pyvips.Image.new_from_buffer(data, "").autorot()
    if "icc-profile-data" in image.get_fields():
        image = image.icc_transform("srgb", embedded=True, intent="relative", black_point_compensation=True)
    image = image.colourspace("srgb").cast("uchar")
    return image if image.hasalpha() else image.bandjoin(255)


def scaled(image: Any, width: int, height: int) -> Any:
    """Return the image resized with the same filter as ours."""
    alpha = image.premultiply()
    small = alpha.resize(width / image.width, vscale=height / image.height, kernel="lanczos3")
    return small.unpremultiply().cast("uchar")


def pixels(image: Any) -> Image.Image:
    """Return an image of libvips as one of Pillow."""
    return Image.frombytes("RGBA", (image.width, image.height), image.write_to_memory())


def distance(one: Image.Image, other: Image.Image) -> float:
    """Return the mean difference of the values in 0…255."""
    assert one.size == other.size
    return max(ImageStat.Stat(ImageChops.difference(one, other)).mean)


def oriented(orientation: int, format: str) -> bytes:
    """Return a file whose stored pixels must be rotated to be upright."""
    options = (
        {"exif": exif(orientation), "lossless": True} if format == "webp" else {"exif": exif(orientation)}
    )
    return saved(picture(1, size=SOURCE), format, **options)


@pytest.mark.parametrize("format", ["jpeg", "png", "webp", "avif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_variants_are_upright(orientation: int, format: str) -> None:
    data = oriented(orientation, format)
    source = vips(data)
    width, height = source.width // 2, source.height // 2
    variant = made(data, f"w{width}")
    assert (variant.width, variant.height) == (width, height)
    assert variant.source_size == (source.width, source.height)
    assert distance(opened(variant.data), pixels(scaled(source, width, height))) < CLOSE


GRAVITIES = {
    "center": (0.5, 0.5),
    "north": (0.5, 0),
    "northeast": (1, 0),
    "east": (1, 0.5),
    "southeast": (1, 1),
    "south": (0.5, 1),
    "southwest": (0, 1),
    "west": (0, 0.5),
    "northwest": (0, 0),
}


@pytest.mark.parametrize("orientation", [1, 5, 6, 7, 8])
@pytest.mark.parametrize("gravity", GRAVITIES)
def test_crops_keep_the_chosen_side(gravity: str, orientation: int) -> None:
    data = oriented(orientation, "png")
    source = vips(data)
    for width, height in ((32, 32), (48, 16), (16, 48)):
        scale = max(width / source.width, height / source.height)
        whole = scaled(source, round(source.width * scale), round(source.height * scale))
        left, top = (
            round(share * (have - wanted))
            for share, have, wanted in zip(
                GRAVITIES[gravity], (whole.width, whole.height), (width, height), strict=True
            )
        )
        expected = whole.extract_area(left, top, width, height)
        variant = made(data, f"w{width},h{height},cover,{gravity}")
        assert distance(opened(variant.data), pixels(expected)) < CLOSE


@pytest.mark.parametrize("orientation", [1, 6])
def test_the_rest_of_a_padded_box_has_the_background(orientation: int) -> None:
    source = vips(oriented(orientation, "png"))
    small = scaled(source, source.width // 2, source.height // 2)
    expected = small.gravity("centre", 48, 48, extend="background", background=[17, 34, 51, 255])
    variant = made(oriented(orientation, "png"), "w48,h48,pad,bg112233")
    assert distance(opened(variant.data), pixels(expected)) < CLOSE
    assert opened(variant.data).getpixel((0, 0)) == (17, 34, 51, 255)


def test_a_picture_that_is_padded_lies_on_the_background_as_a_whole() -> None:
    clear = Image.new("RGBA", (20, 10), (0, 0, 0, 0))
    variant = made(saved(clear, "png"), "w20,h20,pad,bgff8000")
    assert opened(variant.data).getcolors() == [(400, (255, 128, 0, 255))]


def _wide(bands: int) -> bytes:
    """Return a PNG with 16 bits per sample."""
    pixel: Any = pyvips.Image.new_from_buffer(saved(_transparent("RGBA"), "png"), "")
    kind = "grey16" if bands < 3 else "rgb16"
    wide = {1: pixel[0], 2: pixel[0].bandjoin(pixel[3]), 3: pixel[:3], 4: pixel}[bands]
    wide = (wide.cast("float") * 256.7).cast("ushort").copy(interpretation=kind)
    return bytes(wide.pngsave_buffer(bitdepth=16))


def _transparent(mode: str) -> Image.Image:
    image = picture(0, "RGBA", SOURCE)
    image.putalpha(Image.radial_gradient("L").resize(SOURCE))
    return image.convert(mode)


def _with_profile(name: str, format: str, **options: Any) -> bytes:
    profile = ADOBE_RGB if name == "adobe" else vips_profile(name)
    return saved(picture(0, size=SOURCE), format, icc_profile=profile, **options)


def _cmyk(**options: Any) -> bytes:
    pixel: Any = pyvips.Image.new_from_buffer(saved(picture(0, "RGB", SOURCE), "png"), "")
    return bytes(pixel.icc_transform("cmyk", input_profile="srgb").jpegsave_buffer(Q=95, **options))


SOURCES: dict[str, bytes] = {
    "grey": saved(picture(0, "L", SOURCE), "png"),
    "grey JPEG": saved(picture(0, "L", SOURCE), "jpeg"),
    "1 bit": saved(picture(0, "1", SOURCE), "png"),
    "grey with alpha": saved(_transparent("LA"), "png"),
    "alpha": saved(_transparent("RGBA"), "png"),
    "alpha in WebP": saved(_transparent("RGBA"), "webp", lossless=True),
    "palette": saved(picture(0, "P", SOURCE), "png"),
    "palette with alpha": saved(picture(0, "P", SOURCE), "png", transparency=bytes(range(256))),
    "palette with a transparent colour": saved(picture(0, "P", SOURCE), "gif", transparency=30),
    "a transparent colour": saved(Image.new("RGB", SOURCE, (9, 8, 7)), "png", transparency=(9, 8, 7)),
    "16-bit grey": _wide(1),
    "16-bit grey with alpha": _wide(2),
    "16-bit colours": _wide(3),
    "16-bit colours with alpha": _wide(4),
    "colours without conversion in JPEG": saved(picture(0, size=SOURCE), "jpeg", keep_rgb=True, quality=95),
    "progressive JPEG": saved(picture(0, size=SOURCE), "jpeg", progressive=True, quality=95),
    "CMYK with a profile": _cmyk(),
    "Display P3": _with_profile("p3", "png"),
    "Display P3 in JPEG": _with_profile("p3", "jpeg", quality=95),
    "Display P3 in AVIF": _with_profile("p3", "avif", quality=95, subsampling="4:4:4"),
    "Display P3 in WebP": _with_profile("p3", "webp", lossless=True),
    "Adobe RGB": _with_profile("adobe", "png"),
    "sRGB": _with_profile("srgb", "png"),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_every_kind_of_pixels_is_shown_right(kind: str) -> None:
    source = vips(SOURCES[kind])
    for width, height in ((48, 32), (96, 64)):
        variant = made(SOURCES[kind], f"w{width}")
        shown = opened(variant.data).convert("RGBa")
        assert distance(shown, pixels(scaled(source, width, height)).convert("RGBa")) < CLOSE


@pytest.mark.parametrize("format", ["jpeg", "webp", "avif"])
@pytest.mark.parametrize("kind", ["alpha", "16-bit grey with alpha", "Display P3", "CMYK with a profile"])
def test_formats_with_loss_show_the_same(kind: str, format: str) -> None:
    expected = pixels(scaled(vips(SOURCES[kind]), 48, 32))
    if format == "jpeg":
        expected = Image.alpha_composite(Image.new("RGBA", expected.size, "#aabbcc"), expected)
    variant = made(SOURCES[kind], "w48,bgaabbcc,q95", format)
    assert distance(opened(variant.data).convert("RGBa"), expected.convert("RGBa")) < LOSSY


def test_adobe_rgb_and_display_p3_are_really_converted() -> None:
    """The colours of the references above would be far off without a conversion."""
    for kind in ("Display P3", "Adobe RGB"):
        with Image.open(BytesIO(SOURCES[kind])) as unconverted:
            raw = unconverted.convert("RGBA")
        assert distance(raw, pixels(vips(SOURCES[kind]))) > 3 * CLOSE


@pytest.mark.parametrize(
    ("colour", "expected"),
    [((200, 60, 50), (217, 42, 39)), ((255, 0, 0), (255, 0, 0)), ((128,) * 3, (128,) * 3)],
)
def test_reds_of_display_p3(colour: tuple[int, int, int], expected: tuple[int, int, int]) -> None:
    """Expected values are from the matrices of SMPTE EG 432-1 and IEC 61966-2-1. They are cut off at 255."""
    data = saved(Image.new("RGB", (8, 8), colour), "png", icc_profile=vips_profile("p3"))
    found = opened(made(data, "w8").data, "RGB").getpixel((4, 4))
    assert isinstance(found, tuple)
    assert all(abs(a - b) <= 2 for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("profile", [b"", b"damaged", vips_profile("cmyk"), vips_profile("p3")[:200]])
def test_damaged_and_unsuitable_profiles_are_ignored(profile: bytes) -> None:
    data = saved(picture(size=SOURCE), "jpeg", icc_profile=profile or None)
    plain = saved(picture(size=SOURCE), "jpeg")
    assert made(data, "w48").data == made(plain, "w48").data


def test_gamma_chunks_are_ignored() -> None:
    """Like libvips, we take PNGs without a profile for sRGB, whatever their gAMA chunk says."""
    data = saved(picture(size=SOURCE), "png")
    with_gamma = inserted(data, 33, png_chunk(b"gAMA", (100_000).to_bytes(4, "big")))
    assert made(with_gamma, "w48").data == made(data, "w48").data


def test_transparent_pixels_leave_no_fringes() -> None:
    """The colour of transparent pixels is mostly black. It must not darken the pixels next to them."""
    image = Image.new("RGBA", (60, 60), (0, 0, 0, 0))
    image.paste((255, 255, 255, 255), (15, 15, 44, 44))
    for format in ("png", "webp", "avif"):
        shown = opened(made(saved(image, "png"), "w20,q95", format).data)
        seen = [value for value in shown.get_flattened_data() if isinstance(value, tuple) and value[3] > 60]
        assert seen
        assert min(min(value[:3]) for value in seen) > 240


def test_gif_keeps_transparency_in_one_bit() -> None:
    shown = opened(made(SOURCES["alpha"], "w48", "gif").data)
    assert {alpha for alpha in shown.getchannel("A").tobytes()} == {0, 255}


@pytest.mark.parametrize(("name", "animated"), KINDS)
@pytest.mark.parametrize("format", NAMES)
def test_two_runs_give_the_same_bytes(name: str, animated: bool, format: str) -> None:
    request = VariantRequest(parse_spec("w24,h24,cover,smart"), format, MAX_PIXELS)
    first, second = (make_variant(sample(name, animated), request, LIMITS) for _ in range(2))
    assert first == second


def test_an_animated_avif_does_not_say_when_it_was_made() -> None:
    """Otherwise, variants made in different seconds would differ."""
    data = made(sample("gif", True), "w24", "avif").data
    for kind in (b"mvhd", b"tkhd", b"mdhd"):
        times = data.index(kind) + 8
        assert data[times : times + 8] == bytes(8)


@pytest.mark.parametrize("format", ["jpeg", "webp", "avif"])
def test_a_higher_quality_gives_more_bytes(format: str) -> None:
    data = saved(picture(1, size=(300, 200)).effect_spread(5), "png")
    sizes = [len(made(data, f"w300{quality}", format).data) for quality in (",q40", "", ",q95")]
    assert sizes == sorted(set(sizes))


@pytest.mark.parametrize(("name", "animated"), KINDS)
def test_the_facts_about_the_source_equal_those_of_a_check(name: str, animated: bool) -> None:
    data = sample(name, animated)
    info = check_image(data, LIMITS).info
    found = describe_image(data, LIMITS)
    # The placeholder of a JPEG may differ a little, since its colours are not converted before.
    assert (replace(found, thumbhash=info.thumbhash) if name == "jpeg" else found) == info


@pytest.mark.parametrize("kind", SOURCES)
def test_transparency_is_reported(kind: str) -> None:
    info = describe_image(SOURCES[kind], LIMITS)
    assert info.has_alpha == ("alpha" in kind or "transparent" in kind)
    assert info.has_alpha == check_image(SOURCES[kind], LIMITS).has_alpha


def test_opaque_alpha_channels_are_not_reported_as_transparency() -> None:
    assert not describe_image(saved(picture(mode="RGBA"), "png"), LIMITS).has_alpha


def test_a_variant_over_its_limit_is_refused() -> None:
    data = sample("png")
    assert made(data, "w24", max_pixels=24 * 16).width == 24
    with pytest.raises(TooManyPixels, match="variant has too many pixels: 24 × 16 = 384; the limit is 383"):
        made(data, "w24", max_pixels=24 * 16 - 1)


def test_before_decoding_is_called_with_all_pixels() -> None:
    seen: list[int] = []
    request = VariantRequest(parse_spec("w24"), "webp", MAX_PIXELS)
    make_variant(sample("gif", True), request, LIMITS, before_decoding=seen.append)
    assert len(seen) == 1
    assert seen[0] >= 3 * 48 * 32 + 3 * 24 * 16
