"""If a format is not supported, the message names it and lists the accepted formats."""

from dataclasses import replace
from io import BytesIO

import pytest

from app.core.errors import UnsupportedImage
from app.core.objects import FORMATS

from .samples import LIMITS, NAMES, check, picture, sample

FTYP = b"\0\0\0\x18ftyp%s\0\0\0\0%s\0\0\0\0"


@pytest.mark.parametrize(
    ("data", "message"),
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
def test_refusals_name_the_format_and_list_the_accepted_ones(data: bytes, message: str) -> None:
    with pytest.raises(UnsupportedImage) as caught:
        check(data)
    assert caught.value.message.startswith(message)
    assert caught.value.message.endswith(" PNG, JPEG, GIF, WebP or AVIF.")


@pytest.mark.parametrize(
    ("pillow", "name"),
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
def test_other_formats_that_pillow_reads_are_refused_by_name(pillow: str, name: str) -> None:
    buffer = BytesIO()
    picture().save(buffer, pillow)
    with pytest.raises(UnsupportedImage, match=f"format: {name}\\. "):
        check(buffer.getvalue())


@pytest.mark.parametrize("name", NAMES)
def test_a_disabled_format_is_refused_by_name(name: str) -> None:
    others = tuple(other for other in NAMES if other != name)
    with pytest.raises(UnsupportedImage, match=f"(?i)format: {name}\\. ") as caught:
        check(sample(name), replace(LIMITS, formats=others))
    assert FORMATS[name].pillow not in caught.value.message.split("Use")[1].upper()


def test_the_message_can_list_a_single_format() -> None:
    with pytest.raises(UnsupportedImage, match=r"Use PNG\.$"):
        check(sample("gif"), replace(LIMITS, formats=("png",)))
