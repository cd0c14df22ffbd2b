"""A page of another origin, as a browser lets it call: with the headers of OpenAI's client, and on errors."""

from pathlib import Path

from tests.browser.conftest import NewPage
from tests.server.running import Running, running

CALL = """async ([url, init]) => {
    const answer = await fetch(url, init);
    return [answer.status, await answer.json(), answer.headers.get("x-request-id") !== null];
}"""


def test_calls_and_errors_can_be_read(new_page: NewPage, server: Running, tmp_path: Path) -> None:
    page = new_page(bypass_csp=True)  # it may only call its own server
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
        order = {"method": "POST", "headers": headers, "body": '{"prompt": "a boat", "size": "64x64"}'}
        status, drawn, has_id = page.evaluate(CALL, [f"{other.url}/v1/images/generations", order])
        assert (status, len(drawn["data"]), has_id) == (200, 1, True)
        status, refused, has_id = page.evaluate(CALL, [f"{other.url}/api/images?sort=size", {}])
        assert (status, refused["code"], has_id) == (400, "bad_request", True)
        # The event loop refuses this one by itself.
        long = {"headers": {"X-Long": "x" * 9000}}
        status, refused, has_id = page.evaluate(CALL, [f"{other.url}/api/images", long])
        assert (status, refused["code"], has_id) == (431, "request_header_fields_too_large", True)
