"""Chromium shows stored images as it shows the uploaded ones."""

import base64
from collections.abc import Iterator
from io import BytesIO

import pytest
from PIL import Image, ImageChops, ImageStat
from playwright.sync_api import Browser, Error

from tests.browser.chromium import chromium
from tests.imaging.png_samples import made, noise
from tests.imaging.samples import check, exif, png_chunk, sample
from tests.imaging.test_completeness import DRAWN, NOT_DRAWN
from tests.imaging.test_gain_map import BOTH_FORMS, ISO_FORM, PLAIN, XMP_FORM

PAGE = """<body style="margin: 0; background: gray">
<img style="dynamic-range-limit: no-limit" src="data:image/{};base64,{}">"""


@pytest.fixture(scope="module")
def hdr_browser(_installed: None) -> Iterator[Browser]:
    """A browser that assumes a screen with high dynamic range."""
    with chromium("--force-color-profile=hdr10") as launched:
        yield launched


def _screenshot(browser: Browser, data: bytes, name: str) -> Image.Image:
    page = browser.new_page(viewport={"width": 120, "height": 120})
    page.set_content(PAGE.format(name, base64.b64encode(data).decode()))
    page.evaluate("document.images[0].decode()")
    shot = page.screenshot()
    page.close()
    return Image.open(BytesIO(shot)).convert("RGB")


def _difference(one: Image.Image, other: Image.Image) -> float:
    return max(ImageStat.Stat(ImageChops.difference(one, other)).mean)


@pytest.mark.parametrize("data", [XMP_FORM, ISO_FORM, BOTH_FORMS], ids=["xmp", "iso", "both"])
def test_gain_maps_still_brighten_the_image(hdr_browser: Browser, data: bytes) -> None:
    before, after = _screenshot(hdr_browser, data, "jpeg"), _screenshot(hdr_browser, check(data).data, "jpeg")
    assert _difference(before, _screenshot(hdr_browser, PLAIN, "jpeg")) > 1
    assert _difference(before, after) == 0


@pytest.mark.parametrize("colour", [0, 2, 4, 6])
def test_a_16_bit_png_rotated_upright_looks_the_same(hdr_browser: Browser, colour: int) -> None:
    turned = png_chunk(b"eXIf", exif(6).removeprefix(b"Exif\0\0"))
    data = made(noise(16, colour, (90, 50)), 16, colour, turned)
    assert (
        _difference(_screenshot(hdr_browser, data, "png"), _screenshot(hdr_browser, check(data).data, "png"))
        == 0
    )


@pytest.mark.parametrize(("name", "missing"), [("gif", 1), ("png", 12)])
def test_an_image_without_its_end_marker_looks_the_same(
    hdr_browser: Browser, name: str, missing: int
) -> None:
    cut = sample(name)[:-missing]
    assert (
        _difference(_screenshot(hdr_browser, cut, name), _screenshot(hdr_browser, check(cut).data, name)) == 0
    )


@pytest.mark.parametrize("name", NOT_DRAWN)
def test_images_refused_as_incomplete_are_not_shown(hdr_browser: Browser, name: str) -> None:
    with pytest.raises(Error, match="cannot be decoded"):
        _screenshot(hdr_browser, NOT_DRAWN[name], "png")


@pytest.mark.parametrize("name", DRAWN)
def test_similar_images_that_are_accepted_are_shown(hdr_browser: Browser, name: str) -> None:
    _screenshot(hdr_browser, DRAWN[name], "png")
