"""A browser, and servers with two workers for it to look at."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from playwright.sync_api import Browser, Locator, Page, expect

from tests.browser.chromium import MISSING, chromium, executable, is_required
from tests.browser.drawing import BEGUN, GO_ON
from tests.pictures import noise
from tests.server.running import Running, running

NewPage = Callable[..., Page]
"""Opens a page with the options of a browser context; at the end it must have logged no error."""

EXPECTED = re.compile(r"Failed to load resource: (the server responded with a status of|net::ERR_)")
"""What Chromium itself says of every refusal."""


@pytest.fixture(scope="session")
def _installed() -> None:
    if executable() is None:
        if is_required():
            pytest.fail(f"REQUIRE_BROWSER=1, but {MISSING}")
        pytest.skip(MISSING)


@pytest.fixture(scope="module")
def browser(_installed: None) -> Iterator[Browser]:
    """Not for the session: beside Playwright's loop nobody else can run one of asyncio's."""
    expect.set_options(timeout=30_000)
    with chromium() as launched:
        yield launched


@pytest.fixture
def new_page(browser: Browser) -> Iterator[NewPage]:
    pages: list[Page] = []
    said: list[str] = []

    def make(**options: object) -> Page:
        context = browser.new_context(**options)  # type: ignore[arg-type]
        page = context.new_page()
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
        pages.append(page)
        return page

    yield make
    for page in pages:
        page.unroute_all(behavior="ignoreErrors")
        page.context.close()
    assert [text for text in said if not EXPECTED.match(text)] == []


@pytest.fixture
def page(new_page: NewPage) -> Page:
    """A page in a window of 1200 by 900."""
    return new_page(viewport={"width": 1200, "height": 900})


@pytest.fixture(scope="session")
def _started(_installed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    generator = "tests.browser.drawing:Drawing"
    with running(tmp_path_factory.mktemp("server"), WEB_CONCURRENCY="2", GENERATOR=generator) as started:
        yield started


@pytest.fixture
def server(_started: Running) -> Running:
    """A server without keys that stores nothing yet."""
    for key in stored(_started):
        requests.delete(f"{_started.url}/api/images/{key}", timeout=60)
    return _started


@pytest.fixture
def until_told(server: Running) -> Iterator[tuple[Path, Path]]:
    """For a prompt with "until told": the file that the generator makes, and the one for which it waits."""
    begun, go_on = server.log_path.with_name(BEGUN), server.log_path.with_name(GO_ON)
    for path in (begun, go_on):
        path.unlink(missing_ok=True)
    yield begun, go_on
    go_on.touch()


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Five image files."""
    paths = [tmp_path / f"photo-{number}.png" for number in range(5)]
    for number, path in enumerate(paths):
        path.write_bytes(noise(number, (40, 30)))
    return paths


def stored(server: Running) -> list[str]:
    """The keys of what a server stores."""
    answer = requests.get(f"{server.url}/api/images", params={"limit": 1000}, timeout=60)
    return [image["key"] for image in answer.json()["images"]]


def upload(server: Running, data: bytes, **fields: str) -> dict[str, Any]:
    """The server's answer to an upload through its API."""
    answer = requests.post(f"{server.url}/api/images", files={"image": data}, data=fields, timeout=60)
    answer.raise_for_status()
    found: dict[str, Any] = answer.json()
    return found


def cards(page: Page) -> Locator:
    """The stored images that the grid shows."""
    return page.locator("#grid li[data-key]:visible")
