"""GET and HEAD /api/images/<key>: one table of requests, for the delivery front and for Flask."""

from dataclasses import replace
from io import BytesIO
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.http import http_date
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


@pytest.fixture(params=["front", "flask"])
def served(request: pytest.FixtureRequest, app: Flask) -> tuple[FlaskClient, str]:
    """A client and a stored image's URL, with the delivery front and without it."""
    client = app.test_client()
    if request.param == "flask":
        assert isinstance(app.wsgi_app, RequestIds)
        assert isinstance(app.wsgi_app._application, FastPath)
        app.wsgi_app._application = app.wsgi_app._application._application
    answer = client.post("/api/images", data=DATA, content_type="image/png")
    return client, json_of(answer)["image_url"]


def test_a_whole_image(served: tuple[FlaskClient, str]) -> None:
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
        "Cache-Control": "public, max-age=31536000, immutable",
        "Accept-Ranges": "bytes",
        "Cache-Status": "s3-image-server; hit",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
        "Content-Disposition": "inline",
        "Cross-Origin-Resource-Policy": "cross-origin",
    }


def test_head_is_get_without_the_body(served: tuple[FlaskClient, str]) -> None:
    client, url = served
    with client.get(url) as got, client.head(url) as head:
        assert (head.status_code, head.data) == (200, b"")
        assert _but_for_the_id(head) == _but_for_the_id(got)


def _but_for_the_id(response: Response) -> dict[str, str]:
    headers = dict(response.headers)
    assert headers.pop("X-Request-ID")
    return headers


RANGES = [
    ("bytes=0-0", 0, 1),
    ("bytes=0-", 0, SIZE),
    ("bytes=5-9", 5, 10),
    ("bytes=-5", SIZE - 5, SIZE),
    ("bytes=-999999999", 0, SIZE),
    ("bytes=100-999999999", 100, SIZE),
    (f"bytes={SIZE - 1}-", SIZE - 1, SIZE),
]


@pytest.mark.parametrize(("asked", "start", "stop"), RANGES)
def test_a_part(served: tuple[FlaskClient, str], asked: str, start: int, stop: int) -> None:
    client, url = served
    with client.get(url, headers={"Range": asked}) as response:
        assert (response.status_code, response.data) == (206, DATA[start:stop])
        assert response.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{SIZE}"
        assert response.headers["Content-Length"] == str(stop - start)
        assert response.headers["Content-Type"] == "image/png"


@pytest.mark.parametrize(
    "asked",
    [
        "bytes=0-1,5-6",
        "bytes=x",
        "bytes=5-1",
        "lines=1-2",
        "bytes",
        "bytes=",
        "bytes=--1",
        "\xff",
        "bytes=1-2-3",
    ],
)
def test_a_range_that_is_not_understood_is_ignored(served: tuple[FlaskClient, str], asked: str) -> None:
    client, url = served
    with client.get(url, headers={"Range": asked}) as response:
        assert (response.status_code, response.data) == (200, DATA)


@pytest.mark.parametrize("asked", [f"bytes={SIZE}-", "bytes=999999999-", "bytes=-0"])
def test_a_range_outside(served: tuple[FlaskClient, str], asked: str) -> None:
    client, url = served
    response = client.get(url, headers={"Range": asked})
    assert (response.status_code, json_of(response)["code"]) == (416, "range_not_satisfiable")
    assert response.headers["Content-Range"] == f"bytes */{SIZE}"


def test_head_ignores_ranges(served: tuple[FlaskClient, str]) -> None:
    client, url = served
    with client.head(url, headers={"Range": "bytes=0-0"}) as response:
        assert (response.status_code, response.headers["Content-Length"]) == (200, str(SIZE))


def _validators(client: FlaskClient, url: str) -> tuple[str, str]:
    with client.head(url) as response:
        return response.headers["ETag"], response.headers["Last-Modified"]


OLD, FUTURE = http_date(0), http_date(4_000_000_000)
BEYOND = "Sun, 06 Nov 99999999999999999999 08:49:37 GMT"

CONDITIONS: list[tuple[dict[str, str], int]] = [
    ({"If-None-Match": "{etag}"}, 304),
    ({"If-None-Match": "W/{etag}"}, 304),
    ({"If-None-Match": '"other", {etag}'}, 304),
    ({"If-None-Match": "*"}, 304),
    ({"If-None-Match": '"other"'}, 200),
    ({"If-None-Match": "garbage"}, 200),
    ({"If-None-Match": '"other"', "If-Modified-Since": FUTURE}, 200),
    ({"If-Modified-Since": "{modified}"}, 304),
    ({"If-Modified-Since": FUTURE}, 304),
    ({"If-Modified-Since": OLD}, 200),
    ({"If-Modified-Since": "yesterday"}, 200),
    ({"If-Modified-Since": BEYOND}, 200),
    ({"If-Unmodified-Since": BEYOND}, 200),
    ({"If-Range": BEYOND, "Range": "bytes=0-0"}, 200),
    ({"If-Match": "{etag}"}, 200),
    ({"If-Match": '"other", {etag}'}, 200),
    ({"If-Match": "*"}, 200),
    ({"If-Match": '"other"'}, 412),
    ({"If-Match": "W/{etag}"}, 412),
    ({"If-Unmodified-Since": "{modified}"}, 200),
    ({"If-Unmodified-Since": OLD}, 412),
    ({"If-Unmodified-Since": "yesterday"}, 200),
    ({"If-Match": "{etag}", "If-Unmodified-Since": OLD}, 200),
    ({"If-None-Match": "{etag}", "Range": "bytes=0-0"}, 304),
    ({"If-Range": "{etag}", "Range": "bytes=0-0"}, 206),
    ({"If-Range": "{modified}", "Range": "bytes=0-0"}, 206),
    ({"If-Range": '"other"', "Range": "bytes=0-0"}, 200),
    ({"If-Range": "W/{etag}", "Range": "bytes=0-0"}, 200),
    ({"If-Range": OLD, "Range": "bytes=0-0"}, 200),
    ({"If-Range": FUTURE, "Range": "bytes=0-0"}, 200),
    ({"If-Range": "yesterday", "Range": "bytes=0-0"}, 200),
]


@pytest.mark.parametrize(("headers", "status"), CONDITIONS)
def test_conditions(served: tuple[FlaskClient, str], headers: dict[str, str], status: int) -> None:
    client, url = served
    etag, modified = _validators(client, url)
    sent = {name: value.format(etag=etag, modified=modified) for name, value in headers.items()}
    with client.get(url, headers=sent) as response:
        assert response.status_code == status
        if status == 304:
            assert response.data == b""
            assert response.headers["ETag"] == etag
            assert "Cache-Control" in response.headers
            assert "Last-Modified" not in response.headers
            assert "Content-Length" not in response.headers
        if status == 412:
            assert json_of(response)["code"] == "precondition_failed"


BAD_KEYS = [
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


@pytest.mark.parametrize(("path", "status"), BAD_KEYS)
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_bad_keys(client: FlaskClient, path: str, status: int, method: str) -> None:
    response = client.open(f"/api/images/{path}", method=method)
    answer = json_of(response)
    assert response.status_code == status, answer
    assert (answer["success"], set(answer)) == (False, {"success", "message", "code"})


def test_a_damaged_cache_file_is_never_served(client: FlaskClient, config: Config) -> None:
    answer = json_of(client.post("/api/images", data=DATA, content_type="image/png"))
    (config.cache_dir / "objects" / answer["key"]).write_bytes(DATA[:100])
    with client.get(answer["image_url"]) as response:
        assert (response.data, response.headers["Cache-Status"]) == (
            DATA,
            "s3-image-server; fwd=uri-miss; stored",
        )


def test_a_restart_keeps_everything_warm(config: Config) -> None:
    first = create_app(config)
    answer = json_of(first.test_client().post("/api/images", data=DATA, content_type="image/png"))
    components_of(first).cache.close()
    again = create_app(config)
    with again.test_client().get(answer["image_url"]) as response:
        assert (response.data, response.headers["Cache-Status"]) == (DATA, "s3-image-server; hit")
    components_of(again).cache.close()


def _url(client: FlaskClient, **options: Any) -> str:
    answer = json_of(client.post("/api/images", data={"image": (BytesIO(DATA), "a.png"), **options}))
    return f"/api/images/{answer['key']}"


def test_the_second_get_asks_s3_nothing(s3: S3Server, s3_config: Config) -> None:
    uploader = create_app(replace(s3_config, cache_dir=s3_config.cache_dir / "other"))
    url = _url(uploader.test_client())
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


def test_an_upload_is_a_hit_without_any_get(s3: S3Server, s3_client: FlaskClient) -> None:
    url = _url(s3_client)
    with s3_client.get(url) as response:
        assert (response.data, response.headers["Cache-Status"]) == (DATA, "s3-image-server; hit")
    assert s3.count("GET", url.removeprefix("/api/images/")) == 0


def test_an_outage_is_not_a_missing_image(s3_config: Config) -> None:
    flask = create_app(replace(s3_config, aws_endpoint_url_s3="http://127.0.0.1:9"))
    response = flask.test_client().get("/api/images/a.png")
    assert (response.status_code, json_of(response)["code"]) == (503, "store_unreachable")
    assert response.headers["Retry-After"] == "5"
    components_of(flask).cache.close()
