"""The API key: requested once, when a call needs it, and kept in the session storage only."""

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
def keyed_server(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with the key `right` and one image."""
    with running(tmp_path_factory.mktemp("keyed_server"), WEB_CONCURRENCY="2", API_KEYS="right") as started:
        headers = {"X-API-Key": "right"}
        requests.post(f"{started.url}/api/images", files={"image": noise(9)}, headers=headers, timeout=60)
        yield started


def _enter_key(page: Page, key: str) -> None:
    page.get_by_role("dialog").get_by_label("API key").fill(key)
    page.get_by_role("button", name="Use key").click()


def test_a_wrong_key_can_be_corrected_and_the_right_one_is_kept_for_the_session(
    page: Page, keyed_server: Running
) -> None:
    page.goto(keyed_server.url)
    expect(page.locator("#library-note")).to_have_text(f"The stored images can't be listed. {NO_KEY}")
    expect(page.get_by_text("Enter an API key to see these figures.")).to_be_visible()
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.get_by_role("button", name="Enter API key").click()
    expect(page.locator("#key-reason")).to_have_text(NO_KEY)
    _enter_key(page, "wrong")
    expect(page.get_by_role("dialog")).to_contain_text("That API key is not accepted.")
    _enter_key(page, "right")
    expect(cards(page)).not_to_have_count(0)
    expect(page.locator("#library-title")).to_be_focused()
    expect(page.locator("[data-cache=bound]")).to_have_text(" of 1 GB")
    page.reload()
    expect(cards(page)).not_to_have_count(0)
    assert page.evaluate("Object.values(sessionStorage)") == ["right"]
    assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]


def test_five_uploads_request_the_key_once(page: Page, keyed_server: Running, files: list[Path]) -> None:
    page.goto(keyed_server.url)
    page.set_input_files("#files", files)
    _enter_key(page, "right")
    expect(cards(page).filter(has_text="photo-")).to_have_count(5)
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_after_cancelling_only_a_retry_requests_the_key_again(
    page: Page, keyed_server: Running, files: list[Path]
) -> None:
    page.goto(keyed_server.url)
    page.set_input_files("#files", files)
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    expect(page.locator(".job.failed")).to_have_count(5)
    expect(page.locator(".job.failed").first.get_by_role("alert")).to_have_text(NO_KEY)
    page.locator(".job.failed").first.get_by_role("button", name="Try again").click()
    _enter_key(page, "right")
    expect(page.locator(".job.failed")).to_have_count(4)


def test_a_key_without_the_scope_is_kept_until_another_replaces_it(
    page: Page, browser: Browser, files: list[Path], tmp_path: Path
) -> None:
    keys = "reader:list=lists,writer=everything"
    with running(tmp_path, WEB_CONCURRENCY="2", API_KEYS=keys) as server:
        page.goto(server.url)
        page.get_by_role("button", name="Enter API key").click()
        _enter_key(page, "lists")
        expect(page.get_by_text("Nothing is stored yet.")).to_be_visible()
        page.set_input_files("#files", files[0])
        page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
        expect(page.locator(".job.failed")).to_have_count(1)
        assert page.evaluate("Object.values(sessionStorage)") == ["lists"]
        page.get_by_role("button", name="Try again").click()
        _enter_key(page, "everything")
        expect(cards(page)).to_have_count(1)
        assert page.evaluate("Object.values(sessionStorage)") == ["everything"]


def test_a_server_without_keys_explains_that_it_has_none(page: Page, server: Running) -> None:
    page.set_extra_http_headers({"X-Forwarded-For": "192.0.2.1"})
    page.goto(server.url)
    page.get_by_role("button", name="Enter API key").click()
    _enter_key(page, "any")
    expect(page.locator("#library-note")).to_contain_text("Set API_KEYS")
