"""The API key: asked for once, where it is needed, and kept in the session alone."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import cards
from tests.pictures import noise
from tests.server.running import Running, running

NO_KEY = "This needs an API key. Ask the operator of this server for one."


@pytest.fixture(scope="module")
def guarded(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with the key `right`, which stores one image."""
    with running(tmp_path_factory.mktemp("guarded"), WEB_CONCURRENCY="2", API_KEYS="right") as started:
        headers = {"X-API-Key": "right"}
        requests.post(f"{started.url}/api/images", files={"image": noise(9)}, headers=headers, timeout=60)
        yield started


def _enter(page: Page, key: str) -> None:
    page.get_by_role("dialog").get_by_label("API key").fill(key)
    page.get_by_role("button", name="Use key").click()


def test_a_wrong_key_then_the_right_one(page: Page, guarded: Running) -> None:
    page.goto(guarded.url)
    expect(page.locator("#library-note")).to_have_text(f"The stored images can't be listed. {NO_KEY}")
    expect(page.get_by_text("Enter an API key to see these figures.")).to_be_visible()
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.get_by_role("button", name="Enter API key").click()
    expect(page.locator("#key-reason")).to_have_text(NO_KEY)
    _enter(page, "wrong")
    expect(page.get_by_role("dialog")).to_contain_text("That API key is not accepted.")
    _enter(page, "right")
    expect(cards(page)).not_to_have_count(0)
    expect(page.locator("#library-title")).to_be_focused()
    expect(page.locator("[data-cache=bound]")).to_have_text(" of 1 GB")
    page.reload()
    expect(cards(page)).not_to_have_count(0)
    assert page.evaluate("Object.values(sessionStorage)") == ["right"]
    assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]


def test_one_question_for_five_files(page: Page, guarded: Running, files: list[Path]) -> None:
    page.goto(guarded.url)
    page.set_input_files("#files", files)
    _enter(page, "right")
    expect(cards(page).filter(has_text="photo-")).to_have_count(5)
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_who_has_no_key_is_not_asked_again(page: Page, guarded: Running, files: list[Path]) -> None:
    page.goto(guarded.url)
    page.set_input_files("#files", files)
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    expect(page.locator(".job.failed")).to_have_count(5)
    expect(page.locator(".job.failed").first.get_by_role("alert")).to_have_text(NO_KEY)
    page.locator(".job.failed").first.get_by_role("button", name="Try again").click()
    _enter(page, "right")
    expect(page.locator(".job.failed")).to_have_count(4)


def test_a_key_that_may_not_upload_is_kept_for_the_rest(
    page: Page, browser: Browser, files: list[Path], tmp_path: Path
) -> None:
    keys = "reader:list=lists,writer=everything"
    with running(tmp_path, WEB_CONCURRENCY="2", API_KEYS=keys) as server:
        page.goto(server.url)
        page.get_by_role("button", name="Enter API key").click()
        _enter(page, "lists")
        expect(page.get_by_text("Nothing is stored yet.")).to_be_visible()
        page.set_input_files("#files", files[0])
        page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
        expect(page.locator(".job.failed")).to_have_count(1)
        assert page.evaluate("Object.values(sessionStorage)") == ["lists"]
        page.get_by_role("button", name="Try again").click()
        _enter(page, "everything")
        expect(cards(page)).to_have_count(1)
        assert page.evaluate("Object.values(sessionStorage)") == ["everything"]


def test_a_server_that_has_no_keys_says_so_to_who_enters_one(page: Page, server: Running) -> None:
    page.set_extra_http_headers({"X-Forwarded-For": "192.0.2.1"})
    page.goto(server.url)
    page.get_by_role("button", name="Enter API key").click()
    _enter(page, "any")
    expect(page.locator("#library-note")).to_contain_text("Set API_KEYS")
