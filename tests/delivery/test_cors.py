"""CORS: what browsers let pages of other origins do."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from flask.testing import FlaskClient

from app import create_app
from app.components import components_of
from app.config.settings import Config
from tests.conftest import json_of
from tests.pictures import picture

APP, EVIL = "https://app.example.org", "https://evil.example"
EXPOSED = {
    "Accept-Ranges",
    "Allow",
    "Cache-Status",
    "Content-Range",
    "ETag",
    "Location",
    "Retry-After",
    "WWW-Authenticate",
    "X-Request-ID",
    "X-Should-Retry",
}


@pytest.fixture
def make_client(config: Config) -> Iterator[Callable[..., FlaskClient]]:
    """A function that returns a client of a new server with these `CORS_ORIGINS`."""
    applications = []

    def make(*origins: str) -> FlaskClient:
        applications.append(create_app(replace(config, cors_origins=origins)))
        return applications[-1].test_client()

    yield make
    for flask in applications:
        components_of(flask).cache.close()


def _upload(client: FlaskClient) -> str:
    sent = client.post("/api/images", data=picture(), content_type="image/png")
    return str(json_of(sent)["image_url"])


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_a_preflight_allows_the_methods_and_headers_of_the_api(
    make_client: Callable[..., FlaskClient], method: str
) -> None:
    requested = "authorization,content-type,idempotency-key,x-api-key"
    headers = {
        "Origin": APP,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": requested,
    }
    response = make_client(APP, "http://localhost:5173").options("/api/generate-image", headers=headers)
    allowed = response.headers["Access-Control-Allow-Headers"].lower().split(", ")
    assert (response.status_code, response.data) == (204, b"")
    assert response.headers["Access-Control-Allow-Origin"] == APP
    assert method in response.headers["Access-Control-Allow-Methods"].split(", ")
    assert set(requested.split(",")) <= set(allowed)
    assert {"Origin", "Access-Control-Request-Headers"} <= set(
        ", ".join(response.headers.getlist("Vary")).split(", ")
    )
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
def test_hits_other_responses_and_errors_have_the_same_cors_headers(
    make_client: Callable[..., FlaskClient],
    origins: tuple[str, ...],
    origin: str | None,
    allowed: str | None,
    vary: str | None,
    path: str,
) -> None:
    client = make_client(*origins)
    with client.get(
        _upload(client) if path == "hit" else path, headers={"Origin": origin} if origin else {}
    ) as response:
        assert (response.headers.get("Cache-Status") == "s3-image-server; hit") is (path == "hit")
        assert response.headers.get("Access-Control-Allow-Origin") == allowed
        assert response.headers.get("Vary") == vary
        exposed = response.headers.get("Access-Control-Expose-Headers")
    assert (set(exposed.split(", ")) if exposed else None) == (EXPOSED if allowed else None)


@pytest.mark.parametrize(
    ("requested", "granted"),
    [
        (
            "authorization,content-type,openai-organization,x-stainless-arch,x-stainless-os,x-stainless-timeout",
            {"openai-organization", "x-stainless-arch", "x-stainless-os", "x-stainless-timeout"},
        ),
        ("x-requested-with", {"x-requested-with"}),
        ("X-Requested-With, traceparent ,baggage", {"x-requested-with", "traceparent", "baggage"}),
        ("x_y,x.z,!#$%&'*+^`|~9", {"x_y", "x.z", "!#$%&'*+^`|~9"}),
        ("", set()),
        (",,", set()),
        ('a b,c;d,e:f,\xe4,(g),h"i', set()),
        ("x-a\r\nset-cookie: b=c", set()),
        ("x" * 5000, set()),
        (",".join(f"x-{i}" for i in range(3000)), {f"x-{i}" for i in range(100)}),
    ],
)
@pytest.mark.parametrize("origins", [(APP,), ("*",)])
def test_a_preflight_allows_the_requested_headers_but_no_credentials(
    make_client: Callable[..., FlaskClient], origins: tuple[str, ...], requested: str, granted: set[str]
) -> None:
    environ = {
        "HTTP_ORIGIN": APP,
        "HTTP_ACCESS_CONTROL_REQUEST_METHOD": "POST",
        "HTTP_ACCESS_CONTROL_REQUEST_HEADERS": requested,
    }
    client = make_client(*origins)
    response = client.options("/v1/images/generations", environ_overrides=environ)
    allowed = response.headers["Access-Control-Allow-Headers"].split(", ")
    default = client.options("/", environ_overrides={**environ, "HTTP_ACCESS_CONTROL_REQUEST_HEADERS": ""})
    assert set(allowed) - set(default.headers["Access-Control-Allow-Headers"].split(", ")) == granted
    assert len(allowed) == len({name.lower() for name in allowed})
    assert response.headers["Access-Control-Max-Age"] == "7200"
    assert "Access-Control-Allow-Credentials" not in response.headers


@pytest.mark.parametrize("network", ["Private", "Local"])
@pytest.mark.parametrize(
    ("origins", "origin", "value", "granted"),
    [
        ((APP,), APP, "true", True),
        (("*",), APP, "true", True),
        ((APP,), APP, "1", False),
        ((APP,), EVIL, "true", False),
    ],
)
def test_a_preflight_may_allow_calls_from_public_to_private_networks(
    make_client: Callable[..., FlaskClient],
    origins: tuple[str, ...],
    origin: str,
    value: str,
    granted: bool,
    network: str,
) -> None:
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": "GET",
        f"Access-Control-Request-{network}-Network": value,
    }
    response = make_client(*origins).options("/api/images", headers=headers)
    allowed = response.headers.get(f"Access-Control-Allow-{network}-Network")
    assert allowed == ("true" if granted else None)


def test_a_preflight_of_another_origin_allows_nothing(make_client: Callable[..., FlaskClient]) -> None:
    headers = {"Origin": EVIL, "Access-Control-Request-Method": "POST"}
    response = make_client(APP).options("/api/images", headers=headers)
    assert not [name for name in response.headers.keys() if name.startswith("Access-Control")]  # noqa: SIM118


def test_an_options_request_that_is_not_a_preflight_reaches_the_application(
    make_client: Callable[..., FlaskClient],
) -> None:
    response = make_client(APP).options("/api/images", headers={"Origin": APP})
    assert "POST" in response.headers["Allow"]


@pytest.mark.parametrize(
    ("text", "origins"),
    [
        ("*", ("*",)),
        ("https://A.example", ("https://a.example",)),
        ("http://localhost:5173, http://[::1]:80", ("http://localhost:5173", "http://[::1]")),
        ("https://a.example:443,https://[::443]", ("https://a.example", "https://[::443]")),
        ("http://a.example:443,app://x:80", ("http://a.example:443", "app://x:80")),
    ],
)
def test_cors_origins_are_normalized(text: str, origins: tuple[str, ...]) -> None:
    """To the form in which browsers send them: lower case, without the default port."""
    assert Config.from_env({"CORS_ORIGINS": text}).cors_origins == origins
