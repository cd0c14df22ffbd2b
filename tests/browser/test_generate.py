"""Generating an image: progress, cancelling, refusals, and retries with the same Idempotency-Key."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from tests.browser.conftest import cards, stored
from tests.server.running import Running
from tests.waiting import wait_until


def test_a_generated_image_becomes_a_card_with_its_prompt(page: Page, server: Running) -> None:
    page.goto(server.url)
    page.get_by_role("button", name="Paper boats on a green river").click()
    expect(page.get_by_role("textbox", name="Generate from a prompt")).to_be_focused()
    page.keyboard.press("Enter")
    expect(cards(page).locator(".name")).to_have_text("Paper boats on a green river")
    page.get_by_label("Folder").fill("generated/")
    expect(page.locator("#grid")).not_to_have_attribute("aria-busy", "true")
    expect(cards(page).locator(".name")).to_have_text("Paper boats on a green river")
    cards(page).get_by_role("button").click()
    view = page.get_by_role("dialog")
    expect(view.locator("dl")).to_contain_text("PromptPaper boats on a green river")
    expect(view.locator("dl")).to_contain_text("one-colour, seed")
    expect(view.locator("dl")).to_contain_text("1,024 × 1,024 pixels")


PROGRESS = re.compile(r"Drawing… \d+ s")


def _seconds(state: Locator) -> int:
    """Return the seconds that the progress shows."""
    return int(re.sub(r"\D", "", state.inner_text()))


def test_progress_is_shown_and_a_second_prompt_must_wait(
    page: Page, server: Running, generator_files: tuple[Path, Path]
) -> None:
    _, go_on = generator_files
    page.goto(server.url)
    page.get_by_label("Size").select_option("512x512")
    page.get_by_role("textbox", name="Generate from a prompt").fill("wait for test, a snail")
    page.get_by_role("button", name="Generate").click()
    state = page.locator(".job .state")
    expect(state).to_have_text(PROGRESS)
    seconds = _seconds(state)
    expect(state).not_to_have_text(f"Drawing… {seconds} s")
    assert _seconds(state) > seconds
    expect(page.get_by_role("button", name="Generate")).to_have_attribute("aria-disabled", "true")
    page.get_by_role("button", name="Generate").click(force=True)
    go_on.touch()
    expect(cards(page)).to_have_count(1)
    expect(page.get_by_role("button", name="Generate")).to_have_attribute("aria-disabled", "false")
    assert len(stored(server)) == 1


def test_cancelling_keeps_the_prompt(page: Page, server: Running, generator_files: tuple[Path, Path]) -> None:
    started, go_on = generator_files
    page.goto(server.url)
    page.get_by_role("textbox", name="Generate from a prompt").fill("wait for test, a snail")
    page.keyboard.press("Enter")
    wait_until(started.exists)
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".job")).to_have_count(0)
    expect(page.get_by_role("textbox", name="Generate from a prompt")).to_be_focused()
    expect(page.get_by_role("textbox", name="Generate from a prompt")).to_have_value("wait for test, a snail")
    go_on.touch()
    wait_until(lambda: stored(server))  # the generator finishes it, which the next test must not see


def test_a_refused_prompt_shows_the_error_until_it_is_changed(page: Page, server: Running) -> None:
    page.goto(server.url)
    prompt = page.get_by_role("textbox", name="Generate from a prompt")
    prompt.fill("something forbidden")
    page.keyboard.press("Enter")
    expect(page.locator("#prompt-error")).to_have_text(
        "The image model refused this prompt. Change the prompt."
    )
    expect(prompt).to_have_attribute("aria-invalid", "true")
    expect(page.locator(".job")).to_have_count(0)
    prompt.fill("something else")
    expect(page.locator("#prompt-error")).to_be_empty()


def _keys_sent(page: Page, outcomes: list[Callable[[Route], None]]) -> list[str]:
    """Return the list of Idempotency-Keys that the page sends. Each request gets the next of `outcomes`."""
    sent: list[str] = []

    def handle(route: Route) -> None:
        sent.append(route.request.headers["idempotency-key"])
        outcomes[len(sent) - 1](route)

    page.route("**/api/generate-image", handle)
    return sent


def _lose_response(route: Route) -> None:
    route.fetch()
    route.abort()


def _respond(status: int, code: str) -> Callable[[Route], None]:
    body = json.dumps({"success": False, "message": "Not now.", "code": code})
    return lambda route: route.fulfill(status=status, body=body)


def _generate(page: Page, prompt: str) -> None:
    page.get_by_role("textbox", name="Generate from a prompt").fill(prompt)
    page.keyboard.press("Enter")
    expect(page.locator(".job")).to_have_count(0)


@pytest.mark.parametrize("is_secure", [True, False])
def test_after_a_lost_response_the_retry_generates_no_second_image(
    page: Page, server: Running, is_secure: bool
) -> None:
    if not is_secure:
        page.add_init_script("delete Crypto.prototype.randomUUID")
    sent = _keys_sent(page, [_lose_response, Route.continue_, Route.continue_])
    page.goto(server.url)
    _generate(page, "a fox")
    expect(page.locator("#prompt-error")).to_contain_text("Please try again.")
    _generate(page, "a fox")
    expect(cards(page)).to_have_count(1)
    assert len(stored(server)) == 1
    _generate(page, "a fox")
    expect(cards(page)).to_have_count(2)
    assert [sent[0] == sent[1], sent[1] == sent[2]] == [True, False]


@pytest.mark.parametrize(
    ("status", "code", "is_same"),
    [
        (429, "generator_busy", True),
        (504, "generator_timeout", True),
        (409, "idempotency_key_in_use", True),
        (422, "prompt_refused", False),
        (422, "idempotency_key_reused", False),
    ],
)
def test_only_final_errors_end_the_use_of_an_idempotency_key(
    page: Page, server: Running, status: int, code: str, is_same: bool
) -> None:
    sent = _keys_sent(page, [_respond(status, code), Route.continue_])
    page.goto(server.url)
    for _ in range(2):
        _generate(page, "a fox")
    expect(cards(page)).to_have_count(1)
    assert (sent[0] == sent[1]) is is_same


def test_another_prompt_or_size_has_another_idempotency_key(page: Page, server: Running) -> None:
    sent = _keys_sent(page, [_respond(503, "store_unreachable")] * 3)
    page.goto(server.url)
    _generate(page, "a fox")
    _generate(page, "a wolf")
    page.get_by_label("Size").select_option("512x512")
    _generate(page, "a wolf")
    assert len(set(sent)) == 3
    assert all(re.fullmatch(r'"[!-~]{16,64}"', key) for key in sent)


def test_an_empty_prompt_is_refused_by_the_page(page: Page, server: Running) -> None:
    page.goto(server.url)
    page.get_by_role("button", name="Generate").click()
    expect(page.locator("#prompt-error")).to_have_text("Describe the image in a few words.")
    expect(page.get_by_role("textbox", name="Generate from a prompt")).to_be_focused()
