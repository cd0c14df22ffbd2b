"""Images with an EXIF orientation are rotated upright and keep their quality."""

import struct
from io import BytesIO
from typing import Any

import pytest
from PIL import Image, ImageChops, ImageFile, ImageOps, ImageStat

from app.imaging.survey import exif_orientation

from .samples import (
    ICC,
    MARKER,
    RAW_LIMITS,
    SIZE,
    animation,
    check,
    exif,
    info,
    inserted,
    jpeg_segment,
    picture,
    png_chunk,
    saved,
)

TURNED = range(2, 9)


def _loaded(data: bytes) -> Image.Image:
    image = Image.open(BytesIO(data))
    image.load()
    return image


def _difference(one: Image.Image, other: Image.Image) -> float:
    """Return the mean difference in the channel with the largest difference, in 0…255."""
    assert one.size == other.size
    return max(ImageStat.Stat(ImageChops.difference(one.convert("RGB"), other.convert("RGB"))).mean)


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize(
    ("name", "options", "close"),
    [
        ("jpeg", {"quality": 90}, 1.5),
        ("jpeg", {"quality": 95, "subsampling": 1, "progressive": True}, 1.5),
        ("png", {}, 0),
        ("webp", {"lossless": True}, 0),
        ("webp", {"quality": 90}, 2.5),
    ],
)
def test_pixels_are_rotated_upright(
    name: str, options: dict[str, Any], close: float, orientation: int
) -> None:
    image = picture(size=(96, 64))
    data = saved(image, name, exif=exif(orientation), icc_profile=ICC, **options)
    checked = check(data)
    expected = ImageOps.exif_transpose(_loaded(data))
    result = _loaded(checked.data)
    assert (checked.width, checked.height) == result.size == ((64, 96) if orientation > 4 else (96, 64))
    assert _difference(result, expected) <= close
    assert result.getexif().get(0x0112, 1) == 1
    assert MARKER not in checked.data
    assert result.info["icc_profile"] == ICC
    assert check(checked.data).data is checked.data


@pytest.mark.parametrize("name", ["jpeg", "png", "webp"])
def test_upright_images_are_not_encoded_again(name: str) -> None:
    plain = saved(picture(), name, icc_profile=ICC)
    assert check(saved(picture(), name, exif=exif(1), icc_profile=ICC)).data == plain


@pytest.mark.parametrize("options", [{"quality": 83}, {"quality": 97, "subsampling": 0, "progressive": True}])
def test_a_rotated_jpeg_keeps_its_quantisation_tables(options: dict[str, Any]) -> None:
    before = _loaded(saved(picture(), "jpeg", exif=exif(6), **options))
    after = _loaded(check(saved(picture(), "jpeg", exif=exif(6), **options)).data)
    for name in ("quantization", "layer"):
        assert getattr(after, name) == getattr(before, name)
    assert after.info.get("progressive") == before.info.get("progressive")


def test_a_very_noisy_progressive_jpeg_is_rotated(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = Image.merge("RGB", [Image.effect_noise((300, 300), 120) for _ in range(3)])
    with monkeypatch.context() as patch:
        # Pillow needs a larger buffer to encode such a file.
        patch.setattr(ImageFile, "MAXBLOCK", 2**22)
        tables = [[1] * 64, [1] * 64]
        data = saved(noise, "jpeg", qtables=tables, subsampling=0, progressive=True, exif=exif(3))
    assert _difference(_loaded(check(data).data), noise.rotate(180)) < 2


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_jpegs_of_other_modes_are_rotated(mode: str) -> None:
    data = saved(picture(mode=mode), "jpeg", exif=exif(8), quality=95)
    result = _loaded(check(data).data)
    assert result.mode == mode
    assert _difference(result, ImageOps.exif_transpose(_loaded(data))) < 2.5


def test_a_rotated_rgb_jpeg_stays_rgb() -> None:
    data = saved(picture(), "jpeg", keep_rgb=True, exif=exif(3), quality=95)
    result = _loaded(check(data).data)
    assert info(check(data).data)["adobe_transform"] == 0
    assert _difference(result, picture().rotate(180)) < 2.5


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16"])
def test_pngs_of_all_modes_are_rotated_without_loss(mode: str) -> None:
    image = picture().convert("L").convert(mode) if mode == "I;16" else picture(mode=mode)
    options = {"transparency": 7} if mode == "P" else {}
    result = _loaded(check(saved(image, "png", exif=exif(6), **options)).data)
    assert result.mode == image.mode
    assert result.info.get("transparency") == options.get("transparency")
    rotated = image.transpose(Image.Transpose.ROTATE_270)
    assert result.convert("RGBA").tobytes() == rotated.convert("RGBA").tobytes() or mode == "P"
    assert result.convert("RGB").tobytes() == rotated.convert("RGB").tobytes()


def test_a_rotated_png_keeps_gamma_and_code_points() -> None:
    gamma, light = struct.pack(">I", 100_000), b"\x09\x10\0\1"
    data = saved(picture(), "png", exif=exif(3))
    data = inserted(data, 33, png_chunk(b"gAMA", gamma) + png_chunk(b"cICP", light))
    clean = check(data).data
    assert png_chunk(b"gAMA", gamma) in clean
    assert png_chunk(b"cICP", light) in clean


@pytest.mark.parametrize("name", ["png", "webp"])
def test_animations_are_not_rotated(name: str) -> None:
    checked = check(saved(picture(), name, exif=exif(6), **animation()))
    assert (checked.width, checked.height, checked.frames) == (*SIZE, 3)


@pytest.mark.parametrize("name", ["jpeg", "png", "webp"])
def test_nothing_is_rotated_with_strip_metadata_false(name: str) -> None:
    data = saved(picture(), name, exif=exif(6))
    checked = check(data, RAW_LIMITS)
    assert checked.data is data
    assert (checked.width, checked.height) == SIZE


@pytest.mark.parametrize(("orientation", "swapped"), [(2, False), (8, True)])
def test_rotation_swaps_the_density_of_a_jpeg(orientation: int, swapped: bool) -> None:
    plain = saved(picture(), "jpeg", dpi=(72, 144))
    result = check(inserted(plain, 20, jpeg_segment(0xE1, exif(orientation)))).data
    assert info(result)["jfif_density"] == ((144, 72) if swapped else (72, 144))
    assert info(result)["jfif_unit"] == info(plain)["jfif_unit"]


def test_rotation_adds_no_density_to_a_jpeg() -> None:
    cmyk = saved(picture(mode="CMYK"), "jpeg", exif=exif(6))
    assert "jfif_density" not in info(check(cmyk).data)
    plain = saved(picture(), "jpeg")
    bare = plain[:2] + jpeg_segment(0xE1, exif(6)) + plain[20:]
    assert info(check(bare).data)["jfif_unit"] == 0


ENTRY = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)
TIFF = b"II*\0\x08\0\0\0" + b"\1\0" + ENTRY


@pytest.mark.parametrize(
    ("block", "orientation"),
    [
        (TIFF, 6),
        (b"Exif\0\0" + TIFF, 6),
        (b"MM\0*\0\0\0\x08\0\1" + struct.pack(">HHIHH", 0x0112, 3, 1, 8, 0), 8),
        (exif(5), 5),
        (b"", 1),
        (b"II*\0", 1),
        (TIFF[:-1], 1),
        (b"II*\0\xff\xff\xff\xff" + TIFF[8:], 1),
        (TIFF.replace(ENTRY, struct.pack("<HHIHH", 0x0112, 3, 1, 9, 0)), 1),
        (TIFF.replace(ENTRY, struct.pack("<HHIHH", 0x0112, 3, 1, 0, 0)), 1),
        (TIFF.replace(ENTRY, struct.pack("<HHII", 0x0112, 4, 1, 6)), 1),
        (b"garbage garbage", 1),
    ],
)
def test_exif_orientation_ignores_damaged_exif(block: bytes, orientation: int) -> None:
    assert exif_orientation(block) == orientation
