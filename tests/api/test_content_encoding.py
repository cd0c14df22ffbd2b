"""Objects in the bucket with a Content-Encoding (RFC 9110, 8.4), which other programs stored."""

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from flask.testing import FlaskClient

from app import create_app
from app.components import components_of
from app.config.settings import Config
from tests.conftest import json_of
from tests.pictures import noise
from tests.s3server import S3Server

DATA = gzip.compress(noise(1), mtime=0)
KEYS = ["a.png", "a/Ü.png", "a/" + "0" * 2 + "/" + "1" * 30 + ".png"]


@pytest.fixture(params=[None, 1], ids=["cached", "too large for the cache"])
def client(request: pytest.FixtureRequest, s3_config: Config) -> Iterator[FlaskClient]:
    """A client of a server that caches everything, or nothing."""
    flask = create_app(replace(s3_config, cache_max_object_bytes=request.param or 10**6))
    yield flask.test_client()
    components_of(flask).cache.close()


@pytest.fixture
def put(s3: S3Server, bucket: str) -> Iterator[Any]:
    """A function that puts an object into the bucket."""
    client = s3.client()
    yield lambda key, **more: client.put_object(Bucket=bucket, Key=key, ContentType="image/png", **more)
    client.close()


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("accepted", [None, "gzip", "identity", "gzip;q=0, br"])
def test_content_encoding_is_sent_on_a_miss_and_a_hit(
    client: FlaskClient, put: Any, key: str, accepted: str | None
) -> None:
    """Only one form is stored, whatever the client prefers, so that no Vary is needed."""
    put(key, Body=DATA, ContentEncoding="gzip")
    headers = {"Accept-Encoding": accepted} if accepted else {}
    for method in ("HEAD", "GET", "GET", "HEAD"):
        with client.open(f"/api/images/{key}", method=method, headers=headers) as response:
            assert response.status_code == 200
            assert response.data == (DATA if method == "GET" else b"")
            assert response.headers["Content-Encoding"] == "gzip"
            assert response.headers["Content-Type"] == "image/png"
            assert response.headers["Content-Length"] == str(len(DATA))
            assert "Vary" not in response.headers


@pytest.mark.parametrize("key", KEYS)
def test_ranges_select_from_the_encoded_bytes(s3_client: FlaskClient, put: Any, key: str) -> None:
    """RFC 9110, 14.1.2 and 15.3.7."""
    put(key, Body=DATA, ContentEncoding="gzip")
    etag = s3_client.head(f"/api/images/{key}").headers["ETag"]
    ranges = []
    for span in ("bytes=0-9", "bytes=10-"):
        with s3_client.get(f"/api/images/{key}", headers={"Range": span, "If-Range": etag}) as response:
            assert response.status_code == 206
            assert response.headers["Content-Encoding"] == "gzip"
            ranges.append(response.data)
    assert b"".join(ranges) == DATA


def test_a_304_has_no_content_headers(client: FlaskClient, put: Any) -> None:
    put("a.png", Body=DATA, ContentEncoding="gzip")
    etag = client.head("/api/images/a.png").headers["ETag"]
    response = client.get("/api/images/a.png", headers={"If-None-Match": etag})
    assert (response.status_code, response.data) == (304, b"")
    assert not {"Content-Encoding", "Content-Type", "Content-Length"} & set(response.headers.keys())


CODINGS = {
    "gzip": "gzip",
    "GZIP": "gzip",
    "x-gzip": "x-gzip",
    "br": "br",
    "zstd": "zstd",
    "deflate, gzip": "deflate, gzip",
    "deflate,gzip": "deflate, gzip",
    " gzip ,, br, ": "gzip, br",
    "aws-chunked": None,
    "aws-chunked,gzip": "gzip",
    "gzip, aws-chunked": "gzip",
    "AWS-Chunked": None,
    "identity": None,
    "identity, gzip": "gzip",
    ",": None,
    "base64": "base64",
    "utf-8": "utf-8",
}


@pytest.mark.parametrize("stored", CODINGS)
def test_codings_of_the_transfer_are_left_out(client: FlaskClient, put: Any, stored: str) -> None:
    put("a.png", Body=noise(2), ContentEncoding=stored)
    for _ in range(2):
        with client.get("/api/images/a.png") as response:
            assert response.headers.get("Content-Encoding") == CODINGS[stored]
            assert response.data == noise(2)


@pytest.mark.parametrize("stored", ["gzip;q=1", "gzip br", "g/zip", "x" * 300, '"gzip"', "gzïp"])
def test_an_invalid_content_encoding_is_a_store_error(
    client: FlaskClient, put: Any, s3: S3Server, stored: str
) -> None:
    """Without it clients can't read the bytes, and the value may not be valid in a header."""
    put("a.png", Body=DATA)

    def respond(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        tag, date = '"0"', "Sun, 22 Nov 2026 08:00:00 GMT"
        headers = [("ETag", tag), ("Last-Modified", date), ("Content-Type", "image/png")]
        length = ("Content-Length", str(len(DATA)))
        start_response("200 OK", [*headers, length, ("Content-Encoding", stored)])
        return [DATA]

    s3.fault = respond
    response = client.get("/api/images/a.png")
    assert (response.status_code, json_of(response)["code"]) == (502, "store_error")


def test_the_cache_keeps_the_content_encoding_across_restarts(
    s3_config: Config, put: Any, s3: S3Server
) -> None:
    for key in KEYS:
        put(key, Body=DATA, ContentEncoding="gzip")
    for _ in range(2):
        flask = create_app(s3_config)
        for key in KEYS:
            with flask.test_client().get(f"/api/images/{key}") as response:
                assert (response.headers["Content-Encoding"], response.data) == ("gzip", DATA)
        components_of(flask).cache.close()
    assert sum(method == "GET" for method, _, _ in s3.requests) == len(KEYS)


def test_revalidation_updates_the_content_encoding(s3_config: Config, put: Any) -> None:
    flask = create_app(replace(s3_config, cache_ttl=0))
    for data, coding in (
        (DATA, "gzip"),
        (zlib.compress(noise(1)), "deflate"),
        (noise(1), ""),
        (DATA, "gzip"),
    ):
        put("a.png", Body=data, **({"ContentEncoding": coding} if coding else {}))
        for _ in range(2):
            with flask.test_client().get("/api/images/a.png") as response:
                assert (response.headers.get("Content-Encoding", ""), response.data) == (coding, data)
    components_of(flask).cache.close()
