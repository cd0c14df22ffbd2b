"""Test that pages of allowed origins can read every response, including those of the event loop."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import requests

from tests.pictures import picture
from tests.server.running import Running, running
from tests.waiting import wait_until

APP, EVIL = "https://app.example.org", "https://evil.example"
CONNECTIONS = 8
UNSENT = (
    b"POST /api/images HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 900\r\n\r\n"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Start a server with one worker that has few connections."""
    settings = {
        "CORS_ORIGINS": APP,
        "WEB_CONCURRENCY": "1",
        "THREADS": "1",
        "GUNICORN_CMD_ARGS": f"--worker-connections {CONNECTIONS}",
    }
    with running(tmp_path_factory.mktemp("cross-origin"), **settings) as started:
        yield started


def _may_read(answer: requests.Response) -> bool:
    assert "Origin" in answer.headers["Vary"]
    allowed = answer.headers.get("Access-Control-Allow-Origin")
    assert allowed in (APP, None)
    exposed = "Retry-After" in answer.headers.get("Access-Control-Expose-Headers", "")
    assert exposed is (allowed is not None)
    return allowed is not None


@pytest.mark.parametrize(("origin", "may"), [(APP, True), (EVIL, False), (None, False)])
def test_pages_of_an_allowed_origin_can_read_every_response(
    server: Running, origin: str | None, may: bool
) -> None:
    headers = {"Origin": origin} if origin else {}
    url = requests.post(f"{server.url}/api/images", files={"image": picture()}, timeout=60).json()[
        "image_url"
    ]
    tried = [
        (url, {}, 200),
        (f"{server.url}/healthz", {}, 200),
        (f"{url}.png", {}, 404),
        (f"{server.url}/api/images?sort=x", {}, 400),
        (url, {"X-Long": "x" * 9000}, 431),
        (url, {f"X-{i}": "1" for i in range(200)}, 431),
        (f"{server.url}/{'x' * 9000}", {}, 414),
        (url, {"Expect": "the unexpected"}, 417),
    ]
    for address, more, status in tried:
        answer = requests.get(address, headers={**headers, **more}, timeout=60)
        assert (answer.status_code, _may_read(answer)) == (status, may), address[:80]


def test_pages_can_read_the_error_if_there_are_too_many_requests(server: Running) -> None:
    """Requests that wait for their bodies use three quarters of the connections."""
    port = int(server.url.rpartition(":")[2])

    def refused() -> list[requests.Response]:
        with ExitStack() as opened:
            for _ in range(CONNECTIONS * 3 // 4):
                opened.enter_context(socket.create_connection(("127.0.0.1", port))).sendall(UNSENT)
            answer = requests.get(f"{server.url}/readyz", headers={"Origin": APP}, timeout=60)
        return [answer] if answer.status_code == 503 and answer.json()["code"] == "busy" else []

    (answer,) = wait_until(refused, seconds=60)
    wait_until(lambda: requests.get(f"{server.url}/readyz", timeout=60).ok)  # for other tests
    assert _may_read(answer)
    assert answer.headers["Retry-After"] == "2"
    assert answer.headers["Connection"] == "close"


def test_a_preflight_request_is_granted(server: Running) -> None:
    headers = {
        "Origin": APP,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-stainless-lang,x-requested-with",
    }
    answer = requests.options(f"{server.url}/v1/images/generations", headers=headers, timeout=60)
    assert answer.status_code == 204
    assert {"Authorization", "x-stainless-lang", "x-requested-with"} <= set(
        answer.headers["Access-Control-Allow-Headers"].split(", ")
    )
