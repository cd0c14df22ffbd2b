"""A prompt: watched, cancelled, refused."""

import time

from playwright.sync_api import Page, expect

from tests.browser.conftest import cards, stored
from tests.server.running import Running


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


def test_it_can_be_watched(page: Page, server: Running) -> None:
    page.goto(server.url)
    page.get_by_label("Size").select_option("512x512")
    page.get_by_role("textbox", name="Generate from a prompt").fill("slowly, a snail")
    page.get_by_role("button", name="Generate").click()
    expect(page.locator(".job .state")).to_have_text("Drawing… 1 s")
    expect(page.locator(".job .state")).to_have_text("Drawing… 2 s")
    expect(page.get_by_role("button", name="Generate")).to_have_attribute("aria-disabled", "true")
    page.get_by_role("button", name="Generate").click(force=True)
    expect(cards(page)).to_have_count(1)
    expect(page.get_by_role("button", name="Generate")).to_have_attribute("aria-disabled", "false")
    assert len(stored(server)) == 1


def test_cancel(page: Page, server: Running) -> None:
    page.goto(server.url)
    page.get_by_role("textbox", name="Generate from a prompt").fill("slowly, a snail")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".job")).to_have_count(0)
    expect(page.get_by_role("textbox", name="Generate from a prompt")).to_be_focused()
    expect(page.get_by_role("textbox", name="Generate from a prompt")).to_have_value("slowly, a snail")
    deadline = time.monotonic() + 20
    while not stored(server):  # the server finishes what it has begun; the next test shall not meet it
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_prompt_that_is_refused(page: Page, server: Running) -> None:
    page.goto(server.url)
    prompt = page.get_by_role("textbox", name="Generate from a prompt")
    prompt.fill("something forbidden")
    page.keyboard.press("Enter")
    expect(page.locator("#prompt-error")).to_have_text(
        "The image model refused this prompt. Please change it."
    )
    expect(prompt).to_have_attribute("aria-invalid", "true")
    expect(page.locator(".job")).to_have_count(0)
    prompt.fill("something else")
    expect(page.locator("#prompt-error")).to_be_empty()


def test_an_empty_prompt(page: Page, server: Running) -> None:
    page.goto(server.url)
    page.get_by_role("button", name="Generate").click()
    expect(page.locator("#prompt-error")).to_have_text("Say in a few words what the image should show.")
    expect(page.get_by_role("textbox", name="Generate from a prompt")).to_be_focused()
