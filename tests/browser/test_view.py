"""The view of one image: its facts, text to copy, and deleting it, which can be undone."""

import json

import pytest
import requests
from playwright.sync_api import Page, expect

from tests.browser.conftest import NewPage, cards, change_listing, stored, upload
from tests.pictures import noise
from tests.server.running import Running
from tests.waiting import wait_until


@pytest.fixture
def key(server: Running) -> str:
    """The key of the only stored image."""
    return str(upload(server, noise(1, (40, 30)), folder="users/7", name="me.png")["key"])


def _open(page: Page, server: Running) -> None:
    page.goto(server.url)
    cards(page).get_by_role("button").click()


def test_the_view_shows_the_images_facts(page: Page, server: Running, key: str) -> None:
    _open(page, server)
    view = page.get_by_role("dialog", name="me.png")
    facts = view.locator("dl")
    expect(facts).to_contain_text("40 × 30 pixels, 3.")
    expect(facts).to_contain_text("PNG (image/png)")
    expect(facts).to_contain_text(key)
    expect(facts).not_to_contain_text("Prompt")
    expect(view.locator("code")).to_have_text(f"{server.url}/api/images/{key}")
    page.keyboard.press("Escape")
    expect(cards(page).get_by_role("button")).to_be_focused()


def _fake_prompt(page: Page, prompt: str) -> None:
    """Make the listing say that the image was generated from `prompt`."""
    asked = {
        "prompt": prompt,
        "negative_prompt": "",
        "model": "some-model",
        "seed": 5,
        "size": "40x30",
        "time": "2026-11-22T08:57:04+00:00",
    }
    change_listing(page, lambda image: {**image, "asked": asked})


def test_the_view_shows_the_prompt_of_a_generated_image(page: Page, server: Running, key: str) -> None:
    _fake_prompt(page, "a red fox")
    _open(page, server)
    expect(page.get_by_role("dialog", name="a red fox").locator("dl")).to_contain_text(
        "Prompta red foxModelsome-model, seed 5"
    )


def test_url_markdown_html_and_curl_can_be_copied(new_page: NewPage, server: Running, key: str) -> None:
    page = new_page(permissions=["clipboard-read", "clipboard-write"])
    _open(page, server)
    url = f"{server.url}/api/images/{key}"
    expect(page.locator("#view dl")).to_contain_text("40 × 30")
    for name, text in {
        "URL": url,
        "Markdown": f"![me.png]({url})",
        "HTML": f'<img src="{url}" srcset="{url}/w32 32w, {url} 40w" sizes="auto, 100vw" loading="lazy" '
        'alt="me.png" width="40" height="30">',
        "curl": f"curl -fO '{url}'",
    }.items():
        button = page.locator(f"[data-copy={name}]")
        expect(button).to_have_text(name)
        button.click()
        expect(button).to_have_text("Copied")
        assert page.evaluate("navigator.clipboard.readText()") == text


def test_html_without_variants_has_no_srcset(page: Page, server: Running, key: str) -> None:
    change_listing(page, lambda image: {**image, "variants": {}})
    _open(page, server)
    page.locator("[data-copy=HTML]").click()
    url = f"{server.url}/api/images/{key}"
    expect(page.locator("#view code")).to_have_text(f'<img src="{url}" alt="me.png" width="40" height="30">')


def test_markdown_escapes_the_prompt(page: Page, server: Running, key: str) -> None:
    _fake_prompt(page, "a [red]\n\n  fox\t<img src=x>\\")
    _open(page, server)
    expect(page.locator("#view dl")).to_contain_text("some-model")
    page.locator("[data-copy=Markdown]").click()
    text = r"a \[red\] fox \<img src=x>\\"
    assert page.locator("#view code").text_content() == f"![{text}]({server.url}/api/images/{key})"


def test_if_copying_is_forbidden_the_text_is_selected(page: Page, server: Running, key: str) -> None:
    page.add_init_script(
        "Object.defineProperty(navigator, 'clipboard', { value: undefined });"
        "document.execCommand = () => false"
    )
    _open(page, server)
    page.locator("[data-copy=Markdown]").click()
    expect(page.get_by_role("button", name="Ctrl+C")).to_be_visible()
    assert page.evaluate("String(getSelection())") == f"![me.png]({server.url}/api/images/{key})"


def test_a_deleted_image_can_be_restored_for_20_seconds(page: Page, server: Running, key: str) -> None:
    page.clock.install()
    _open(page, server)
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_text("Deleted “me.png”.", exact=True)).to_be_visible()
    expect(page.get_by_role("button", name="Undo")).to_be_focused()
    expect(page.get_by_text("Nothing is stored yet.")).to_be_visible()
    assert stored(server) == [key]
    with page.expect_response(lambda response: response.request.method == "DELETE"):
        page.clock.fast_forward(21_000)
    expect(page.get_by_role("button", name="Undo")).to_be_hidden()
    assert stored(server) == []


def test_undo_restores_the_image(page: Page, server: Running, key: str) -> None:
    page.clock.install()
    _open(page, server)
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Undo").click()
    expect(cards(page).get_by_role("button")).to_be_focused()
    page.clock.fast_forward(20_000)
    page.reload()
    expect(cards(page)).to_have_count(1)
    assert stored(server) == [key]


def test_leaving_the_page_deletes_the_image_at_once(page: Page, server: Running, key: str) -> None:
    _open(page, server)
    page.get_by_role("button", name="Delete").click()
    page.goto(f"{server.url}/healthz")
    wait_until(lambda: requests.get(f"{server.url}/api/images/{key}", timeout=60).status_code == 404)


def test_a_failed_deletion_restores_the_card_with_the_error(page: Page, server: Running, key: str) -> None:
    page.clock.install()
    body = json.dumps(
        {"success": False, "message": "The image store can't be reached.", "code": "store_unreachable"}
    )
    page.route(
        f"**/{key}",
        lambda route: (
            route.fulfill(status=503, body=body) if route.request.method == "DELETE" else route.continue_()
        ),
    )
    _open(page, server)
    page.get_by_role("button", name="Delete").click()
    page.clock.fast_forward(21_000)
    expect(cards(page).get_by_role("alert")).to_have_text("Not deleted: The image store can't be reached.")
