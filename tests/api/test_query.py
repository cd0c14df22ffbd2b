"""Unknown and repeated query parameters are refused before the call has an effect."""

from io import BytesIO
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.components import components_of
from tests.conftest import json_of
from tests.pictures import picture

PNG = picture()
UPLOAD = {"data": {"image": (BytesIO(PNG), "a.png")}, "content_type": "multipart/form-data"}

CALLS = [
    ("GET", "/api/images", "cursor, details, limit, prefix"),
    ("HEAD", "/api/images", None),
    ("POST", "/api/images", "folder, name, overwrite"),
    ("DELETE", "/api/images/me.png", "none"),
    ("POST", "/api/generate-image", "none"),
    ("GET", "/api/cache", "none"),
    ("GET", "/metrics", "none"),
    ("POST", "/v1/images/generations", "api-version"),
    ("GET", "/v1/models", "api-version"),
    ("GET", "/v1/models/builtin", "api-version"),
]


ANY_QUERIES = ["v=2", "v=1&v=2", "width=100&utm_source=mail", "%ff=%00", "&&="]


def _message(response: Any) -> str:
    answer = json_of(response)
    if "error" in answer:
        assert answer["error"]["code"] == "invalid_value"
        return str(answer["error"]["message"])
    assert (answer["success"], answer["code"]) == (False, "bad_request")
    return str(answer["message"])


def _upload(client: FlaskClient, name: str = "me") -> Any:
    return client.post(f"/api/images?name={name}", data=PNG, content_type="image/png")


@pytest.mark.parametrize(("method", "path", "accepted"), CALLS)
def test_an_unknown_parameter_is_refused(
    client: FlaskClient, method: str, path: str, accepted: str | None
) -> None:
    for query in ("sort=size", "w=100", "dry_run=true", "Limit=5", "=x", "x" * 4000):
        response = client.open(
            f"{path}?{query}", method=method, json={"prompt": "x"} if method == "POST" else None
        )
        assert response.status_code == 400, query
        if accepted is not None:
            name = query.partition("=")[0][:60]
            assert _message(response) == f"{name}: Unknown query parameter. This call accepts {accepted}."


def test_calls_with_unknown_parameters_have_no_effect(client: FlaskClient, app: Flask) -> None:
    assert _upload(client).status_code == 201
    assert client.delete("/api/images/me.png?dry_run=true").status_code == 400
    assert client.post("/api/images?nmae=x", data=PNG, content_type="image/png").status_code == 400
    assert client.post("/api/generate-image?n=2", json={"prompt": "x", "size": "64x64"}).status_code == 400
    assert [facts.key for facts in components_of(app).store.list().objects] == ["me.png"]


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("GET", "/api/images?limit=5&limit=10", "limit"),
        ("GET", "/api/images?prefix=a&limit=1&prefix=a", "prefix"),
        ("POST", "/api/images?name=a&name=b", "name"),
        ("GET", "/v1/models?api-version=1&api-version=2", "api-version"),
    ],
)
def test_a_repeated_parameter_is_refused(client: FlaskClient, method: str, path: str, name: str) -> None:
    response = client.open(
        path, method=method, data=PNG if method == "POST" else None, content_type="image/png"
    )
    assert (response.status_code, _message(response)) == (400, f"{name}: Sent more than once.")


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/web/app.js", "/healthz", "/readyz"])
def test_pages_and_health_checks_ignore_all_parameters(client: FlaskClient, path: str) -> None:
    for query in ANY_QUERIES:
        with client.get(f"{path}?{query}") as response:
            assert response.status_code in (200, 503 if path == "/readyz" else 200), query


@pytest.mark.parametrize("name", ["me", ""], ids=["mutable", "immutable"])
def test_images_ignore_all_parameters(client: FlaskClient, name: str) -> None:
    options = {"name": name} if name else {}
    sent = client.post("/api/images", data=PNG, content_type="image/png", query_string=options)
    for query in ANY_QUERIES:
        with client.get(f"{json_of(sent)['image_url']}?{query}") as response:
            assert (response.status_code, response.data) == (200, PNG), query


def test_v1_accepts_the_api_version_that_azure_clients_send(client: FlaskClient) -> None:
    body = {"prompt": "a red boat", "size": "64x64"}
    assert client.post("/v1/images/generations?api-version=2026-10-01", json=body).status_code == 200
    assert client.get("/v1/models?api-version=preview").status_code == 200


def test_preflights_wrong_urls_and_wrong_methods_are_not_checked(client: FlaskClient) -> None:
    assert client.options("/api/images?x=1").status_code == 200
    assert client.get("/api/nothing?x=1").status_code == 404
    assert client.put("/api/images?x=1").status_code == 405


@pytest.mark.parametrize("path", ["/api/images", "/api/cache", "/v1/models"])
def test_queries_that_are_not_utf_8_are_refused(client: FlaskClient, path: str) -> None:
    response = client.get(path, environ_overrides={"QUERY_STRING": "limit=\x80"})
    assert response.status_code == 400
    assert "percent-encode" in _message(response)
