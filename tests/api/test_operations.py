"""Health and readiness checks, the cache's figures and /metrics."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app import create_app
from app.components import components_of
from app.config.api_keys import parse_keys
from app.config.settings import Config
from app.core.errors import StoreUnreachable
from app.services import readiness
from tests.conftest import json_of
from tests.pictures import picture

REMOTE = {"REMOTE_ADDR": "192.0.2.7"}


@pytest.fixture
def keyed(config: Config) -> Iterator[FlaskClient]:
    """A client of a server with three keys: for Prometheus, for listings and for uploads."""
    keys = parse_keys("prom:metrics=for-prom,lists:list=for-lists,web:upload=for-web")
    flask = create_app(replace(config, api_keys=keys))
    yield flask.test_client()
    components_of(flask).cache.close()


def _upload(client: FlaskClient) -> str:
    sent = client.post("/api/images", data={"image": (BytesIO(picture()), "a.png")})
    return str(json_of(sent)["image_url"])


def _raise_unreachable(*args: object) -> None:
    raise StoreUnreachable


@pytest.fixture
def _long_probe_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a store may need longer to respond than a probe waits."""
    monkeypatch.setattr(readiness, "_PROBE_TIMEOUT_SECONDS", 30)


def test_healthz_is_200(client: FlaskClient) -> None:
    response = client.get("/healthz")
    assert (response.status_code, json_of(response)["success"]) == (200, True)


@pytest.mark.usefixtures("_long_probe_timeout")
def test_readyz_is_200_if_store_and_cache_work(client: FlaskClient) -> None:
    response = client.get("/readyz")
    assert (response.status_code, json_of(response)) == (
        200,
        {"success": True, "message": "ready", "store": "ok", "cache": "ok"},
    )


@pytest.mark.usefixtures("_long_probe_timeout")
def test_readyz_is_503_if_nothing_can_be_served(
    client: FlaskClient, app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(components_of(app).store, "head", _raise_unreachable)
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


@pytest.mark.usefixtures("_long_probe_timeout")
def test_readyz_is_200_without_the_store_if_the_cache_has_images(
    client: FlaskClient, app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    components_of(app).images.upload_image(picture())
    monkeypatch.setattr(components_of(app).store, "head", _raise_unreachable)
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


def test_the_figures_of_a_new_cache_are_zero(client: FlaskClient, config: Config) -> None:
    assert json_of(client.get("/api/cache")) == {
        "success": True,
        "message": "0 requests to the store saved",
        "entries": 0,
        "bytes": 0,
        "max_bytes": config.cache_max_bytes,
        "hits": 0,
        "misses": 0,
        "collapsed": 0,
        "revalidated": 0,
        "stale": 0,
        "bypass": 0,
        "bytes_served": 0,
        "requests_saved": 0,
        "saved_usd": 0.0,
        "get_usd_per_million": 0.4,
    }


def test_hits_and_misses_are_counted_with_their_bytes(client: FlaskClient, config: Config) -> None:
    url, size = _upload(client), len(picture())
    for _ in range(3):
        client.get(url).close()
    client.head(url).close()
    client.get(url, headers={"Range": "bytes=0-9"}).close()
    shutil.rmtree(config.cache_dir / "objects" / "images")
    client.get(url).close()
    figures = json_of(client.get("/api/cache"))
    assert (figures["hits"], figures["misses"], figures["bytes_served"]) == (5, 1, 3 * size + 10)
    assert (figures["requests_saved"], figures["saved_usd"]) == (5, 5 * 0.4 / 1_000_000)
    assert figures["message"] == "5 requests to the store saved"
    assert figures["entries"] == 1
    assert figures["bytes"] > size


def test_responses_304_and_412_are_hits_without_bytes(client: FlaskClient) -> None:
    url = _upload(client)
    etag = client.head(url).headers["ETag"]
    assert client.get(url, headers={"If-None-Match": etag}).status_code == 304
    assert client.get(url, headers={"If-Match": '"other"'}).status_code == 412
    figures = json_of(client.get("/api/cache"))
    assert (figures["hits"], figures["bytes_served"]) == (2, 0)


def test_an_unreadable_cache_directory_is_a_503(client: FlaskClient, config: Config) -> None:
    shutil.rmtree(config.cache_dir)
    response = client.get("/api/cache")
    assert (response.status_code, response.headers["Retry-After"]) == (503, "10")
    assert json_of(response) == {
        "success": False,
        "message": "The cache can't be read. For now, images are served from the store.",
        "code": "cache_unreadable",
    }


def test_metrics_have_prometheus_text_format(client: FlaskClient) -> None:
    response = client.get("/metrics")
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert response.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("environ", [REMOTE, {}], ids=["remote", "local"])
@pytest.mark.parametrize(("path", "key"), [("/metrics", "for-prom"), ("/api/cache", "for-lists")])
def test_with_keys_metrics_and_cache_figures_need_one_even_locally(
    keyed: FlaskClient, path: str, key: str, environ: dict[str, str]
) -> None:
    """Behind a proxy that adds no header and sends `Host: localhost`, every client looks local."""
    for headers, status, code in (
        ({}, 401, "key_required"),
        ({"Authorization": "Bearer wrong"}, 403, "key_refused"),
        ({"Authorization": "Bearer for-web"}, 403, "scope_missing"),
        ({"Authorization": f"Bearer {key}"}, 200, None),
        ({"X-API-Key": key}, 200, None),
    ):
        response = keyed.get(path, headers=headers, environ_overrides=environ)
        assert response.status_code == status
        assert code is None or json_of(response)["code"] == code


def test_without_keys_metrics_are_for_local_clients_only(client: FlaskClient) -> None:
    assert client.get("/metrics").status_code == 200
    refused = (
        client.get("/metrics", environ_overrides=REMOTE),
        client.get("/metrics", headers={"X-Forwarded-For": "192.0.2.7"}),
        client.get("/metrics", headers={"Host": "evil.example"}),
    )
    for response in refused:
        assert (response.status_code, "API_KEYS" in json_of(response)["message"]) == (401, True)
