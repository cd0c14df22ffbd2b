"""API keys and their scopes or, if none are set, only programs on this machine; hosts in image URLs."""

from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest
from flask import Flask, g, request
from flask.testing import FlaskClient

from app import create_app
from app.components import components_of
from app.config.api_keys import parse_keys
from app.config.settings import Config
from tests.conftest import json_of
from tests.pictures import picture

CALLS = [
    ("POST", "/api/images"),
    ("GET", "/api/images"),
    ("DELETE", "/api/images/a.png"),
    ("POST", "/api/generate-image"),
]


@pytest.fixture
def keyed(config: Config) -> Any:
    """A client of a server with three keys."""
    flask = create_app(replace(config, api_keys=parse_keys("first-key,second-key,german=schlüssel")))
    yield flask.test_client()
    components_of(flask).cache.close()


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_calls_without_a_key_are_refused(keyed: FlaskClient, method: str, path: str) -> None:
    response = keyed.open(path, method=method)
    assert (response.status_code, json_of(response)["code"]) == (401, "key_required")
    assert response.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Authorization": "Bearer first-key"}, 200),
        ({"Authorization": "bearer second-key"}, 200),
        ({"X-API-Key": "second-key"}, 200),
        ({"Authorization": "Bearer wrong"}, 403),
        ({"Authorization": "Bearer first-keyx"}, 403),
        ({"Authorization": "Bearer ä"}, 403),
        ({"Authorization": "Bearer schlüssel".encode().decode("latin-1")}, 200),
        ({"X-API-Key": "schlüssel".encode().decode("latin-1")}, 200),
        ({"Authorization": "Basic Zmlyc3Qta2V5Og=="}, 401),
        ({"Authorization": "first-key"}, 401),
        ({"Authorization": "Bearer"}, 401),
        ({"X-API-Key": ""}, 401),
    ],
)
def test_either_header_sends_a_key(keyed: FlaskClient, headers: dict[str, str], status: int) -> None:
    assert keyed.get("/api/images", headers=headers).status_code == status


def test_reading_needs_no_key(keyed: FlaskClient) -> None:
    sent = keyed.post(
        "/api/images", data=picture(), content_type="image/png", headers={"X-API-Key": "first-key"}
    )
    with keyed.get(json_of(sent)["image_url"]) as response:
        assert response.status_code == 200


@pytest.mark.parametrize(
    ("environ", "headers", "status"),
    [
        ({}, {}, 200),
        ({"REMOTE_ADDR": "::1"}, {"Host": "[::1]:8000"}, 200),
        ({"REMOTE_ADDR": "127.0.0.7"}, {"Host": "127.0.0.1:8000"}, 200),
        ({}, {"Host": "app.localhost:5173"}, 200),
        ({"REMOTE_ADDR": "192.0.2.1"}, {}, 401),
        ({"REMOTE_ADDR": ""}, {}, 401),
        ({}, {"X-Forwarded-For": "192.0.2.1"}, 401),
        ({}, {"Forwarded": "for=192.0.2.1"}, 401),
        ({}, {"X-Real-IP": "192.0.2.1"}, 401),
        ({}, {"Via": "1.1 proxy"}, 401),
        ({}, {"X-Forwarded-Proto": "https"}, 401),
        ({}, {"X-Forwarded": "for=192.0.2.1"}, 401),
        ({}, {"CF-Connecting-IP": "192.0.2.1"}, 401),
        ({}, {"True-Client-IP": "192.0.2.1"}, 401),
        ({}, {"Host": "images.example.org"}, 401),
        ({}, {"Host": "127.0.0.1.evil.example"}, 401),
        ({}, {"Sec-Fetch-Site": "cross-site"}, 401),
        ({}, {"Origin": "http://evil.example"}, 401),
        ({}, {"Origin": "null"}, 401),
        ({}, {"Origin": "http://[bad"}, 401),
        ({}, {"Origin": "http://localhost:5173"}, 200),
        ({}, {"Sec-Fetch-Site": "same-origin"}, 200),
    ],
)
def test_without_keys_only_local_programs_may_call(
    client: FlaskClient, environ: dict[str, str], headers: dict[str, str], status: int
) -> None:
    response = client.get("/api/images", environ_overrides=environ, headers=headers)
    assert response.status_code == status
    if status == 401:
        assert "API_KEYS" in json_of(response)["message"]


def test_keys_are_in_no_repr_or_setting(config: Config) -> None:
    keyed = replace(config, api_keys=parse_keys("first-key"))
    flask: Flask = create_app(keyed)
    assert "first-key" not in f"{keyed!r} {components_of(flask)!r} {flask.config}"
    components_of(flask).cache.close()


CALLS_WITH_SCOPES = [
    ("POST", "/api/images", "upload"),
    ("GET", "/api/images", "list"),
    ("DELETE", "/api/images/a.png", "delete"),
    ("POST", "/api/generate-image", "generate"),
]


@pytest.mark.parametrize(("method", "path", "scope"), CALLS_WITH_SCOPES)
def test_a_key_allows_only_its_scopes(config: Config, method: str, path: str, scope: str) -> None:
    others = "+".join(other for *_, other in CALLS_WITH_SCOPES if other != scope)
    flask = create_app(replace(config, api_keys=parse_keys(f"a:{scope}=good,b:{others}=bad")))
    client = flask.test_client()
    allowed = client.open(path, method=method, headers={"X-API-Key": "good"})
    assert allowed.status_code not in (401, 403)
    refused = client.open(path, method=method, headers={"X-API-Key": "bad"})
    assert (refused.status_code, json_of(refused)) == (
        403,
        {
            "success": False,
            "message": f"This API key lacks the scope '{scope}', which this call needs.",
            "code": "scope_missing",
        },
    )
    components_of(flask).cache.close()


@pytest.mark.parametrize("text", ["web=first-key", f"web=sha256:{sha256(b'first-key').hexdigest()}"])
def test_the_name_of_the_key_is_recorded_for_logs(config: Config, text: str) -> None:
    flask = create_app(replace(config, api_keys=parse_keys(text)))
    with flask.test_client() as client:
        response = client.get("/api/images", headers={"Authorization": "Bearer first-key"})
        assert response.status_code == 200
        assert g.key_name == request.environ["s3image.key_name"] == "web"
    components_of(flask).cache.close()


FORWARDED = {
    "X-Forwarded-For": "192.0.2.9",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "images.example.org",
}


def test_trusted_proxies_do_not_make_a_client_local(config: Config) -> None:
    flask = create_app(replace(config, trusted_proxies=1))
    claims = {"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Host": "localhost"}
    assert flask.test_client().get("/api/images", headers=claims).status_code == 401
    components_of(flask).cache.close()


def _origin_of_image_urls(flask: Flask, headers: dict[str, str]) -> str:
    """Upload an image; return what precedes the path in its URL."""
    client = flask.test_client()
    sent = client.post(
        "/api/images",
        data=picture(),
        content_type="image/png",
        headers={"X-API-Key": "k", **headers},
    )
    url: str = json_of(sent)["image_url"]
    assert sent.headers["Location"] == url
    components_of(flask).cache.close()
    return url.partition("/api/images/")[0]


@pytest.mark.parametrize(
    ("settings", "headers", "origin"),
    [
        ({}, {}, "http://localhost"),
        ({}, {"Host": "127.0.0.1:8000"}, "http://127.0.0.1:8000"),
        ({}, {"Host": "[::1]:8000"}, "http://[::1]:8000"),
        ({}, {"Host": "localhost:5173"}, "http://localhost:5173"),
        ({}, {"Host": "evil.example"}, ""),
        ({}, {"Host": "localhost.evil.example"}, ""),
        ({}, FORWARDED, "http://localhost"),
        (
            {"trusted_hosts": ("Images.example.org",)},
            {"Host": "images.EXAMPLE.org:81"},
            "http://images.example.org:81",
        ),
        ({"trusted_hosts": ("images.example.org",)}, {"Host": "evil.example"}, ""),
        ({"trusted_proxies": 1}, FORWARDED, "https://images.example.org"),
        ({"trusted_proxies": 1}, {**FORWARDED, "X-Forwarded-Host": "evil.example, near"}, "https://near"),
        ({"trusted_proxies": 2}, FORWARDED, "http://localhost"),
        ({"trusted_proxies": 1, "trusted_hosts": ("a.example",)}, FORWARDED, ""),
        ({"public_base_url": "https://cdn.example"}, {"Host": "evil.example"}, "https://cdn.example/"),
    ],
)
def test_image_urls_name_only_trusted_hosts(
    config: Config, settings: dict[str, Any], headers: dict[str, str], origin: str
) -> None:
    flask = create_app(replace(config, api_keys=parse_keys("k"), **settings))
    url = _origin_of_image_urls(flask, headers)
    assert url.lower() == origin if "cdn" not in origin else url.startswith(origin)


@pytest.mark.parametrize(
    ("origin", "site", "status"),
    [
        ("https://app.example.org", "cross-site", 200),
        ("https://evil.example", "cross-site", 401),
        ("https://app.example.org.evil.example", "cross-site", 401),
    ],
)
def test_without_keys_pages_of_cors_origins_may_call(
    config: Config, origin: str, site: str, status: int
) -> None:
    flask = create_app(replace(config, cors_origins=("https://app.example.org",)))
    headers = {"Origin": origin, "Sec-Fetch-Site": site}
    assert flask.test_client().get("/api/images", headers=headers).status_code == status
    components_of(flask).cache.close()


def test_a_wildcard_in_cors_origins_does_not_make_pages_local(config: Config) -> None:
    flask = create_app(replace(config, cors_origins=("*",)))
    headers = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    assert flask.test_client().get("/api/images", headers=headers).status_code == 401
    assert flask.test_client().get("/api/images", headers={"Origin": "*"}).status_code == 401
    components_of(flask).cache.close()
