"""The pages below a path: their scripts, calls, images and links all stay below it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import cards
from tests.server.running import Running, running


@pytest.fixture(scope="module")
def mounted(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server at /some/where."""
    with running(
        tmp_path_factory.mktemp("mounted"), WEB_CONCURRENCY="1", SCRIPT_NAME="/some/where"
    ) as started:
        yield started


def test_the_page(page: Page, mounted: Running, files: list[Path]) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{mounted.url}/some/where")
    page.set_input_files("#files", files[:1])
    expect(cards(page)).to_have_count(1)
    page.reload()
    cards(page).get_by_role("button").click()
    expect(page.locator("dialog[open] code")).to_contain_text(f"{mounted.url}/some/where/api/images/images/")
    expect(page.locator("dialog[open] img").first).to_have_js_property("naturalWidth", 40)
    below = (f"{mounted.url}/some/where", "blob:", "data:")
    elsewhere = [url for url in asked if not url.startswith(below)]
    assert elsewhere == []


def test_the_api_page_calls_below_the_path(page: Page, mounted: Running) -> None:
    page.goto(f"{mounted.url}/some/where/docs")
    page.locator(".opblock", has_text="/healthz").click()
    page.get_by_role("button", name="Try it out").click()
    with page.expect_response("**/healthz") as called:
        page.get_by_role("button", name="Execute").click()
    assert (called.value.url, called.value.status) == (f"{mounted.url}/some/where/healthz", 200)
