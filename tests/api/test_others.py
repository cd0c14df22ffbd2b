"""Listing, deleting, health, unknown addresses, and what an unexpected error tells."""

from io import BytesIO
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.components import components_of
from app.core.errors import StoreUnreachable
from app.services import readiness
from tests.conftest import json_of
from tests.pictures import noise, picture


def _upload(client: FlaskClient, data: bytes, **fields: str) -> dict[str, Any]:
    return json_of(client.post("/api/images", data={"image": (BytesIO(data), "a.png"), **fields}))


def test_list_pages_through_everything(client: FlaskClient) -> None:
    keys = sorted(_upload(client, noise(i, (4, 4)), folder="album")["key"] for i in range(5))
    listed: list[str] = []
    cursor: dict[str, str] = {}
    for _ in range(3):
        page = json_of(client.get("/api/images", query_string={"prefix": "album/", "limit": 2, **cursor}))
        assert page["success"] is True
        listed += [image["key"] for image in page["images"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert listed == keys


def test_a_line_of_a_listing(client: FlaskClient) -> None:
    answer = _upload(client, picture(), name="me.png")
    (line,) = json_of(client.get("/api/images"))["images"]
    assert line.pop("last_modified").endswith("+00:00")
    assert line == {name: answer[name] for name in ("key", "image_url", "content_type", "bytes")}


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=x",
        "limit=1001",
        "limit=1.5",
        "prefix=" + "x" * 2000,
        "prefix=%00",
        "cursor=%00",
        "cursor=" + "x" * 4000,
    ],
)
def test_bad_list_options(client: FlaskClient, query: str) -> None:
    response = client.get(f"/api/images?{query}")
    assert (response.status_code, json_of(response)["code"]) == (400, "bad_request")
    assert query.partition("=")[0] in json_of(response)["message"]


@pytest.mark.parametrize("prefix", ["../..", "/etc", "a/../..", "a\\b", "%"])
def test_odd_prefixes_list_nothing(client: FlaskClient, prefix: str) -> None:
    _upload(client, picture())
    assert json_of(client.get("/api/images", query_string={"prefix": prefix}))["images"] == []


def test_delete_is_at_once_and_for_good(client: FlaskClient, app: Flask) -> None:
    answer = _upload(client, picture())
    url = answer["image_url"]
    client.get(url).close()
    deleted = client.delete(url)
    assert (deleted.status_code, json_of(deleted)) == (
        200,
        {"success": True, "message": "Image deleted", "key": answer["key"]},
    )
    assert client.get(url).status_code == 404
    assert client.delete(url).status_code == 404
    assert components_of(app).store.list().objects == ()


def test_delete_of_what_only_the_cache_still_has(client: FlaskClient, app: Flask) -> None:
    answer = _upload(client, picture())
    components_of(app).store.delete(answer["key"])
    assert client.delete(answer["image_url"]).status_code == 404
    assert client.get(answer["image_url"]).status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "status", "code", "allow"),
    [
        ("GET", "/nothing", 404, "not_found", None),
        ("GET", "/api", 404, "not_found", None),
        ("POST", "/api/images/a.png", 405, "method_not_allowed", {"DELETE", "GET", "HEAD", "OPTIONS"}),
        ("PUT", "/api/images", 405, "method_not_allowed", {"GET", "HEAD", "OPTIONS", "POST"}),
        ("GET", "/api/generate-image", 405, "method_not_allowed", {"OPTIONS", "POST"}),
        ("BREW", "/api/images", 405, "method_not_allowed", {"GET", "HEAD", "OPTIONS", "POST"}),
    ],
)
def test_wrong_addresses_and_methods(
    client: FlaskClient, method: str, path: str, status: int, code: str, allow: set[str] | None
) -> None:
    response = client.open(path, method=method)
    answer = json_of(response)
    assert (response.status_code, answer["code"], answer["success"]) == (status, code, False)
    assert set(answer) == {"success", "message", "code"}
    if allow:
        assert set(response.headers["Allow"].split(", ")) == allow


@pytest.mark.crashes
def test_an_unexpected_error_tells_nothing(
    client: FlaskClient, app: Flask, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*args: object, **kwargs: object) -> None:
        raise RuntimeError("/secret/path")

    monkeypatch.setattr(components_of(app).store, "list", fails)
    response = client.get("/api/images")
    assert response.status_code == 500
    assert json_of(response) == {
        "success": False,
        "message": "Internal server error. Please try again.",
        "code": "internal_error",
    }
    assert "/secret/path" in caplog.text


def test_healthz(client: FlaskClient) -> None:
    response = client.get("/healthz")
    assert (response.status_code, json_of(response)["success"]) == (200, True)


@pytest.fixture
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that answers may take a busy machine longer than a probe waits."""
    monkeypatch.setattr(readiness, "_PROBE_TIMEOUT_SECONDS", 30)


@pytest.mark.usefixtures("_patience")
def test_readyz(client: FlaskClient) -> None:
    response = client.get("/readyz")
    assert (response.status_code, json_of(response)) == (
        200,
        {"success": True, "message": "ready", "store": "ok", "cache": "ok"},
    )


@pytest.mark.usefixtures("_patience")
def test_not_ready(client: FlaskClient, app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*args: object) -> None:
        raise StoreUnreachable

    monkeypatch.setattr(components_of(app).store, "head", away)
    monkeypatch.setattr(components_of(app).cache, "is_writable", lambda: False)
    response = client.get("/readyz")
    assert (response.status_code, response.headers["Retry-After"]) == (503, "5")
    assert json_of(response) == {
        "success": False,
        "message": "not ready; the store is unreachable; the cache directory is unwritable",
        "code": "store_unreachable",
        "store": "unreachable",
        "cache": "unwritable",
    }


@pytest.mark.usefixtures("_patience")
def test_ready_without_the_store(client: FlaskClient, app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*args: object) -> None:
        raise StoreUnreachable

    components_of(app).images.upload_image(picture())
    monkeypatch.setattr(components_of(app).store, "head", away)
    response = client.get("/readyz")
    assert (response.status_code, json_of(response)) == (
        200,
        {
            "success": True,
            "message": "ready; the store is unreachable, images in the cache are served",
            "store": "unreachable",
            "cache": "ok",
        },
    )


def test_the_openapi_document_names_every_call(client: FlaskClient) -> None:
    paths = json_of(client.get("/openapi.json"))["paths"]
    assert {
        (path, method) for path, calls in paths.items() for method in calls if method != "parameters"
    } == {
        ("/api/images", "get"),
        ("/api/images", "post"),
        ("/api/images/{key}", "get"),
        ("/api/images/{key}", "delete"),
        ("/api/generate-image", "post"),
        ("/v1/images/generations", "post"),
        ("/v1/models", "get"),
        ("/v1/models/{model}", "get"),
        ("/api/cache", "get"),
        ("/healthz", "get"),
        ("/readyz", "get"),
        ("/metrics", "get"),
    }


def test_page_and_docs(client: FlaskClient) -> None:
    for path in ("/", "/docs", "/favicon.ico"):
        with client.get(path) as response:
            assert response.status_code == 200
