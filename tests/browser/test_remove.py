"""Deleting: the time to undo it, and an image that is stored again meanwhile."""

from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.conftest import cards, stored, upload
from tests.server.running import Running

LONG_AFTER_MS = 60_000


@pytest.fixture
def key(server: Running, files: list[Path]) -> str:
    """The key of the one image that is stored: that of the first file."""
    return str(upload(server, files[0].read_bytes())["key"])


@pytest.fixture
def deleted(page: Page, server: Running, key: str) -> Page:
    """The page, on which that image was deleted just now, as far as the user can see."""
    page.clock.install()
    page.goto(server.url)
    cards(page).get_by_role("button").click()
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("button", name="Undo")).to_be_visible()
    return page


@pytest.mark.parametrize("way", ["focus", "hover"])
def test_the_time_to_undo_stands_still_while_the_notice_is_looked_at(
    deleted: Page, server: Running, key: str, way: str
) -> None:
    undo, elsewhere = deleted.get_by_role("button", name="Undo"), deleted.locator("#library-title")
    deleted.keyboard.press("Tab")  # who uses the keyboard sees where the focus is
    getattr(undo, way)()
    for _ in range(3):
        deleted.clock.run_for(30_000)
    expect(undo).to_be_visible()
    assert stored(server) == [key]
    getattr(elsewhere, way)()
    deleted.clock.run_for(10_000)
    expect(undo).to_be_visible()
    with deleted.expect_response(lambda response: response.request.method == "DELETE"):
        deleted.clock.run_for(11_000)
    expect(undo).to_be_hidden()
    assert stored(server) == []


def test_undo_after_the_images_were_listed_anew(deleted: Page, server: Running, key: str) -> None:
    with deleted.expect_response("**/api/images?*prefix=images*"):
        deleted.get_by_label("Folder").fill("images/")
    expect(deleted.locator("#library-note")).to_be_empty()
    deleted.get_by_role("button", name="Undo").click()
    expect(cards(deleted)).to_have_count(1)


def _held(page: Page, method: str, url: str) -> list[Route]:
    """The requests to `url` that wait until the test lets them go on."""
    waiting: list[Route] = []
    page.route(
        url, lambda route: waiting.append(route) if route.request.method == method else route.continue_()
    )
    return waiting


def _wait_for(page: Page, held: list[Route]) -> Route:
    deadline = 1200
    while not held and (deadline := deadline - 1):
        page.wait_for_timeout(50)
    return held[0]


def test_an_image_that_is_stored_again_stays(
    deleted: Page, server: Running, files: list[Path], key: str
) -> None:
    sent = _held(deleted, "DELETE", "**/api/images/**")
    deleted.set_input_files("#files", files[0])
    expect(cards(deleted)).to_have_count(1)
    expect(deleted.get_by_role("button", name="Undo")).to_be_hidden()
    deleted.clock.fast_forward(LONG_AFTER_MS)
    deleted.reload()
    expect(cards(deleted)).to_have_count(1)
    assert (sent, stored(server)) == ([], [key])


def test_nothing_is_deleted_while_an_upload_is_under_way(
    deleted: Page, server: Running, files: list[Path], key: str
) -> None:
    deletes = _held(deleted, "DELETE", "**/api/images/**")
    uploads = _held(deleted, "POST", "**/api/images")
    deleted.set_input_files("#files", files[0])
    post = _wait_for(deleted, uploads)
    deleted.clock.fast_forward(30_000)
    assert deletes == []
    post.continue_()
    expect(cards(deleted)).to_have_count(1)
    deleted.clock.fast_forward(LONG_AFTER_MS)
    assert (deletes, stored(server)) == ([], [key])


def test_an_upload_waits_for_a_deletion_under_way(
    deleted: Page, server: Running, files: list[Path], key: str
) -> None:
    deletes = _held(deleted, "DELETE", "**/api/images/**")
    uploads = _held(deleted, "POST", "**/api/images")
    deleted.clock.fast_forward(LONG_AFTER_MS)
    delete = _wait_for(deleted, deletes)
    deleted.set_input_files("#files", files[:2])
    expect(deleted.locator(".job .state")).to_have_text(["Waiting", "Waiting"])
    deleted.get_by_role("button", name="Cancel").last.click()
    expect(deleted.locator(".job")).to_have_count(1)
    assert uploads == []
    delete.continue_()
    _wait_for(deleted, uploads).continue_()
    expect(cards(deleted)).to_have_count(1)
    assert stored(server) == [key]
