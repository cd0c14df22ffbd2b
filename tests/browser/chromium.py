"""The system's Chromium, driven by Playwright."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")

MISSING = f"no Chromium is installed (none of {', '.join(NAMES)}; on Debian: apt-get install chromium)"


def executable() -> str | None:
    """The path of the browser; None where there is none."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


@contextmanager
def chromium(*options: str) -> Iterator[Browser]:
    """A browser without a window, started with these options."""
    # Chromium's sandbox does not run as root, nor in most containers; the pages are our own.
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable(), args=["--no-sandbox", *options])
        yield browser
        browser.close()


def is_required() -> bool:
    """Whether a machine without a browser shall fail instead of skipping."""
    return os.environ.get("REQUIRE_BROWSER") == "1"
