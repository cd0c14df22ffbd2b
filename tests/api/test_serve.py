"""GET and HEAD /api/images/<key>: headers, cache behaviour and errors.

Conditional and range requests are in tests/delivery/test_fast_path.py.
"""

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.wrappers import Response

from app import create_app
from app.components import components_of
from app.config.settings import Config
from app.core.request_context import RequestIds
from app.delivery.fast_path import FastPath
from tests.conftest import json_of
from tests.pictures import noise
from tests.s3server import S3Server

DATA = noise(1)
SIZE = len(DATA)
IMMUTABLE, MUTABLE = "public, max-age=31536000, immutable", "public, no-cache"


def _upload(client: FlaskClient) -> str:
    sent = client.post("/api/images", data={"image": (BytesIO(DATA), "a.png")})
    return f"/api/images/{json_of(sent)['key']}"


@pytest.fixture(params=["fast path", "flask"])
def served(request: pytest.FixtureRequest, app: Flask) -> tuple[FlaskClient, str]:
    """A client and the URL of a stored image, with the fast path and without."""
    client = app.test_client()
    if request.param == "flask":
        assert isinstance(app.wsgi_app, RequestIds)
        assert isinstance(app.wsgi_app._application, FastPath)
        app.wsgi_app._application = app.wsgi_app._application._application
    return client, _upload(client)


def test_an_image_is_served_with_these_headers(served: tuple[FlaskClient, str]) -> None:
    client, url = served
    with client.get(url) as response:
        assert (response.status_code, response.data) == (200, DATA)
        headers = dict(response.headers)
    etag, modified = headers.pop("ETag"), headers.pop("Last-Modified")
    assert etag.startswith('"')
    assert modified.endswith("GMT")
    assert headers.pop("X-Request-ID")
    assert headers == {
        "Content-Type": "image/png",
        "Content-Length": str(SIZE),
        "Cache-Control": IMMUTABLE,
        "Accept-Ranges": "bytes",
        "Cache-Status": "s3-image-server; hit",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
        "Content-Disposition": "inline",
        "Cross-Origin-Resource-Policy": "cross-origin",
    }


def test_head_has_the_headers_of_get(served: tuple[FlaskClient, str]) -> None:
    client, url = served
    with client.get(url) as got, client.head(url) as head:
        assert (head.status_code, head.data) == (200, b"")
        assert _headers_but_request_id(head) == _headers_but_request_id(got)


def _headers_but_request_id(response: Response) -> dict[str, str]:
    headers = dict(response.headers)
    assert headers.pop("X-Request-ID")
    return headers


@pytest.mark.parametrize(
    "key", ["avatars/ab/" + "0" * 30 + ".png", "generated/2026/11/20261122_080509_" + "0" * 24 + ".png"]
)
def test_files_copied_into_the_local_store_are_mutable(config: Config, key: str) -> None:
    """Also if their keys look like those of immutable images."""
    flask = create_app(replace(config, cache_ttl=0))
    path = Path(config.local_store_dir, "objects", key)
    path.parent.mkdir(parents=True, exist_ok=True)
    for data in (noise(1), noise(2)):
        path.unlink(missing_ok=True)
        path.write_bytes(data)
        for _ in range(2):
            with flask.test_client().get(f"/api/images/{key}") as response:
                assert (response.data, response.headers["Cache-Control"]) == (data, MUTABLE)
    components_of(flask).cache.close()


@pytest.mark.parametrize("keep_prompts", [True, False])
def test_generated_images_are_immutable_and_have_one_etag_on_all_servers(
    config: Config, keep_prompts: bool
) -> None:
    first = create_app(replace(config, keep_prompts=keep_prompts))
    generated = first.test_client().post("/api/generate-image", json={"prompt": "x", "size": "64x64"})
    url = json_of(generated)["image_url"]
    second = create_app(replace(config, cache_dir=config.cache_dir / "other"))
    etags = set()
    for flask in (first, second, second):
        with flask.test_client().get(url) as response:
            assert response.headers["Cache-Control"] == IMMUTABLE
            etags.add(response.headers["ETag"])
    assert len(etags) == 1
    for flask in (first, second):
        components_of(flask).cache.close()


INVALID_AND_MISSING_KEYS = [
    ("..", 400),
    ("../../../etc/passwd", 400),
    ("%2e%2e/%2e%2e/etc/passwd", 400),
    ("..%2f..%2fetc%2fpasswd", 400),
    ("a/../b.png", 400),
    ("a//b.png", 400),
    ("/etc/passwd", 400),
    ("%2Fetc%2Fpasswd", 400),
    ("a%00.png", 400),
    ("a%5Cb.png", 400),
    ("..%5C..%5Cwindows.png", 400),
    ("a%0d%0aSet-Cookie:x=y.png", 400),
    ("x" * 5000, 400),
    ("%ff%fe.png", 404),
    ("a/", 400),
    (".", 400),
    ("no/such.png", 404),
    ("images/00/" + "0" * 30 + ".png", 404),
    ("Ferien%202026/Strand.png", 404),
]


@pytest.mark.parametrize(("path", "status"), INVALID_AND_MISSING_KEYS)
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_invalid_keys_are_400_and_missing_ones_404(
    client: FlaskClient, path: str, status: int, method: str
) -> None:
    response = client.open(f"/api/images/{path}", method=method)
    answer = json_of(response)
    assert response.status_code == status, answer
    assert (answer["success"], set(answer)) == (False, {"success", "message", "code"})


def test_a_damaged_cache_file_is_fetched_again(client: FlaskClient, config: Config) -> None:
    url = _upload(client)
    (config.cache_dir / "objects" / url.removeprefix("/api/images/")).write_bytes(DATA[:100])
    with client.get(url) as response:
        assert (response.data, response.headers["Cache-Status"]) == (
            DATA,
            "s3-image-server; fwd=uri-miss; stored",
        )


def test_a_restart_keeps_the_cache(config: Config) -> None:
    first = create_app(config)
    url = _upload(first.test_client())
    components_of(first).cache.close()
    restarted = create_app(config)
    with restarted.test_client().get(url) as response:
        assert (response.data, response.headers["Cache-Status"]) == (DATA, "s3-image-server; hit")
    components_of(restarted).cache.close()


def test_only_the_first_get_makes_a_request_to_s3(s3: S3Server, s3_config: Config) -> None:
    uploader = create_app(replace(s3_config, cache_dir=s3_config.cache_dir / "other"))
    url = _upload(uploader.test_client())
    components_of(uploader).cache.close()
    flask = create_app(s3_config)
    client = flask.test_client()
    statuses = []
    for _ in range(5):
        with client.get(url) as response:
            assert response.data == DATA
            statuses.append(response.headers["Cache-Status"])
    assert statuses == ["s3-image-server; fwd=uri-miss; stored", *["s3-image-server; hit"] * 4]
    assert s3.count("GET", url.removeprefix("/api/images/")) == 1
    components_of(flask).cache.close()


def test_an_uploaded_image_is_a_hit_without_a_request_to_s3(s3: S3Server, s3_client: FlaskClient) -> None:
    url = _upload(s3_client)
    with s3_client.get(url) as response:
        assert (response.data, response.headers["Cache-Status"]) == (DATA, "s3-image-server; hit")
    assert s3.count("GET", url.removeprefix("/api/images/")) == 0


def test_an_unreachable_store_is_a_503_and_not_a_404(s3_config: Config) -> None:
    flask = create_app(replace(s3_config, aws_endpoint_url_s3="http://127.0.0.1:9"))
    response = flask.test_client().get("/api/images/a.png")
    assert (response.status_code, json_of(response)["code"]) == (503, "store_unreachable")
    assert response.headers["Retry-After"] == "5"
    components_of(flask).cache.close()
