"""The library of stored images, and the figures of the cache."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from playwright.sync_api import Browser, Page, Route, expect

from tests.browser.conftest import cards, change_listing, upload
from tests.pictures import noise
from tests.server.running import Running, running

ROWS = ["Served from cache", "From the store", "On disk", "Requests saved"]


def test_show_more_appends_the_next_page(page: Page, server: Running) -> None:
    for number in range(26):
        upload(server, noise(number, (4, 4)))
    page.goto(server.url)
    expect(cards(page)).to_have_count(24)
    page.get_by_role("button", name="Show more").click()
    expect(cards(page)).to_have_count(26)
    expect(cards(page).nth(24).get_by_role("button")).to_be_focused()
    expect(page.get_by_role("button", name="Show more")).to_be_hidden()
    assert set(cards(page).locator("img").evaluate_all("all => all.map((img) => img.loading)")) == {"lazy"}


def _fail(page: Page, when: str) -> None:
    """Make listings fail whose query contains `when`."""
    body = json.dumps(
        {"success": False, "message": "The image store is unreachable.", "code": "store_unreachable"}
    )
    page.route(f"**/api/images?*{when}*", lambda route: route.fulfill(status=503, body=body))


def test_a_page_that_failed_can_be_retried(page: Page, server: Running) -> None:
    for number in range(26):
        upload(server, noise(number, (4, 4)))
    page.goto(server.url)
    expect(cards(page)).to_have_count(24)
    _fail(page, "cursor")
    page.get_by_role("button", name="Show more").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#library-note")).to_have_text("The image store is unreachable.")
    expect(page.get_by_role("button", name="Try again")).to_be_focused()
    expect(page.get_by_role("button", name="Show more")).to_be_hidden()
    expect(cards(page)).to_have_count(24)
    page.unroute_all()
    page.keyboard.press("Enter")
    expect(cards(page)).to_have_count(26)
    expect(cards(page).nth(24).get_by_role("button")).to_be_focused()


def test_a_retry_keeps_the_focus_in_the_library(page: Page, server: Running) -> None:
    _fail(page, "limit")
    page.goto(server.url)
    page.get_by_role("button", name="Try again").focus()
    page.unroute_all()
    page.keyboard.press("Enter")
    expect(page.get_by_text("Nothing is stored yet.")).to_be_visible()
    expect(page.locator("#library-title")).to_be_focused()


def _empty_first_pages(page: Page, full: int) -> list[str]:
    """Make the pages before number `full` empty, with a cursor; return the list of requested cursors."""
    cursors: list[str] = []

    def answer(route: Route) -> None:
        cursor = parse_qs(urlsplit(route.request.url).query).get("cursor", ["0"])[0]
        cursors.append(cursor)
        whole = route.fetch(url=route.request.url.replace(f"cursor={cursor}", "")).json()
        if int(cursor) < full:
            whole |= {"images": [], "next_cursor": str(int(cursor) + 1)}
        route.fulfill(body=json.dumps(whole), content_type="application/json")

    page.route("**/api/images?*", answer)
    return cursors


@pytest.mark.parametrize(
    ("unsafe", "note"),
    [
        (0, ""),
        (2, "2 not shown: their keys can't be used in a URL."),
    ],
)
def test_images_with_unsafe_keys_are_counted(page: Page, server: Running, unsafe: int, note: str) -> None:
    upload(server, noise(1))

    def answer(route: Route) -> None:
        route.fulfill(
            body=json.dumps(route.fetch().json() | {"unsafe_keys": unsafe}), content_type="application/json"
        )

    page.route("**/api/images?*", answer)
    page.goto(server.url)
    expect(cards(page)).to_have_count(1)
    expect(page.locator("#library-note")).to_have_text(note)


def test_empty_pages_are_skipped(page: Page, server: Running) -> None:
    upload(server, noise(1))
    cursors = _empty_first_pages(page, full=3)
    page.goto(server.url)
    expect(cards(page)).to_have_count(1)
    assert cursors == ["0", "1", "2", "3"]


def test_after_five_empty_pages_the_user_can_go_on(page: Page, server: Running) -> None:
    upload(server, noise(1))
    cursors = _empty_first_pages(page, full=7)
    page.goto(server.url)
    more = page.get_by_role("button", name="Show more")
    expect(more).to_be_visible()
    expect(page.get_by_text("Nothing is stored yet.")).to_be_hidden()
    assert cursors == ["0", "1", "2", "3", "4"]
    more.click()
    expect(cards(page).get_by_role("button")).to_be_focused()
    expect(more).to_be_hidden()


def test_sizes_have_readable_units(page: Page, server: Running) -> None:
    upload(server, noise(1, (4, 4)), name="small.png")
    upload(server, noise(1, (700, 700)), name="large.png")
    page.goto(server.url)
    expect(cards(page).filter(has_text="small.png").locator(".meta")).to_have_text(
        re.compile(r"^PNG · \d+ bytes$")
    )
    expect(cards(page).filter(has_text="large.png").locator(".meta")).to_have_text("PNG · 1.4 MB")


def test_the_library_can_be_filtered_by_folder(page: Page, server: Running) -> None:
    upload(server, noise(1), folder="users/7", name="me.png")
    upload(server, noise(2))
    requests.post(f"{server.url}/api/generate-image", json={"prompt": "a", "size": "64x64"}, timeout=60)
    page.goto(server.url)
    expect(cards(page)).to_have_count(3)
    offered = page.locator("#folders option").evaluate_all("all => all.map((option) => option.value)")
    assert sorted(offered) == ["generated/", "images/", "users/7/"]
    page.get_by_label("Folder").fill("users/")
    expect(cards(page)).to_have_count(1)
    expect(cards(page).locator(".name")).to_have_text("me.png")
    page.get_by_label("Folder").fill("nobody/")
    expect(page.get_by_text("This folder has no images.")).to_be_visible()
    page.get_by_role("button", name="Show all folders").click()
    expect(cards(page)).to_have_count(3)


def test_an_empty_folder_is_named_beside_a_failed_upload(page: Page, server: Running, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    upload(server, noise(1))
    page.goto(server.url)
    page.set_input_files("#files", tmp_path / "notes.txt")
    expect(page.locator(".job.failed")).to_have_count(1)
    page.get_by_label("Folder").fill("nobody/")
    expect(page.get_by_text("This folder has no images.")).to_be_visible()
    page.get_by_role("button", name="Show all folders").click()
    expect(cards(page)).to_have_count(1)
    expect(page.get_by_text("This folder has no images.")).to_be_hidden()


@pytest.mark.parametrize("typed", ["users/7", "users/7/", "/users/7/", " //users/7// "])
def test_a_folder_is_not_a_prefix(page: Page, server: Running, typed: str) -> None:
    upload(server, noise(1), folder="users/7", name="me.png")
    upload(server, noise(2), folder="users/77", name="you.png")
    page.goto(server.url)
    expect(cards(page)).to_have_count(2)
    page.get_by_label("Folder").fill(typed)
    expect(cards(page)).to_have_count(1)
    expect(cards(page).locator(".name")).to_have_text("me.png")
    page.get_by_label("Folder").fill("/")
    expect(cards(page)).to_have_count(2)


@pytest.mark.parametrize(
    ("url", "path"),
    [("/api/images/me.png", "/api/images/me.png"), ("javascript:alert(1)", None), ("data:text/html,x", None)],
)
def test_image_urls_are_made_absolute_and_other_schemes_are_left_out(
    page: Page, server: Running, url: str, path: str | None
) -> None:
    upload(server, noise(1), name="me.png")

    change_listing(page, lambda image: {**image, "image_url": url})
    page.goto(server.url)
    expect(page.locator("#library-note")).to_be_empty()
    expect(cards(page)).to_have_count(1 if path else 0)
    if path:
        cards(page).get_by_role("button").click()
        expect(page.locator("#view code")).to_have_text(server.url + path)


NOT_LOADED = "Stored, but it does not load from its URL."


def test_an_image_that_does_not_load_shows_the_servers_error(page: Page, server: Running) -> None:
    upload(server, noise(1), name="gone.png")
    body = json.dumps(
        {"success": False, "message": "The image store is unreachable.", "code": "store_unreachable"}
    )
    page.route(re.compile(r"/gone\.png"), lambda route: route.fulfill(status=503, body=body))
    page.goto(server.url)
    expect(cards(page).get_by_role("alert")).to_have_text(f"{NOT_LOADED} The image store is unreachable.")
    cards(page).get_by_role("button").click()
    expect(page.locator("#view [data-view=broken]")).to_have_text(
        "The image does not load from its URL. The image store is unreachable."
    )


def test_an_image_that_loads_on_the_third_request_says_to_reload(page: Page, server: Running) -> None:
    upload(server, noise(1), name="late.png")
    page.route(re.compile(r"/late\.png"), lambda route: route.abort(), times=2)  # the thumbnail and the image
    page.goto(server.url)
    expect(cards(page).get_by_role("alert")).to_have_text(f"{NOT_LOADED} Please reload the page.")


def test_an_image_at_another_origin_that_does_not_load_says_why_it_may(page: Page, server: Running) -> None:
    """Even if its variants load, which come from this server."""
    upload(server, noise(1), name="gone.png")
    change_listing(page, lambda image: {**image, "image_url": "http://127.0.0.1:1/gone.png"})
    page.goto(server.url)
    cards(page).get_by_role("button").click()
    expect(page.locator("#view [data-view=broken]")).to_have_text(
        "The image does not load from its URL. The bucket may not allow public reads."
    )


@pytest.fixture
def fresh_server(browser: Browser, tmp_path: Path) -> Iterator[Running]:
    """A server that no page of another test can still send requests to."""
    with running(tmp_path, WEB_CONCURRENCY="2", STORE="app.stores.local:LocalStore") as started:
        yield started  # a store set by its class may be one that costs money


def test_the_cache_panel_shows_the_figures_of_all_workers(page: Page, fresh_server: Running) -> None:
    server = fresh_server
    answers = [requests.get(upload(server, noise(number))["image_url"], timeout=60) for number in range(3)]
    assert {answer.headers["Cache-Status"] for answer in answers} == {"s3-image-server; hit"}
    figures = requests.get(f"{server.url}/api/cache", timeout=60).json()
    assert figures["hits"] == 3, "the sum has the counts of all workers"
    page.route("**/api/images?*", lambda route: route.abort())  # thumbnails would be counted
    page.goto(server.url)
    panel = page.get_by_role("region", name="Cache")
    rows = dict(
        panel.locator("dl > div").evaluate_all(
            "all => all.map((row) => [...row.children].map((c) => c.innerText))"
        )
    )
    expect(panel.locator("[data-cache=hits]")).to_have_text(f"{figures['hits']:,}")
    expect(panel.locator("[data-cache=misses]")).to_have_text("0")
    expect(panel.locator("[data-cache=requests]")).to_have_text(f"{figures['requests_saved']:,}")
    expect(panel.locator("[data-cache=money]")).to_have_text(re.compile(r"^\$0\.0*[1-9]\d?$"))
    expect(panel.locator("[data-cache=bound]")).to_have_text(" of 1 GB")
    expect(panel.get_by_role("img")).to_have_accessible_name("100% of the images served came from the cache")
    inside = panel.get_by_role("img").locator("text").evaluate("text => text.getBBox().width")
    assert inside <= 40, "100% must fit into the ring, whose inner diameter is 44"
    assert list(rows) == [*ROWS, "Money saved"]


def test_with_a_local_store_no_savings_are_shown(page: Page, server: Running) -> None:
    page.goto(server.url)
    panel = page.get_by_role("region", name="Cache")
    expect(panel.locator("[data-cache=bound]")).to_have_text(" of 1 GB")
    assert panel.locator("dt").all_inner_texts() == ROWS
    assert panel.locator("#cache-note").inner_text() == ""
