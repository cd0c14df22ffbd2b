"""Who may write: holders of a key, or, where none is set, this machine alone."""

from dataclasses import replace
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app import create_app
from app.config import Config
from tests.conftest import json_of, parts_of
from tests.pictures import picture

GUARDED = [
    ("POST", "/api/images"),
    ("GET", "/api/images"),
    ("DELETE", "/api/images/a.png"),
    ("POST", "/api/generate-image"),
]


@pytest.fixture
def keyed(config: Config) -> Any:
    """A client of a server with two keys."""
    flask = create_app(replace(config, api_keys=("first-key", "second-key")))
    yield flask.test_client()
    parts_of(flask).cache.close()


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
    keyed = replace(config, api_keys=("first-key",))
    flask: Flask = create_app(keyed)
    assert "first-key" not in f"{keyed!r} {parts_of(flask)!r} {flask.config}"
    parts_of(flask).cache.close()
