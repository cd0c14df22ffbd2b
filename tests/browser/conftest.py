"""Fixtures: a browser, its pages, a server with two workers, and files to upload."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from playwright.sync_api import Browser, Locator, Page, Route, expect

from tests.browser.chromium import MISSING, chromium, executable, is_required
from tests.browser.scripted_generator import CONTINUE, STARTED
from tests.pictures import noise
from tests.server.running import Running, running

NewPage = Callable[..., Page]
"""Opens a page with these options of a browser context. The page must log no unexpected error."""

EXPECTED_ERRORS = re.compile(r"Failed to load resource: (the server responded with a status of|net::ERR_)")
"""What Chromium logs for each response with an error status, and each failed connection."""


@pytest.fixture(scope="session")
def _installed() -> None:
    if executable() is None:
        if is_required():
            pytest.fail(f"REQUIRE_BROWSER=1, but {MISSING}")
        pytest.skip(MISSING)


@pytest.fixture(scope="module")
def browser(_installed: None) -> Iterator[Browser]:
    """A browser for one module: while Playwright's event loop runs, asyncio can't run another."""
    expect.set_options(timeout=30_000)
    with chromium() as launched:
        yield launched


@pytest.fixture
def new_page(browser: Browser) -> Iterator[NewPage]:
    pages: list[Page] = []
    errors: list[str] = []

    def make(**options: object) -> Page:
        context = browser.new_context(**options)  # type: ignore[arg-type]
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        pages.append(page)
        return page

    yield make
    for page in pages:
        page.unroute_all(behavior="ignoreErrors")
        page.context.close()
    assert [text for text in errors if not EXPECTED_ERRORS.match(text)] == []


@pytest.fixture
def page(new_page: NewPage) -> Page:
    """A page with a viewport of 1200 × 900."""
    return new_page(viewport={"width": 1200, "height": 900})


@pytest.fixture(scope="session")
def _started(_installed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    generator = "tests.browser.scripted_generator:ScriptedGenerator"
    with running(tmp_path_factory.mktemp("server"), WEB_CONCURRENCY="2", GENERATOR=generator) as started:
        yield started


@pytest.fixture
def server(_started: Running) -> Running:
    """A server without API keys or stored images."""
    for key in stored(_started):
        requests.delete(f"{_started.url}/api/images/{key}", timeout=60)
    return _started


@pytest.fixture
def generator_files(server: Running) -> Iterator[tuple[Path, Path]]:
    """For prompts with "wait for test": the file that the generator creates, and the one it waits for."""
    started, go_on = server.log_path.with_name(STARTED), server.log_path.with_name(CONTINUE)
    for path in (started, go_on):
        path.unlink(missing_ok=True)
    yield started, go_on
    go_on.touch()


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Five image files."""
    paths = [tmp_path / f"photo-{number}.png" for number in range(5)]
    for number, path in enumerate(paths):
        path.write_bytes(noise(number, (40, 30)))
    return paths


def stored(server: Running) -> list[str]:
    """Return the keys of the stored images."""
    answer = requests.get(f"{server.url}/api/images", params={"limit": 1000}, timeout=60)
    return [image["key"] for image in answer.json()["images"]]


def upload(server: Running, data: bytes, **fields: str) -> dict[str, Any]:
    """Upload an image with the API; return the response's JSON."""
    answer = requests.post(f"{server.url}/api/images", files={"image": data}, data=fields, timeout=60)
    answer.raise_for_status()
    found: dict[str, Any] = answer.json()
    return found


def cards(page: Page) -> Locator:
    """Return the visible cards of stored images."""
    return page.locator("#grid li[data-key]:visible")


def change_listing(page: Page, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Make the server's listings describe each image as `change` returns it."""

    def answer(route: Route) -> None:
        whole = route.fetch().json()
        body = json.dumps({**whole, "images": [change(image) for image in whole["images"]]})
        route.fulfill(body=body, content_type="application/json")

    page.route("**/api/images?*", answer)
