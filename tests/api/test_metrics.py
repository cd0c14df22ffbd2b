"""Who may read /metrics: holders of a key with that scope or, if no keys are set, this machine alone."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from flask.testing import FlaskClient

from app import create_app
from app.components import components_of
from app.config.api_keys import parse_keys
from app.config.settings import Config
from tests.conftest import json_of

ELSEWHERE = {"REMOTE_ADDR": "192.0.2.7"}


@pytest.fixture
def keyed(config: Config) -> Iterator[FlaskClient]:
    """A server with a key for Prometheus, and one for uploads."""
    flask = create_app(replace(config, api_keys=parse_keys("prom:metrics=for-prom,web:upload=for-web")))
    yield flask.test_client()
    components_of(flask).cache.close()


def test_the_format(client: FlaskClient) -> None:
    response = client.get("/metrics")
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert response.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("place", [ELSEWHERE, {}], ids=["elsewhere", "this machine"])
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
def test_with_keys_set_it_needs_one_from_everywhere(
    keyed: FlaskClient, headers: dict[str, str], status: int, code: str | None, place: dict[str, str]
) -> None:
    """Through a proxy that adds no header and sends `Host: localhost`, everybody looks local."""
    response = keyed.get("/metrics", headers=headers, environ_overrides=place)
    assert response.status_code == status
    assert code is None or json_of(response)["code"] == code


def test_the_openapi_document_says_so(client: FlaskClient) -> None:
    calls = json_of(client.get("/openapi.json"))["paths"]
    assert calls["/metrics"]["get"]["security"] == calls["/api/cache"]["get"]["security"]


def test_without_keys_it_is_this_machine_alone(client: FlaskClient) -> None:
    assert client.get("/metrics").status_code == 200
    refused = (
        client.get("/metrics", environ_overrides=ELSEWHERE),
        client.get("/metrics", headers={"X-Forwarded-For": "192.0.2.7"}),
        client.get("/metrics", headers={"Host": "evil.example"}),
    )
    for response in refused:
        assert (response.status_code, "API_KEYS" in json_of(response)["message"]) == (401, True)
