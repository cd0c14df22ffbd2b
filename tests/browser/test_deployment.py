"""The pages below a path prefix, and calls by pages of another origin."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import NewPage, cards
from tests.server.running import Running, running


@pytest.fixture(scope="module")
def mounted(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with the prefix /some/where."""
    with running(
        tmp_path_factory.mktemp("mounted"), WEB_CONCURRENCY="1", SCRIPT_NAME="/some/where"
    ) as started:
        yield started


def test_every_request_of_the_page_is_below_the_prefix(
    page: Page, mounted: Running, files: list[Path]
) -> None:
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    page.goto(f"{mounted.url}/some/where")
    page.set_input_files("#files", files[:1])
    expect(cards(page)).to_have_count(1)
    page.reload()
    cards(page).get_by_role("button").click()
    expect(page.locator("dialog[open] code")).to_contain_text(f"{mounted.url}/some/where/api/images/images/")
    expect(page.locator("dialog[open] img").first).to_have_js_property("naturalWidth", 40)
    below = (f"{mounted.url}/some/where", "blob:", "data:")
    elsewhere = [url for url in requested if not url.startswith(below)]
    assert elsewhere == []


def test_swagger_ui_calls_the_api_below_the_prefix(page: Page, mounted: Running) -> None:
    page.goto(f"{mounted.url}/some/where/docs")
    page.locator(".opblock", has_text="/healthz").click()
    page.get_by_role("button", name="Try it out").click()
    with page.expect_response("**/healthz") as called:
        page.get_by_role("button", name="Execute").click()
    assert (called.value.url, called.value.status) == (f"{mounted.url}/some/where/healthz", 200)


FETCH = """async ([url, init]) => {
    const answer = await fetch(url, init);
    return [answer.status, await answer.json(), answer.headers.get("x-request-id") !== null];
}"""


def test_a_page_of_another_origin_can_read_responses_and_errors(
    new_page: NewPage, server: Running, tmp_path: Path
) -> None:
    page = new_page(bypass_csp=True)  # whose policy permits calls to its own server only
    page.goto(server.url)
    with running(tmp_path, WEB_CONCURRENCY="1", CORS_ORIGINS=server.url) as other:
        headers = {
            "Content-Type": "application/json",
            "Authorization": "Bearer unused",
            "OpenAI-Organization": "org",
            "X-Stainless-OS": "Unknown",
            "X-Stainless-Retry-Count": "0",
            "X-Requested-With": "XMLHttpRequest",
        }
        request = {"method": "POST", "headers": headers, "body": '{"prompt": "a boat", "size": "64x64"}'}
        status, generated, has_id = page.evaluate(FETCH, [f"{other.url}/v1/images/generations", request])
        assert (status, len(generated["data"]), has_id) == (200, 1, True)
        status, refused, has_id = page.evaluate(FETCH, [f"{other.url}/api/images?sort=size", {}])
        assert (status, refused["code"], has_id) == (400, "bad_request", True)
        # The worker refuses this request without the application.
        long_header = {"headers": {"X-Long": "x" * 9000}}
        status, refused, has_id = page.evaluate(FETCH, [f"{other.url}/api/images", long_header])
        assert (status, refused["code"], has_id) == (431, "request_header_fields_too_large", True)
