"""Who may read /metrics: programs on this machine, and holders of a key with that scope."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app import create_app
from app.apikeys import parse_keys
from app.config import Config
from tests.conftest import json_of, parts_of

ELSEWHERE = {"REMOTE_ADDR": "192.0.2.7"}


@pytest.fixture
def keyed(config: Config) -> Iterator[FlaskClient]:
    """A server with a key for Prometheus, and one for uploads."""
    flask = create_app(replace(config, api_keys=parse_keys("prom:metrics=for-prom,web:upload=for-web")))
    yield flask.test_client()
    parts_of(flask).cache.close()


def test_the_format(client: FlaskClient) -> None:
    response = client.get("/metrics")
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert response.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({}, 401, "key_required"),
        ({"Authorization": "Bearer wrong"}, 403, "key_refused"),
        ({"Authorization": "Bearer for-web"}, 403, "scope_missing"),
        ({"Authorization": "Bearer for-prom"}, 200, None),
        ({"X-API-Key": "for-prom"}, 200, None),
    ],
)
def test_from_elsewhere(keyed: FlaskClient, headers: dict[str, str], status: int, code: str | None) -> None:
    response = keyed.get("/metrics", headers=headers, environ_overrides=ELSEWHERE)
    assert response.status_code == status
    assert code is None or json_of(response)["code"] == code


@pytest.mark.parametrize(
    ("headers", "status"),
    [({}, 200), ({"X-Forwarded-For": "192.0.2.7"}, 401), ({"Host": "evil.example"}, 401)],
)
def test_from_this_machine(keyed: FlaskClient, headers: dict[str, str], status: int) -> None:
    assert keyed.get("/metrics", headers=headers).status_code == status


def test_without_keys_it_is_this_machine_alone(client: FlaskClient, app: Flask) -> None:
    assert client.get("/metrics").status_code == 200
    response = client.get("/metrics", environ_overrides=ELSEWHERE)
    assert (response.status_code, "API_KEYS" in json_of(response)["message"]) == (401, True)
