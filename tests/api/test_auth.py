"""Who may write: holders of a key, or, where none is set, this machine alone."""

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

GUARDED = [
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


@pytest.mark.parametrize(("method", "path"), GUARDED)
def test_without_a_key_nothing_is_done(keyed: FlaskClient, method: str, path: str) -> None:
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
def test_keys(keyed: FlaskClient, headers: dict[str, str], status: int) -> None:
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
def test_without_keys_this_machine_alone(
    client: FlaskClient, environ: dict[str, str], headers: dict[str, str], status: int
) -> None:
    response = client.get("/api/images", environ_overrides=environ, headers=headers)
    assert response.status_code == status
    if status == 401:
        assert "API_KEYS" in json_of(response)["message"]


def test_keys_show_nowhere(config: Config) -> None:
    keyed = replace(config, api_keys=parse_keys("first-key"))
    flask: Flask = create_app(keyed)
    assert "first-key" not in f"{keyed!r} {components_of(flask)!r} {flask.config}"
    components_of(flask).cache.close()


SCOPED = [
    ("POST", "/api/images", "upload"),
    ("GET", "/api/images", "list"),
    ("DELETE", "/api/images/a.png", "delete"),
    ("POST", "/api/generate-image", "generate"),
]


@pytest.mark.parametrize(("method", "path", "scope"), SCOPED)
def test_a_key_is_good_for_its_scopes_alone(config: Config, method: str, path: str, scope: str) -> None:
    others = "+".join(other for *_, other in SCOPED if other != scope)
    flask = create_app(replace(config, api_keys=parse_keys(f"a:{scope}=able,b:{others}=unable")))
    client = flask.test_client()
    able = client.open(path, method=method, headers={"X-API-Key": "able"})
    assert able.status_code not in (401, 403)
    unable = client.open(path, method=method, headers={"X-API-Key": "unable"})
    assert (unable.status_code, json_of(unable)) == (
        403,
        {
            "success": False,
            "message": f"This API key lacks the scope '{scope}', which this call needs.",
            "code": "scope_missing",
        },
    )
    components_of(flask).cache.close()


@pytest.mark.parametrize("text", ["web=first-key", f"web=sha256:{sha256(b'first-key').hexdigest()}"])
def test_the_keys_name_is_there_for_logs(config: Config, text: str) -> None:
    flask = create_app(replace(config, api_keys=parse_keys(text)))
    with flask.test_client() as client:
        response = client.get("/api/images", headers={"Authorization": "Bearer first-key"})
        assert response.status_code == 200
        assert g.key_name == request.environ["s3image.key_name"] == "web"
    components_of(flask).cache.close()


def test_the_document_shows_both_ways_to_send_a_key(client: FlaskClient) -> None:
    document = json_of(client.get("/openapi.json"))
    assert document["components"]["securitySchemes"] == {
        "bearer": {"type": "http", "scheme": "bearer"},
        "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    for method, path in (("post", "/api/images"), ("get", "/api/images"), ("post", "/api/generate-image")):
        assert document["paths"][path][method]["security"] == [{"bearer": []}, {"apiKey": []}]


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


def _stored_url(flask: Flask, headers: dict[str, str]) -> str:
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
    ("settings", "headers", "before"),
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
def test_which_host_stands_in_the_url(
    config: Config, settings: dict[str, Any], headers: dict[str, str], before: str
) -> None:
    flask = create_app(replace(config, api_keys=parse_keys("k"), **settings))
    url = _stored_url(flask, headers)
    assert url.lower() == before if "cdn" not in before else url.startswith(before)


@pytest.mark.parametrize(
    ("origin", "site", "status"),
    [
        ("https://app.example.org", "cross-site", 200),
        ("https://evil.example", "cross-site", 401),
        ("https://app.example.org.evil.example", "cross-site", 401),
    ],
)
def test_without_keys_pages_that_the_operator_names_may_call(
    config: Config, origin: str, site: str, status: int
) -> None:
    flask = create_app(replace(config, cors_origins=("https://app.example.org",)))
    headers = {"Origin": origin, "Sec-Fetch-Site": site}
    assert flask.test_client().get("/api/images", headers=headers).status_code == status
    components_of(flask).cache.close()


def test_a_star_names_nobody(config: Config) -> None:
    flask = create_app(replace(config, cors_origins=("*",)))
    headers = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    assert flask.test_client().get("/api/images", headers=headers).status_code == 401
    assert flask.test_client().get("/api/images", headers={"Origin": "*"}).status_code == 401
    components_of(flask).cache.close()
