"""A prompt: watched, cancelled, refused."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from tests.browser.conftest import cards, stored
from tests.server.running import Running
from tests.waiting import wait_until


def test_a_prompt_is_drawn(page: Page, server: Running) -> None:
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


DRAWING = re.compile(r"Drawing… \d+ s")


def _seconds(state: Locator) -> int:
    """For how long it is said to be drawn by now."""
    return int(re.sub(r"\D", "", state.inner_text()))


def test_it_can_be_watched(page: Page, server: Running, until_told: tuple[Path, Path]) -> None:
    _, go_on = until_told
    page.goto(server.url)
    page.get_by_label("Size").select_option("512x512")
    page.get_by_role("textbox", name="Generate from a prompt").fill("until told, a snail")
    page.get_by_role("button", name="Generate").click()
    state = page.locator(".job .state")
    expect(state).to_have_text(DRAWING)
    seconds = _seconds(state)
    expect(state).not_to_have_text(f"Drawing… {seconds} s")
    assert _seconds(state) > seconds
    expect(page.get_by_role("button", name="Generate")).to_have_attribute("aria-disabled", "true")
    page.get_by_role("button", name="Generate").click(force=True)
    go_on.touch()
    expect(cards(page)).to_have_count(1)
    expect(page.get_by_role("button", name="Generate")).to_have_attribute("aria-disabled", "false")
    assert len(stored(server)) == 1


def test_cancel(page: Page, server: Running, until_told: tuple[Path, Path]) -> None:
    begun, go_on = until_told
    page.goto(server.url)
    page.get_by_role("textbox", name="Generate from a prompt").fill("until told, a snail")
    page.keyboard.press("Enter")
    wait_until(begun.exists)
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".job")).to_have_count(0)
    expect(page.get_by_role("textbox", name="Generate from a prompt")).to_be_focused()
    expect(page.get_by_role("textbox", name="Generate from a prompt")).to_have_value("until told, a snail")
    go_on.touch()
    wait_until(lambda: stored(server))  # what it has begun it finishes; the next test shall not meet it


def test_a_prompt_that_is_refused(page: Page, server: Running) -> None:
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
    """The Idempotency-Keys of the prompts sent, which meet the outcomes in turn."""
    sent: list[str] = []

    def meet(route: Route) -> None:
        sent.append(route.request.headers["idempotency-key"])
        outcomes[len(sent) - 1](route)

    page.route("**/api/generate-image", meet)
    return sent


def _lost(route: Route) -> None:
    route.fetch()
    route.abort()


def _answered(status: int, code: str) -> Callable[[Route], None]:
    body = json.dumps({"success": False, "message": "Not now.", "code": code})
    return lambda route: route.fulfill(status=status, body=body)


def _ask(page: Page, prompt: str) -> None:
    page.get_by_role("textbox", name="Generate from a prompt").fill(prompt)
    page.keyboard.press("Enter")
    expect(page.locator(".job")).to_have_count(0)


@pytest.mark.parametrize("is_secure", [True, False])
def test_an_answer_that_is_lost_is_not_drawn_again(page: Page, server: Running, is_secure: bool) -> None:
    if not is_secure:
        page.add_init_script("delete Crypto.prototype.randomUUID")
    sent = _keys_sent(page, [_lost, Route.continue_, Route.continue_])
    page.goto(server.url)
    _ask(page, "a fox")
    expect(page.locator("#prompt-error")).to_contain_text("Please try again.")
    _ask(page, "a fox")
    expect(cards(page)).to_have_count(1)
    assert len(stored(server)) == 1
    _ask(page, "a fox")
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
def test_only_a_final_refusal_ends_an_order(
    page: Page, server: Running, status: int, code: str, is_same: bool
) -> None:
    sent = _keys_sent(page, [_answered(status, code), Route.continue_])
    page.goto(server.url)
    for _ in range(2):
        _ask(page, "a fox")
    expect(cards(page)).to_have_count(1)
    assert (sent[0] == sent[1]) is is_same


def test_another_order_has_another_key(page: Page, server: Running) -> None:
    sent = _keys_sent(page, [_answered(503, "store_unreachable")] * 3)
    page.goto(server.url)
    _ask(page, "a fox")
    _ask(page, "a wolf")
    page.get_by_label("Size").select_option("512x512")
    _ask(page, "a wolf")
    assert len(set(sent)) == 3
    assert all(re.fullmatch(r'"[!-~]{16,64}"', key) for key in sent)


def test_an_empty_prompt(page: Page, server: Running) -> None:
    page.goto(server.url)
    page.get_by_role("button", name="Generate").click()
    expect(page.locator("#prompt-error")).to_have_text("Describe the image in a few words.")
    expect(page.get_by_role("textbox", name="Generate from a prompt")).to_be_focused()
