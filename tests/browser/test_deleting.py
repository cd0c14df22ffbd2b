"""Deleting an image: the time to undo it, and uploads of the same image meanwhile."""

from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.conftest import cards, stored, upload
from tests.server.running import Running

LONG_AFTER_MS = 60_000


@pytest.fixture
def key(server: Running, files: list[Path]) -> str:
    """The key of the only stored image, which is the first of `files`."""
    return str(upload(server, files[0].read_bytes())["key"])


@pytest.fixture
def deleted(page: Page, server: Running, key: str) -> Page:
    """The page after the user deleted that image; the server deletes it when the time to undo it is over."""
    page.clock.install()
    page.goto(server.url)
    cards(page).get_by_role("button").click()
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("button", name="Undo")).to_be_visible()
    return page


@pytest.mark.parametrize("way", ["focus", "hover"])
def test_the_time_to_undo_pauses_while_the_notice_has_focus_or_pointer(
    deleted: Page, server: Running, key: str, way: str
) -> None:
    undo, elsewhere = deleted.get_by_role("button", name="Undo"), deleted.locator("#library-title")
    deleted.keyboard.press("Tab")  # so that the focus is visible
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


def test_undo_works_after_the_library_was_filtered(deleted: Page, server: Running, key: str) -> None:
    with deleted.expect_response("**/api/images?*prefix=images*"):
        deleted.get_by_label("Folder").fill("images/")
    expect(deleted.locator("#library-note")).to_be_empty()
    deleted.get_by_role("button", name="Undo").click()
    expect(cards(deleted)).to_have_count(1)


def _hold(page: Page, method: str, url: str) -> list[Route]:
    """Hold requests to `url` until the test continues them; return the list of held requests."""
    waiting: list[Route] = []
    page.route(
        url, lambda route: waiting.append(route) if route.request.method == method else route.continue_()
    )
    return waiting


def _next_held(page: Page, held: list[Route]) -> Route:
    deadline = 1200
    while not held and (deadline := deadline - 1):
        page.wait_for_timeout(50)
    return held[0]


def test_uploading_the_image_again_cancels_its_deletion(
    deleted: Page, server: Running, files: list[Path], key: str
) -> None:
    sent = _hold(deleted, "DELETE", "**/api/images/**")
    deleted.set_input_files("#files", files[0])
    expect(cards(deleted)).to_have_count(1)
    expect(deleted.get_by_role("button", name="Undo")).to_be_hidden()
    deleted.clock.fast_forward(LONG_AFTER_MS)
    deleted.reload()
    expect(cards(deleted)).to_have_count(1)
    assert (sent, stored(server)) == ([], [key])


def test_deletions_wait_for_running_uploads(
    deleted: Page, server: Running, files: list[Path], key: str
) -> None:
    deletes = _hold(deleted, "DELETE", "**/api/images/**")
    uploads = _hold(deleted, "POST", "**/api/images")
    deleted.set_input_files("#files", files[0])
    post = _next_held(deleted, uploads)
    deleted.clock.fast_forward(30_000)
    assert deletes == []
    post.continue_()
    expect(cards(deleted)).to_have_count(1)
    deleted.clock.fast_forward(LONG_AFTER_MS)
    assert (deletes, stored(server)) == ([], [key])


def test_uploads_wait_for_running_deletions(
    deleted: Page, server: Running, files: list[Path], key: str
) -> None:
    deletes = _hold(deleted, "DELETE", "**/api/images/**")
    uploads = _hold(deleted, "POST", "**/api/images")
    deleted.clock.fast_forward(LONG_AFTER_MS)
    delete = _next_held(deleted, deletes)
    deleted.set_input_files("#files", files[:2])
    expect(deleted.locator(".job .state")).to_have_text(["Waiting", "Waiting"])
    deleted.get_by_role("button", name="Cancel").last.click()
    expect(deleted.locator(".job")).to_have_count(1)
    assert uploads == []
    delete.continue_()
    _next_held(deleted, uploads).continue_()
    expect(cards(deleted)).to_have_count(1)
    assert stored(server) == [key]
