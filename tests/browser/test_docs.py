"""The API page, which is Swagger UI."""

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import NewPage
from tests.server.running import Running


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_api_page_is_as_dark_as_the_rest(new_page: NewPage, server: Running, scheme: str) -> None:
    page = new_page(viewport={"width": 1200, "height": 900}, color_scheme=scheme)
    page.goto(f"{server.url}/docs")
    expect(page.locator(".opblock").first).to_be_visible()
    shades = page.evaluate(
        "getComputedStyle(document.documentElement).backgroundColor.match(/[0-9]+/g).map(Number)"
    )
    is_dark = sum(shades[:3]) < 300 and shades[3:] != [0]
    assert is_dark == (scheme == "dark")
