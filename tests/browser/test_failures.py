"""Failures of the server, its store or the network: a message with the next step, and no endless spinner."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import cards, upload
from tests.pictures import noise
from tests.s3server import CREDENTIALS, S3Server, refusal
from tests.server.disk import small_file_system
from tests.server.running import Running, running

UNREACHABLE = "The image store is unreachable. Retry shortly."


@pytest.fixture
def s3_server(browser: Browser, s3: S3Server, bucket: str, tmp_path: Path) -> Iterator[Running]:
    """A server with two workers and the store in S3."""
    settings = {**CREDENTIALS, "S3_BUCKET": bucket, "AWS_ENDPOINT_URL_S3": s3.url, "IMAGE_URLS": "server"}
    with running(tmp_path, **settings, WEB_CONCURRENCY="2") as started:
        yield started


def test_errors_of_s3_are_shown_and_calls_can_be_retried(
    page: Page, s3_server: Running, s3: S3Server, files: list[Path]
) -> None:
    s3.fault = refusal("503 Slow Down", "SlowDown", "GET")
    page.goto(s3_server.url)
    expect(page.locator("#library-note")).to_have_text(UNREACHABLE)
    s3.fault = refusal("503 Slow Down", "SlowDown", "PUT")
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_text("Nothing is stored yet.")).to_be_visible(timeout=20_000)
    page.set_input_files("#files", files[0])
    expect(page.locator(".job.failed").get_by_role("alert")).to_have_text(UNREACHABLE)
    s3.fault = None
    page.get_by_role("button", name="Try again").click()
    expect(cards(page)).to_have_count(1)


def test_a_full_disk_is_named(page: Page, browser: Browser, tmp_path: Path) -> None:
    side = 1100  # about 3.6 MB, more than the disk holds
    pixels = random.Random(1).randbytes(3 * side * side)
    Image.frombytes("RGB", (side, side), pixels).save(tmp_path / "large.png", compress_level=1)
    with (
        small_file_system(tmp_path / "small") as disk,
        running(tmp_path, WEB_CONCURRENCY="2", LOCAL_STORE_DIR=str(disk / "store")) as server,
    ):
        page.goto(server.url)
        page.set_input_files("#files", tmp_path / "large.png")
        expect(page.locator(".job.failed").get_by_role("alert")).to_have_text(
            "The disk on which images are stored is full. Nothing was stored. "
            "The server's operator must free some space."
        )


def test_a_server_that_stopped_is_named_by_every_call(
    page: Page, browser: Browser, files: list[Path], tmp_path: Path
) -> None:
    with running(tmp_path, WEB_CONCURRENCY="2") as server:
        page.goto(server.url)
        expect(page.get_by_text("Nothing is stored yet.")).to_be_visible()
    page.set_input_files("#files", files[0])
    gone = "The connection to the server failed before it answered. Please try again."
    expect(page.locator(".job.failed").get_by_role("alert")).to_have_text(gone)
    page.get_by_role("textbox", name="Generate from a prompt").fill("a fox")
    page.keyboard.press("Enter")
    expect(page.locator("#prompt-error")).to_have_text(gone)
    page.get_by_label("Folder").fill("a/")
    expect(page.locator("#library-note")).to_have_text(gone)


def test_an_offline_browser_is_named_and_the_upload_can_be_retried(
    page: Page, server: Running, files: list[Path]
) -> None:
    page.goto(server.url)
    page.context.set_offline(True)
    page.set_input_files("#files", files[0])
    offline = "You are offline. Please try again when the network is back."
    expect(page.locator(".job.failed").get_by_role("alert")).to_have_text(offline)
    page.context.set_offline(False)
    page.get_by_role("button", name="Try again").click()
    expect(cards(page)).to_have_count(1)


@pytest.mark.parametrize(
    ("call", "message", "seconds"),
    [
        ("**/api/images?*", "#library-note", 30),
        ("**/api/cache", "#cache-note", 30),
        ("**/api/generate-image", "#prompt-error", 135),
    ],
)
def test_every_call_has_a_timeout(page: Page, server: Running, call: str, message: str, seconds: int) -> None:
    upload(server, noise(1))
    page.clock.install()
    page.route(call, lambda route: None)
    page.goto(server.url)
    if "generate" in call:
        page.get_by_role("textbox", name="Generate from a prompt").fill("a fox")
        page.keyboard.press("Enter")
        expect(page.locator(".job")).to_have_count(1)
    page.clock.fast_forward(seconds * 1000 + 500)
    expect(page.locator(message)).to_have_text(f"No response for {seconds} seconds. Please try again.")


def test_an_error_page_of_a_proxy_is_named_by_its_status(page: Page, server: Running) -> None:
    page.route("**/api/images?*", lambda route: route.fulfill(status=502, body="<h1>Bad gateway</h1>"))
    page.goto(server.url)
    expect(page.locator("#library-note")).to_have_text(
        "The server answered with status 502 and no explanation. Please try again."
    )
