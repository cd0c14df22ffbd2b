"""What is taken, what it is reported as, and what people read whose file is not taken."""

from dataclasses import replace
from io import BytesIO
from typing import Any

import pytest
from PIL import Image

from app.core.errors import UndecodableImage, UnsupportedImage
from app.core.objects import FORMATS
from app.imaging.survey import ImageLimits

from .samples import (
    ICC,
    KINDS,
    LIMITS,
    NAMES,
    RAW_LIMITS,
    SIZE,
    check,
    exif,
    picture,
    sample,
    saved,
)


@pytest.mark.parametrize(("name", "animated"), KINDS)
@pytest.mark.parametrize("limits", [LIMITS, RAW_LIMITS], ids=["strip", "raw"])
def test_every_format_is_recognised_by_its_bytes(name: str, animated: bool, limits: ImageLimits) -> None:
    checked = check(sample(name, animated), limits)
    assert checked.format is FORMATS[name]
    assert (checked.width, checked.height) == SIZE
    assert checked.frames == (3 if animated else 1)


@pytest.mark.parametrize(
    ("name", "image", "options"),
    [
        ("png", picture(mode="1"), {}),
        ("png", picture(mode="P"), {"transparency": 3}),
        ("png", picture(mode="RGBA"), {"icc_profile": ICC}),
        ("png", picture().convert("I;16"), {}),
        ("jpeg", picture(mode="L"), {}),
        ("jpeg", picture(mode="CMYK"), {}),
        ("jpeg", picture(), {"progressive": True, "icc_profile": ICC}),
        ("jpeg", picture(size=(300, 200)), {"restart_marker_rows": 1}),
        ("gif", picture(mode="L"), {"interlace": 0}),
        ("webp", picture(mode="RGBA"), {"lossless": True}),
        ("webp", picture(), {"icc_profile": ICC}),
        ("avif", picture(mode="RGBA"), {"icc_profile": ICC}),
        ("avif", picture(mode="L"), {}),
    ],
)
def test_with_nothing_to_strip_the_bytes_are_the_same(
    name: str, image: Image.Image, options: dict[str, Any]
) -> None:
    data = saved(image, name, **options)
    assert check(data).data is data


@pytest.mark.parametrize(("name", "animated"), [kind for kind in KINDS if kind != ("avif", True)])
def test_plain_samples_are_not_touched(name: str, animated: bool) -> None:
    assert check(sample(name, animated)).data is sample(name, animated)


@pytest.mark.parametrize("name", ["png", "jpeg", "webp", "avif"])
def test_without_stripping_nothing_is_touched(name: str) -> None:
    data = saved(picture(), name, exif=exif(6)) + b"<script>tail</script>"
    checked = check(data, RAW_LIMITS)
    assert checked.data is data
    # Only AVIF has a rotation of its own, and Pillow writes it; EXIF changes nothing here.
    assert (checked.width, checked.height) == (SIZE[::-1] if name == "avif" else SIZE)


def test_a_mirrored_avif_is_reported_as_wide_as_it_is_seen() -> None:
    data = saved(picture(), "avif", exif=exif(6))
    checked = check(data)
    assert (checked.width, checked.height) == SIZE[::-1]


@pytest.mark.parametrize("limits", [LIMITS, RAW_LIMITS], ids=["strip", "raw"])
def test_of_a_multi_picture_jpeg_the_first_one_counts(limits: ImageLimits) -> None:
    buffer = BytesIO()
    picture().save(buffer, "MPO", save_all=True, append_images=[picture(1)])
    multi = buffer.getvalue()
    checked = check(multi, limits)
    assert (checked.format.name, checked.frames, checked.width) == ("jpeg", 1, SIZE[0])
    assert checked.data == (sample("jpeg") if limits.strip_metadata else multi)


FTYP = b"\0\0\0\x18ftyp%s\0\0\0\0%s\0\0\0\0"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "Unsupported image format. Use"),
        (b"hello", "Unsupported image format. Use"),
        (b"<html><body>", "Unsupported image format. Use"),
        (b"<?xml version='1.0'?><html>", "Unsupported image format. Use"),
        (b"\x89PN", "Unsupported image format. Use"),
        (b"RIFF\0\0\0\0WAVEfmt ", "Unsupported image format. Use"),
        (FTYP % (b"mp42", b"isom"), "Unsupported image format. Use"),
        (FTYP % (b"heic", b"mif1"), "Unsupported image format: HEIC. Convert the image to"),
        (FTYP % (b"mif1", b"heic"), "Unsupported image format: HEIC. Convert the image to"),
        (FTYP % (b"hevc", b"msf1"), "Unsupported image format: HEIC. Convert the image to"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "Unsupported image format: SVG. Use"),
        (
            b"\xef\xbb\xbf\n<?xml version='1.0'?>\n<!-- a -->\n<svg viewBox='0'/>",
            "Unsupported image format: SVG. Use",
        ),
        (b"<!DOCTYPE svg PUBLIC 'x'><svg>", "Unsupported image format: SVG. Use"),
        (b"%PDF-1.7", "Unsupported image format: PDF. Use"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "Unsupported image format: JPEG XL. Use"),
    ],
)
def test_people_read_what_they_sent_and_what_is_taken(data: bytes, said: str) -> None:
    with pytest.raises(UnsupportedImage) as caught:
        check(data)
    assert said in caught.value.message
    assert caught.value.message.endswith(" PNG, JPEG, GIF, WebP or AVIF.")


@pytest.mark.parametrize(
    ("pillow", "said"),
    [
        ("BMP", "BMP"),
        ("DDS", "DDS"),
        ("EPS", "EPS"),
        ("ICO", "ICO"),
        ("JPEG2000", "JPEG 2000"),
        ("PCX", "PCX"),
        ("PPM", "PNM"),
        ("QOI", "QOI"),
        ("TIFF", "TIFF"),
    ],
)
def test_other_formats_that_pillow_reads_are_named_and_refused(pillow: str, said: str) -> None:
    buffer = BytesIO()
    picture().save(buffer, pillow)
    with pytest.raises(UnsupportedImage, match=f"format: {said}\\. "):
        check(buffer.getvalue())


@pytest.mark.parametrize("name", NAMES)
def test_a_format_that_is_switched_off_is_refused_by_name(name: str) -> None:
    others = tuple(other for other in NAMES if other != name)
    with pytest.raises(UnsupportedImage, match=f"(?i)format: {name}\\. ") as caught:
        check(sample(name), replace(LIMITS, formats=others))
    assert FORMATS[name].pillow not in caught.value.message.split("Use")[1].upper()


def test_a_message_can_name_a_single_format() -> None:
    with pytest.raises(UnsupportedImage, match=r"Use PNG\.$"):
        check(sample("gif"), replace(LIMITS, formats=("png",)))


@pytest.mark.parametrize("name", NAMES)
def test_a_good_beginning_alone_is_undecodable(name: str) -> None:
    with pytest.raises(UndecodableImage):
        check(sample(name)[:16])
