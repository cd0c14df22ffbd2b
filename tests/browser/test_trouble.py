"""Whatever is away or full: a sentence that says what happened and what to do, and nothing turns for ever."""

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

AWAY = "The image store is unreachable. Retry shortly."


@pytest.fixture
def over_s3(browser: Browser, s3: S3Server, bucket: str, tmp_path: Path) -> Iterator[Running]:
    """A server over S3 with two workers."""
    settings = {**CREDENTIALS, "S3_BUCKET": bucket, "AWS_ENDPOINT_URL_S3": s3.url, "IMAGE_URLS": "server"}
    with running(tmp_path, **settings, WEB_CONCURRENCY="2") as started:
        yield started


def test_s3_is_down_and_comes_back(page: Page, over_s3: Running, s3: S3Server, files: list[Path]) -> None:
    s3.fault = refusal("503 Slow Down", "SlowDown", "GET")
    page.goto(over_s3.url)
    expect(page.locator("#library-note")).to_have_text(AWAY)
    s3.fault = refusal("503 Slow Down", "SlowDown", "PUT")
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_text("Nothing is stored yet.")).to_be_visible(timeout=20_000)
    page.set_input_files("#files", files[0])
    expect(page.locator(".job.failed").get_by_role("alert")).to_have_text(AWAY)
    s3.fault = None
    page.get_by_role("button", name="Try again").click()
    expect(cards(page)).to_have_count(1)


def test_the_disk_is_full(page: Page, browser: Browser, tmp_path: Path) -> None:
    side = 1100  # some 3.6 MB, which is more than the disk holds
    grains = random.Random(1).randbytes(3 * side * side)
    Image.frombytes("RGB", (side, side), grains).save(tmp_path / "large.png", compress_level=1)
    with (
        small_file_system(tmp_path / "small") as disk,
        running(tmp_path, WEB_CONCURRENCY="2", LOCAL_STORE_DIR=str(disk / "store")) as server,
    ):
        page.goto(server.url)
        page.set_input_files("#files", tmp_path / "large.png")
        expect(page.locator(".job.failed").get_by_role("alert")).to_have_text(
            "The disk on which images are stored is full. Nothing was stored; "
            "the server's operator has to make room."
        )


def test_the_server_is_gone(page: Page, browser: Browser, files: list[Path], tmp_path: Path) -> None:
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


def test_offline(page: Page, server: Running, files: list[Path]) -> None:
    page.goto(server.url)
    page.context.set_offline(True)
    page.set_input_files("#files", files[0])
    offline = "You are offline. Please try again when the network is back."
    expect(page.locator(".job.failed").get_by_role("alert")).to_have_text(offline)
    page.context.set_offline(False)
    page.get_by_role("button", name="Try again").click()
    expect(cards(page)).to_have_count(1)


@pytest.mark.parametrize(
    ("call", "where", "seconds"),
    [
        ("**/api/images?*", "#library-note", 30),
        ("**/api/cache", "#cache-note", 30),
        ("**/api/generate-image", "#prompt-error", 135),
    ],
)
def test_an_answer_that_never_comes(page: Page, server: Running, call: str, where: str, seconds: int) -> None:
    upload(server, noise(1))
    page.clock.install()
    page.route(call, lambda route: None)
    page.goto(server.url)
    if "generate" in call:
        page.get_by_role("textbox", name="Generate from a prompt").fill("a fox")
        page.keyboard.press("Enter")
        expect(page.locator(".job")).to_have_count(1)
    page.clock.fast_forward(seconds * 1000 + 500)
    expect(page.locator(where)).to_have_text(f"No response for {seconds} seconds. Please try again.")


def test_a_proxys_own_error_page(page: Page, server: Running) -> None:
    page.route("**/api/images?*", lambda route: route.fulfill(status=502, body="<h1>Bad gateway</h1>"))
    page.goto(server.url)
    expect(page.locator("#library-note")).to_have_text(
        "The server answered with status 502 and no explanation. Please try again."
    )
