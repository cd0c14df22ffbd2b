"""Run the system's Chromium with Playwright."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")

MISSING = f"no Chromium is installed (none of {', '.join(NAMES)}; on Debian: apt-get install chromium)"


def executable() -> str | None:
    """Return the path of the browser, or None if none is installed."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


@contextmanager
def chromium(*options: str) -> Iterator[Browser]:
    """Run a headless browser with these options."""
    # Chromium's sandbox does not work as root or in most containers, and the pages are trusted.
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable(), args=["--no-sandbox", *options])
        yield browser
        browser.close()


def is_required() -> bool:
    """Return whether tests must fail, not skip, if no browser is installed."""
    return os.environ.get("REQUIRE_BROWSER") == "1"
