"""/api/cache: its figures follow what was served, and it needs a key as a listing does."""

import shutil
from dataclasses import replace
from io import BytesIO

import pytest
from flask.testing import FlaskClient

from app import create_app
from app.components import components_of
from app.config.api_keys import parse_keys
from app.config.settings import Config
from tests.conftest import json_of
from tests.pictures import picture


def _upload(client: FlaskClient, name: str = "") -> str:
    data = {"image": (BytesIO(picture()), "a.png"), **({"name": name} if name else {})}
    return str(json_of(client.post("/api/images", data=data))["image_url"])


def test_a_new_cache(client: FlaskClient, config: Config) -> None:
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


def test_hits_and_misses(client: FlaskClient, config: Config) -> None:
    url, size = _upload(client), len(picture())
    for _ in range(3):
        client.get(url).close()
    client.head(url).close()
    client.get(url, headers={"Range": "bytes=0-9"}).close()
    shutil.rmtree(config.cache_dir / "objects" / "images")
    client.get(url).close()
    answer = json_of(client.get("/api/cache"))
    assert (answer["hits"], answer["misses"], answer["bytes_served"]) == (5, 1, 3 * size + 10)
    assert (answer["requests_saved"], answer["saved_usd"]) == (5, 5 * 0.4 / 1_000_000)
    assert answer["message"] == "5 requests to the store saved"
    assert answer["entries"] == 1
    assert answer["bytes"] > size


def test_what_is_not_modified_is_a_hit_without_bytes(client: FlaskClient) -> None:
    url = _upload(client)
    etag = client.head(url).headers["ETag"]
    assert client.get(url, headers={"If-None-Match": etag}).status_code == 304
    assert client.get(url, headers={"If-Match": '"other"'}).status_code == 412
    answer = json_of(client.get("/api/cache"))
    assert (answer["hits"], answer["bytes_served"]) == (2, 0)


@pytest.mark.parametrize(("sent", "status", "code"), [({}, 401, "key_required"), ("no", 403, "key_refused")])
def test_it_needs_a_key(config: Config, sent: str, status: int, code: str) -> None:
    flask = create_app(replace(config, api_keys=parse_keys("one")))
    headers = {"X-API-Key": sent} if sent else {}
    response = flask.test_client().get("/api/cache", headers=headers)
    assert (response.status_code, json_of(response)["code"]) == (status, code)
    assert flask.test_client().get("/api/cache", headers={"X-API-Key": "one"}).status_code == 200
    components_of(flask).cache.close()


def test_a_cache_that_is_gone(client: FlaskClient, config: Config) -> None:
    shutil.rmtree(config.cache_dir)
    response = client.get("/api/cache")
    assert (response.status_code, response.headers["Retry-After"]) == (503, "10")
    assert json_of(response) == {
        "success": False,
        "message": "The cache can't be read. Images are served from the store meanwhile.",
        "code": "cache_unreadable",
    }
