"""Uploads: choosing, dropping and pasting files, their progress, and errors of files."""

import base64
import time
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.conftest import cards, stored
from tests.pictures import noise
from tests.server.running import Running

_DISPATCH_EVENT = """([kind, name, type, data]) => {
  const bytes = Uint8Array.from(atob(data), (sign) => sign.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, { type }));
  const options = { bubbles: true, cancelable: true };
  const event = kind === "drop"
    ? new DragEvent("drop", { ...options, dataTransfer: transfer })
    : new ClipboardEvent("paste", { ...options, clipboardData: transfer });
  document.querySelector("h1").dispatchEvent(event);
}"""

_RECORD_PROGRESS = """() => {
  window.seen = [];
  const look = () => {
    const bar = document.querySelector(".job progress");
    if (bar?.hasAttribute("value") && bar.value !== seen.at(-1)) seen.push(bar.value);
    requestAnimationFrame(look);
  };
  look();
}"""


def drop_or_paste(page: Page, kind: str, name: str, media_type: str, data: bytes) -> None:
    """Drop or paste a file, as `kind` says."""
    page.evaluate(_DISPATCH_EVENT, [kind, name, media_type, base64.b64encode(data).decode()])


def slow_network(page: Page, bytes_per_second: int) -> None:
    """Limit the speed of uploads."""
    client = page.context.new_cdp_session(page)
    limits = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": bytes_per_second}
    client.send("Network.emulateNetworkConditions", limits)


def test_five_files_become_five_cards(page: Page, server: Running, files: list[Path]) -> None:
    page.goto(server.url)
    expect(page.get_by_text("Nothing is stored yet.")).to_be_visible()
    page.set_input_files("#files", files)
    expect(cards(page)).to_have_count(5)
    names = [path.name for path in files]
    assert sorted(cards(page).locator(".name").all_text_contents()) == names
    expect(page.get_by_text("Nothing is stored yet.")).to_be_hidden()
    expect(page.locator("#status")).to_contain_text("Image uploaded successfully")
    assert len(stored(server)) == 5


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_a_dropped_or_pasted_file_is_uploaded(page: Page, server: Running, kind: str) -> None:
    page.goto(server.url)
    drop_or_paste(page, kind, "photo.png", "image/png", noise(7))
    expect(cards(page).locator(".name")).to_have_text("photo.png")
    assert len(stored(server)) == 1


def test_uploading_an_image_again_adds_no_card(page: Page, server: Running, files: list[Path]) -> None:
    page.goto(server.url)
    page.set_input_files("#files", files[0])
    expect(cards(page)).to_have_count(1)
    page.set_input_files("#files", files[0])
    expect(page.locator("#status")).to_contain_text("Image was already stored")
    expect(cards(page)).to_have_count(1)


def test_progress_and_preview_are_shown(page: Page, server: Running, tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(noise(1, (500, 400)))
    page.goto(server.url)
    slow_network(page, 100_000)
    page.evaluate(_RECORD_PROGRESS)
    page.set_input_files("#files", tmp_path / "large.png")
    expect(page.locator(".job img")).to_be_visible()
    expect(page.locator(".job .state")).to_contain_text("% of 582 KB")
    expect(cards(page)).to_have_count(1)
    seen = page.evaluate("seen")
    assert seen == sorted(seen)
    assert len([part for part in seen if 0 < part < 1]) >= 3


def test_a_running_upload_can_be_cancelled(page: Page, server: Running, tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(noise(1, (500, 400)))
    page.goto(server.url)
    slow_network(page, 20_000)
    page.set_input_files("#files", tmp_path / "large.png")
    expect(page.locator(".job .state")).to_contain_text("%")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".job")).to_have_count(0)
    expect(page.locator("#files")).to_be_focused()
    expect(page.get_by_text("Nothing is stored yet.")).to_be_visible()
    assert stored(server) == []


def test_a_waiting_upload_can_be_cancelled(page: Page, server: Running, files: list[Path]) -> None:
    stalled: list[Route] = []
    page.route(
        "**/api/images", lambda route: stalled.append(route) if len(stalled) < 3 else route.continue_()
    )
    page.goto(server.url)
    page.set_input_files("#files", files)
    expect(page.locator(".job")).to_have_count(5)
    deadline = time.monotonic() + 60
    while len(stalled) < 3:
        assert time.monotonic() < deadline
        page.wait_for_timeout(50)
    # Three uploads are stalled, and two wait: those of photo-1.png and photo-0.png.
    waiting = page.locator(".job").filter(has_text="photo-1.png")
    waiting.get_by_role("button", name="Cancel").click()
    expect(page.locator(".job")).to_have_count(4)
    expect(page.locator("#files")).to_be_focused()
    for route in stalled:
        route.continue_()
    expect(cards(page)).to_have_count(4)
    names = {"photo-0.png", "photo-2.png", "photo-3.png", "photo-4.png"}
    assert set(cards(page).locator(".name").all_text_contents()) == names
    assert len(stored(server)) == 4


INVALID_FILES = [
    pytest.param(
        "notes.txt", "text/plain", b"hello", "This is not an image. Choose an image file.", id="text"
    ),
    pytest.param(
        "a.png",
        "image/png",
        b"hello",
        "Unsupported image format. Use PNG, JPEG, GIF, WebP or AVIF.",
        id="not a png",
    ),
    pytest.param("a.png", "image/png", noise(1)[:-400], "The image is damaged or incomplete", id="truncated"),
    pytest.param(
        "big.png",
        "image/png",
        bytes(12 * 1024**2),
        "This file is 12 MB. The limit is 10 MB.",
        id="big",
    ),
    pytest.param(
        "big.png",
        "image/png",
        bytes(10_950_000),
        "This file is 10.4 MB. The limit is 10 MB.",
        id="slightly too big",
    ),
    pytest.param(
        "big.png",
        "image/png",
        bytes(10 * 1024**2 + 1),
        "This file is 10.000001 MB. The limit is 10 MB.",
        id="one byte too big",
    ),
]


@pytest.mark.parametrize(("name", "media_type", "data", "message"), INVALID_FILES)
def test_errors_of_a_file_are_shown_on_its_card(
    page: Page, server: Running, tmp_path: Path, name: str, media_type: str, data: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(data)
    page.goto(server.url)
    page.set_input_files("#files", tmp_path / name)
    card = page.locator(".job.failed")
    expect(card.get_by_role("alert")).to_contain_text(message)
    expect(card.locator(".name")).to_have_text(name)
    expect(card.get_by_role("button", name="Try again")).to_be_hidden()
    card.get_by_role("button", name="Dismiss").click()
    expect(page.get_by_text("Nothing is stored yet.")).to_be_visible()


def test_only_the_first_24_files_are_uploaded(page: Page, server: Running, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(26)]
    for number, path in enumerate(paths):
        path.write_bytes(noise(number, (4, 4)))
    page.goto(server.url)
    page.set_input_files("#files", paths)
    expect(page.locator("#files-error")).to_have_text("Only the first 24 images were added.")
    expect(cards(page)).to_have_count(24)
