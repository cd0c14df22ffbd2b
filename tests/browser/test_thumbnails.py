"""Thumbnails in the grid and variants in the view: placeholders, layout, fallbacks and transferred bytes."""

import io
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Page, Route, expect

from app.stores.local import LocalStore
from tests.browser.conftest import NewPage, cards, change_listing, stored, upload
from tests.browser.test_quality import SHIFTS, layout_shift
from tests.pictures import noise, photo, picture
from tests.server.running import Running

DESKTOP, PHONE = (1280, 800), (390, 844)

_LOADED = "all => all.map((image) => image.complete && image.naturalWidth)"


@pytest.fixture(scope="session")
def photos() -> list[bytes]:
    """Two photos of 12 megapixels and 3 MB."""
    made = [photo(seed) for seed in range(2)]
    assert all(2_800_000 < len(data) < 3_200_000 for data in made)
    return made


@pytest.fixture
def sixty_photos(server: Running, photos: list[bytes]) -> None:
    """60 stored photos, of which two were uploaded. The others are copies in the store's directory."""
    store = LocalStore(server.log_path.with_name("store"))
    for number, data in enumerate(photos):
        key = upload(server, data, folder="photos", name=f"{number}00.jpg")["key"]
        facts = store.head(key)
        for copy in range(1, 30):
            store.put(
                key.replace("00.jpg", f"{copy:02}.jpg"),
                data,
                content_type=facts.content_type,
                cache_control="no-cache",
                metadata=facts.metadata,
            )
    assert len(stored(server)) == 60


def _transferred_images(page: Page) -> dict[str, dict[str, Any]]:
    """Return the bytes of each image response with its URL, as they arrive."""
    found: dict[str, dict[str, Any]] = {}

    def responded(event: dict[str, Any]) -> None:
        if event["type"] == "Image" and "/api/images/" in event["response"]["url"]:
            found[event["requestId"]] = {"url": event["response"]["url"], "bytes": None}

    def finished(event: dict[str, Any]) -> None:
        if event["requestId"] in found:
            found[event["requestId"]]["bytes"] = event["encodedDataLength"]

    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    session.on("Network.responseReceived", responded)
    session.on("Network.loadingFinished", finished)
    return found


@pytest.mark.timeout(300)
def test_the_first_screen_of_60_photos_is_light(
    new_page: NewPage, server: Running, sixty_photos: None
) -> None:
    """For a browser with an empty cache. Thumbnails that are not on the first screen load when needed."""
    for (width, height), limit in {DESKTOP: 600_000, PHONE: 300_000}.items():
        page = new_page(viewport={"width": width, "height": height})
        page.add_init_script(SHIFTS)
        transferred = _transferred_images(page)
        page.goto(server.url, wait_until="networkidle")
        expect(cards(page)).to_have_count(24)
        tops = [card.bounding_box() for card in cards(page).all()]
        visible = sum(1 for box in tops if box and box["y"] < height)
        sizes = {one["url"]: one["bytes"] for one in transferred.values()}
        assert 0 < visible <= len(sizes) <= 24, (visible, transferred)
        assert all(url.endswith("/thumb") and size for url, size in sizes.items()), sizes
        assert sum(sizes.values()) <= limit, sizes
        widths = cards(page).locator("img").evaluate_all("all => all.map((image) => image.naturalWidth)")
        assert widths[:visible] == [320] * visible
        assert layout_shift(page) == 0


def _halves(alpha: int) -> bytes:
    """Return a PNG whose left half is red, and whose right half is blue with this opacity."""
    image = Image.new("RGBA", (90, 60), (220, 20, 20, 255))
    image.paste((20, 20, 220, alpha), (45, 0, 90, 60))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE])
def test_placeholders_are_painted_before_the_images(
    new_page: NewPage, server: Running, viewport: tuple[int, int]
) -> None:
    upload(server, _halves(255), name="halves.png")
    page = new_page(viewport={"width": viewport[0], "height": viewport[1]})
    page.add_init_script(SHIFTS)
    waiting: list[Route] = []
    page.route("**/thumb", lambda route: waiting.append(route))
    page.goto(server.url)
    frame = cards(page).locator(".picture")
    expect(frame.locator("canvas")).to_be_visible()
    before = frame.bounding_box()
    frame.scroll_into_view_if_needed()
    shot = Image.open(io.BytesIO(frame.screenshot())).convert("RGB")
    left, right = (shot.getpixel((shot.width * x // 8, shot.height // 2)) for x in (1, 7))
    assert _distance(left, (220, 20, 20)) < 40
    assert _distance(right, (20, 20, 220)) < 40
    page.evaluate("scrollTo(0, 0)")
    for route in waiting:
        route.continue_()
    expect(frame.locator("canvas")).to_have_count(0)
    assert frame.locator("img").evaluate_all(_LOADED) == [60]
    assert frame.bounding_box() == before
    assert layout_shift(page) == 0


def _distance(one: Any, other: tuple[int, int, int]) -> int:
    return max(abs(int(a) - b) for a, b in zip(one, other, strict=True))


def test_placeholders_have_the_proportions_and_the_transparency_of_the_image(
    page: Page, server: Running
) -> None:
    upload(server, _halves(0), name="halves.png")
    upload(server, picture("PNG", (40, 80), "#208040"), name="tall.png")
    page.route("**/thumb", lambda route: None)
    page.goto(server.url)
    halves, tall = (cards(page).filter(has_text=name).locator("canvas") for name in ("halves", "tall"))
    size = "canvas => [canvas.width, canvas.height]"
    pixel = "(canvas, [x, y]) => [...canvas.getContext('2d').getImageData(x, y, 1, 1).data]"
    width, height = halves.evaluate(size)
    assert (width, round(width / height, 1)) == (16, 1.6)
    assert tall.evaluate(size) == [9, 16]
    *red, opacity = halves.evaluate(pixel, [1, 5])
    assert opacity > 220
    assert _distance(red, (220, 20, 20)) < 40
    assert halves.evaluate(pixel, [14, 5])[3] < 35
    *green, opacity = tall.evaluate(pixel, [4, 8])
    assert opacity == 255
    assert _distance(green, (32, 128, 64)) < 12


def test_without_a_thumbnail_the_grid_shows_the_image(page: Page, server: Running) -> None:
    key = upload(server, noise(1), name="me.png")["key"]
    page.route("**/thumb", lambda route: route.fulfill(status=503))
    page.goto(server.url)
    image = cards(page).locator("img")
    expect(image).to_have_js_property("currentSrc", f"{server.url}/api/images/{key}")
    expect(image).to_have_js_property("naturalWidth", 64)
    expect(cards(page).get_by_role("alert")).to_be_hidden()


def test_without_facts_about_the_image_the_grid_and_the_view_show_the_image(
    page: Page, server: Running
) -> None:
    """As in listings of older servers, of images of other software, and with VARIANTS=off."""
    key = upload(server, noise(1), name="me.png")["key"]
    unknown: dict[str, Any] = {"width": None, "height": None, "thumbhash": None, "variants": {}}
    change_listing(page, lambda image: {**image, **unknown})
    page.goto(server.url)
    expect(cards(page).locator("img")).to_have_js_property("currentSrc", f"{server.url}/api/images/{key}")
    expect(cards(page).locator("canvas")).to_have_count(0)
    cards(page).get_by_role("button").click()
    expect(page.locator("#view img")).to_have_js_property("currentSrc", f"{server.url}/api/images/{key}")
    expect(page.locator("#view dl")).to_contain_text("64 × 64 pixels")


@pytest.mark.parametrize(
    ("size", "viewport", "expected"),
    [((1600, 1200), DESKTOP, "/w\\d+"), ((1600, 1200), PHONE, "/w\\d+"), ((40, 30), DESKTOP, "")],
)
def test_the_view_loads_no_more_pixels_than_it_shows(
    new_page: NewPage, server: Running, size: tuple[int, int], viewport: tuple[int, int], expected: str
) -> None:
    upload(server, picture("JPEG", size), name="me.jpg")
    page = new_page(viewport={"width": viewport[0], "height": viewport[1]})
    page.goto(server.url)
    cards(page).get_by_role("button").click()
    image = page.locator("#view img")
    url, across, down = image.evaluate(
        "async (i) => { await i.decode(); return [i.currentSrc, i.clientWidth, i.clientHeight]; }"
    )
    own_url, _, width = url.partition("/w")
    assert own_url.endswith("/me.jpg")
    assert (width == "") == (expected == "")
    assert not width or 0.99 <= int(width) / min(across, down * 4 / 3) <= 1.6
    expect(page.locator("#view dl")).to_contain_text(f"{size[0]:,} × {size[1]:,} pixels")


def test_a_view_whose_variant_fails_shows_the_image(page: Page, server: Running) -> None:
    key = upload(server, picture("JPEG", (1600, 1200)), name="me.jpg")["key"]
    page.route("**/me.jpg/*", lambda route: route.fulfill(status=503))
    page.goto(server.url)
    cards(page).get_by_role("button").click()
    expect(page.locator("#view img")).to_have_js_property("currentSrc", f"{server.url}/api/images/{key}")
    expect(page.locator("#view [data-view=broken]")).to_be_hidden()
