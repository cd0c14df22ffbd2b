"""What Chromium makes of stored images: the same as of what was sent."""

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
def bright(_installed: None) -> Iterator[Browser]:
    """A browser that takes its screen for one of high dynamic range."""
    with chromium("--force-color-profile=hdr10") as launched:
        yield launched


def _shown(browser: Browser, data: bytes, name: str) -> Image.Image:
    page = browser.new_page(viewport={"width": 120, "height": 120})
    page.set_content(PAGE.format(name, base64.b64encode(data).decode()))
    page.evaluate("document.images[0].decode()")
    shot = page.screenshot()
    page.close()
    return Image.open(BytesIO(shot)).convert("RGB")


def _difference(one: Image.Image, other: Image.Image) -> float:
    return max(ImageStat.Stat(ImageChops.difference(one, other)).mean)


@pytest.mark.parametrize("data", [XMP_FORM, ISO_FORM, BOTH_FORMS], ids=["xmp", "iso", "both"])
def test_a_gain_map_makes_as_bright_as_before(bright: Browser, data: bytes) -> None:
    before, after = _shown(bright, data, "jpeg"), _shown(bright, check(data).data, "jpeg")
    assert _difference(before, _shown(bright, PLAIN, "jpeg")) > 1
    assert _difference(before, after) == 0


@pytest.mark.parametrize("colour", [0, 2, 4, 6])
def test_a_deep_png_turned_upright_looks_the_same(bright: Browser, colour: int) -> None:
    turned = png_chunk(b"eXIf", exif(6).removeprefix(b"Exif\0\0"))
    data = made(noise(16, colour, (90, 50)), 16, colour, turned)
    assert _difference(_shown(bright, data, "png"), _shown(bright, check(data).data, "png")) == 0


@pytest.mark.parametrize(("name", "lack"), [("gif", 1), ("png", 12)])
def test_what_lacks_only_its_end_is_shown_whole(bright: Browser, name: str, lack: int) -> None:
    cut = sample(name)[:-lack]
    assert _difference(_shown(bright, cut, name), _shown(bright, check(cut).data, name)) == 0


@pytest.mark.parametrize("name", NOT_DRAWN)
def test_what_is_refused_as_not_drawn_is_not(bright: Browser, name: str) -> None:
    with pytest.raises(Error, match="cannot be decoded"):
        _shown(bright, NOT_DRAWN[name], "png")


@pytest.mark.parametrize("name", DRAWN)
def test_what_is_accepted_beside_it_is_drawn(bright: Browser, name: str) -> None:
    _shown(bright, DRAWN[name], "png")
