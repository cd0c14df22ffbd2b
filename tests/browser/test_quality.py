"""Accessibility by axe-core, and what the page weighs, takes and shifts."""

import json
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import FloatRect, Page, Response, expect

from tests.browser.conftest import NewPage, cards, upload
from tests.browser.slow import slow_page
from tests.live import live
from tests.pictures import noise
from tests.server.running import Running, running
from tests.waiting import wait_until

MAX_BYTES = 60_000
WINDOWS = [(1200, 900), (360, 740)]

_SHIFTS = """
window.shifts = [];
new PerformanceObserver((list) => shifts.push(...list.getEntries().filter((entry) => !entry.hadRecentInput)))
  .observe({ type: "layout-shift", buffered: true });
"""


def violations(page: Page) -> list[str]:
    """What axe-core finds: the rule, and the element that breaks it."""
    found: list[dict[str, Any]] = Axe().run(page).response["violations"]
    return [f"{one['id']}: {node['html']}" for one in found for node in one["nodes"]]


def shift(page: Page) -> float:
    """By how much things moved, as Chromium scores it."""
    return float(page.evaluate("shifts.reduce((sum, { value }) => sum + value, 0)"))


def _overlap(one: FloatRect, other: FloatRect) -> bool:
    across = one["x"] < other["x"] + other["width"] and other["x"] < one["x"] + one["width"]
    return across and one["y"] < other["y"] + other["height"] and other["y"] < one["y"] + one["height"]


@pytest.mark.parametrize(("scheme", "window"), [("light", WINDOWS[0]), ("dark", WINDOWS[1])])
def test_axe_finds_nothing(
    new_page: NewPage,
    server: Running,
    files: list[Path],
    tmp_path: Path,
    scheme: str,
    window: tuple[int, int],
) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    page = new_page(
        viewport={"width": window[0], "height": window[1]}, color_scheme=scheme, reduced_motion="reduce"
    )
    page.goto(server.url)
    expect(page.get_by_text("Nothing is stored yet.")).to_be_visible()
    assert violations(page) == []
    page.set_input_files("#files", [*files[:2], tmp_path / "notes.txt"])
    page.get_by_role("button", name="Generate").click()
    expect(cards(page)).to_have_count(2)
    expect(page.locator(".job.failed")).to_have_count(1)
    expect(page.locator("#prompt-error")).not_to_be_empty()
    assert violations(page) == []
    cards(page).first.get_by_role("button").click()
    expect(page.locator("#view dl")).to_contain_text("40 × 30")
    assert violations(page) == []
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("button", name="Undo")).to_be_visible()
    assert violations(page) == []
    page.evaluate("document.getElementById('key-dialog').showModal()")
    assert violations(page) == []


@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("images", [0, 8])
def test_nothing_moves_while_the_page_loads(
    new_page: NewPage, server: Running, window: tuple[int, int], images: int
) -> None:
    for number in range(images):
        upload(server, noise(number))
    page = new_page(viewport={"width": window[0], "height": window[1]})
    page.add_init_script(_SHIFTS)
    page.goto(server.url, wait_until="networkidle")
    expect(cards(page)).to_have_count(images)
    assert shift(page) == 0


@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_nothing_moves_however_slowly_the_page_comes(
    new_page: NewPage, server: Running, window: tuple[int, int]
) -> None:
    upload(server, noise(1))
    page = new_page(viewport={"width": window[0], "height": window[1]})
    page.add_init_script(_SHIFTS)
    with live(slow_page(server.url)) as url:
        page.goto(url, wait_until="networkidle")
        expect(cards(page)).to_have_count(1)
        assert shift(page) == 0


def test_nothing_moves_while_a_prompt_is_drawn_or_refused(page: Page, server: Running) -> None:
    page.add_init_script(_SHIFTS)
    for number in range(3):
        upload(server, noise(number))
    page.goto(server.url, wait_until="networkidle")
    for prompt in ("slowly, a fox", "slowly forbidden"):
        page.get_by_role("textbox", name="Generate from a prompt").fill(prompt)
        page.keyboard.press("Enter")
        expect(page.locator(".job")).to_have_count(0)
    expect(cards(page)).to_have_count(4)
    expect(page.locator("#prompt-error")).not_to_be_empty()
    assert shift(page) == 0


def test_the_page_is_light_and_soon_there(new_page: NewPage, server: Running) -> None:
    page = new_page(viewport={"width": 1200, "height": 900})
    answers: list[Response] = []
    page.on("response", lambda answer: answers.append(answer))
    page.goto(server.url, wait_until="networkidle")
    weights = {answer.url: len(answer.body()) for answer in answers if "/api/" not in answer.url}
    assert len(weights) > 10, weights
    assert all(url.startswith(server.url) for url in weights)
    assert sum(weights.values()) < MAX_BYTES
    wait_until(lambda: _ready_ms(new_page(), server) < 2_000)  # not each time where the machine is busy


def _ready_ms(page: Page, server: Running) -> float:
    """How long it takes until the scripts have run, in milliseconds."""
    page.goto(server.url)
    return float(page.evaluate("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd"))


@pytest.mark.parametrize("state", ["page", "view", "key"])
def test_nothing_is_wider_than_a_phone(new_page: NewPage, server: Running, state: str) -> None:
    upload(server, noise(1), folder="a-rather-long-folder/with-another-one", name=f"{'long' * 20}.png")
    page = new_page(viewport={"width": 360, "height": 740})
    page.goto(server.url)
    expect(cards(page)).to_have_count(1)
    if state == "view":
        cards(page).get_by_role("button").click()
    elif state == "key":
        page.evaluate("document.getElementById('key-dialog').showModal()")
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert page.evaluate(
        "[...document.querySelectorAll('dialog')].every((one) => one.scrollWidth <= one.clientWidth)"
    )


@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("words", [3, 40])
def test_no_button_covers_what_went_wrong(
    new_page: NewPage, server: Running, files: list[Path], window: tuple[int, int], words: int
) -> None:
    page = new_page(viewport={"width": window[0], "height": window[1]})
    body = json.dumps({"success": False, "code": "internal", "message": "Something broke. " * words})
    page.route(
        "**/api/images",
        lambda route: (
            route.fulfill(status=500, body=body) if route.request.method == "POST" else route.continue_()
        ),
    )
    page.goto(server.url)
    page.set_input_files("#files", files[:2])
    expect(page.locator(".job.failed")).to_have_count(2)
    for card in page.locator(".job.failed").all():
        text, *buttons = [
            one.bounding_box() for one in (card.get_by_role("alert"), *card.get_by_role("button").all())
        ]
        assert len(buttons) == 2
        assert all(text and box and text["y"] + text["height"] <= box["y"] for box in buttons)
    assert page.evaluate("document.documentElement.scrollWidth") <= window[0]


@pytest.mark.parametrize("width", [360, 600, 760])
def test_a_phone_shows_the_caches_chart(new_page: NewPage, tmp_path: Path, width: int) -> None:
    page = new_page(viewport={"width": width, "height": 740})
    with running(tmp_path, WEB_CONCURRENCY="1", STORE="app.stores.local:LocalStore") as server:
        page.goto(server.url)
        panel = page.get_by_role("region", name="Cache")
        expect(panel.locator("#cache-note")).to_contain_text("per million GET requests")
    chart, whole = panel.get_by_role("img").bounding_box(), panel.bounding_box()
    assert chart is not None
    assert whole is not None
    assert chart["width"] >= 40
    assert chart["x"] + chart["width"] <= whole["x"] + whole["width"]
    texts = panel.locator("h2, #cache-note, dt, dd")
    assert not [box for box in (one.bounding_box() for one in texts.all()) if box and _overlap(box, chart)]


def test_everything_works_by_keyboard(page: Page, server: Running) -> None:
    upload(server, noise(1), name="me.png")
    page.goto(server.url)
    expect(cards(page)).to_have_count(1)
    reached = []
    for _ in range(10):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.innerText"))
        if "me.png" in reached[-1]:
            break
    assert [name for name in ("prompt", "size", "go", "files", "folder") if name not in reached] == []
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog", name="me.png")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
