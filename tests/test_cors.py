"""Pages of other origins: what browsers are told they may do."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from flask.testing import FlaskClient

from app import create_app
from app.config import Config
from tests.conftest import json_of, parts_of
from tests.pictures import picture

APP, EVIL = "https://app.example.org", "https://evil.example"
EXPOSED = {
    "Accept-Ranges",
    "Cache-Status",
    "Content-Range",
    "ETag",
    "Location",
    "Retry-After",
    "X-Request-ID",
}


@pytest.fixture
def over(config: Config) -> Iterator[Callable[..., FlaskClient]]:
    """Makes a client of a server with these `CORS_ORIGINS`."""
    made = []

    def make(*origins: str) -> FlaskClient:
        made.append(create_app(replace(config, cors_origins=origins)))
        return made[-1].test_client()

    yield make
    for flask in made:
        parts_of(flask).cache.close()


def _stored(client: FlaskClient) -> str:
    sent = client.post("/api/images", data=picture(), content_type="image/png")
    return str(json_of(sent)["image_url"])


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_a_preflight_allows_what_fetch_sends(over: Callable[..., FlaskClient], method: str) -> None:
    asked = "authorization,content-type,idempotency-key,x-api-key"
    headers = {
        "Origin": APP,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": asked,
    }
    response = over(APP, "http://localhost:5173").options("/api/generate-image", headers=headers)
    allowed = response.headers["Access-Control-Allow-Headers"].lower().split(", ")
    assert (response.status_code, response.data) == (204, b"")
    assert response.headers["Access-Control-Allow-Origin"] == APP
    assert method in response.headers["Access-Control-Allow-Methods"].split(", ")
    assert set(asked.split(",")) <= set(allowed)
    assert response.headers["Vary"] == "Origin"
    assert "Access-Control-Allow-Credentials" not in response.headers


@pytest.mark.parametrize(
    ("origins", "origin", "allowed", "vary"),
    [
        (("*",), APP, "*", None),
        (("*",), None, "*", None),
        ((APP,), APP, APP, "Origin"),
        ((APP,), EVIL, None, "Origin"),
        ((APP,), None, None, "Origin"),
        ((APP,), "null", None, "Origin"),
        ((APP,), f"{APP}.evil.example", None, "Origin"),
        ((APP,), "http://app.example.org", None, "Origin"),
        ((), APP, None, None),
    ],
)
@pytest.mark.parametrize("path", ["hit", "/api/images", "/no/such/page", "/api/images/a/b.png"])
def test_hits_answers_and_errors_alike(
    over: Callable[..., FlaskClient],
    origins: tuple[str, ...],
    origin: str | None,
    allowed: str | None,
    vary: str | None,
    path: str,
) -> None:
    client = over(*origins)
    with client.get(
        _stored(client) if path == "hit" else path, headers={"Origin": origin} if origin else {}
    ) as response:
        assert (response.headers.get("Cache-Status") == "s3-image-server; hit") is (path == "hit")
        assert response.headers.get("Access-Control-Allow-Origin") == allowed
        assert response.headers.get("Vary") == vary
        exposed = response.headers.get("Access-Control-Expose-Headers")
    assert (set(exposed.split(", ")) if exposed else None) == (EXPOSED if allowed else None)


def test_a_preflight_of_another_origin_gets_nothing(over: Callable[..., FlaskClient]) -> None:
    headers = {"Origin": EVIL, "Access-Control-Request-Method": "POST"}
    response = over(APP).options("/api/images", headers=headers)
    assert not [name for name in response.headers.keys() if name.startswith("Access-Control")]  # noqa: SIM118


def test_an_options_request_that_is_no_preflight_is_the_applications(
    over: Callable[..., FlaskClient],
) -> None:
    response = over(APP).options("/api/images", headers={"Origin": APP})
    assert "POST" in response.headers["Allow"]


@pytest.mark.parametrize(
    ("text", "origins"),
    [
        ("*", ("*",)),
        ("https://A.example", ("https://a.example",)),
        ("http://localhost:5173, http://[::1]:80", ("http://localhost:5173", "http://[::1]:80")),
    ],
)
def test_the_setting(text: str, origins: tuple[str, ...]) -> None:
    assert Config.from_env({"CORS_ORIGINS": text}).cors_origins == origins
