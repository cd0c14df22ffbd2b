"""Keys whose URL may mean another key are counted but not listed, so that no wrong image is deleted."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

import pytest
import requests
from flask.testing import FlaskClient

from app.core.object_keys import is_readable
from tests.conftest import json_of
from tests.pictures import noise
from tests.s3server import CREDENTIALS, S3Server
from tests.server.running import running

UNSAFE = [
    "./photo.png",
    "a/../c.png",
    "a/./c.png",
    "../c.png",
    "/c.png",
    "a//c.png",
    "//c.png",
    "a\\c.png",
    "c\t.png",
    "c\x01.png",
    "c\x7f.png",
    "c\x85.png",
]
SAFE = [
    "photo.png",
    "c.png",
    "a/c.png",
    "a/...png",
    "a/%2e%2e/c.png",
    "a/..;/c.png",
    "a/ c.png",
    "a/?x#y.png",
]


@pytest.fixture
def aws(s3: S3Server, bucket: str) -> Iterator[Any]:
    """An S3 client; the bucket has an image under each key."""
    client = s3.client()
    for number, key in enumerate([*UNSAFE, *SAFE]):
        client.put_object(Bucket=bucket, Key=key, Body=noise(number), ContentType="image/png")
    yield client
    client.close()


def _keys(aws: Any, bucket: str) -> set[str]:
    return {found["Key"] for found in aws.list_objects_v2(Bucket=bucket)["Contents"]}


def test_the_bucket_has_all_the_keys(aws: Any, bucket: str) -> None:
    """Otherwise the tests below could not fail."""
    assert _keys(aws, bucket) == {*UNSAFE, *SAFE}


def test_unsafe_keys_are_counted_and_not_listed(aws: Any, s3_client: FlaskClient) -> None:
    page = json_of(s3_client.get("/api/images"))
    assert [image["key"] for image in page["images"]] == sorted(SAFE)
    assert (page["unsafe_keys"], page["next_cursor"]) == (len(UNSAFE), None)
    assert page["message"].startswith(f"{len(SAFE)} images; {len(UNSAFE)} not listed")


@pytest.mark.parametrize("limit", [1, 2, 7])
def test_following_cursors_passes_unsafe_keys(
    aws: Any, s3_client: FlaskClient, bucket: str, limit: int
) -> None:
    aws.delete_object(Bucket=bucket, Key="c\x01.png")  # moto responds to it as StartAfter with 500
    listed: list[str] = []
    unsafe, query = 1, {"limit": str(limit)}
    for _ in range(len(UNSAFE) + len(SAFE) + 1):
        response = s3_client.get("/api/images", query_string=query)
        assert response.status_code == 200, query
        page = json_of(response)
        listed += [image["key"] for image in page["images"]]
        unsafe += page["unsafe_keys"]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert (listed, unsafe) == (sorted(SAFE), len(UNSAFE))


def test_details_of_unsafe_keys_are_not_read(
    aws: Any, s3: S3Server, s3_client: FlaskClient, bucket: str
) -> None:
    assert json_of(s3_client.get("/api/images?details=true"))["unsafe_keys"] == len(UNSAFE)
    requested = {path.removeprefix(f"/{bucket}/") for method, path, _ in s3.requests if method == "HEAD"}
    assert requested == set(SAFE)


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
def test_unsafe_keys_are_refused_at_their_own_url(
    aws: Any, bucket: str, s3_client: FlaskClient, method: str
) -> None:
    for key in UNSAFE:
        path = "/api/images/" + quote(key, safe="")
        assert s3_client.open(path, method=method).status_code == 400, key
    assert _keys(aws, bucket) == {*UNSAFE, *SAFE}


def test_every_listed_url_serves_and_deletes_its_own_key(
    aws: Any, bucket: str, s3: S3Server, tmp_path: Path
) -> None:
    """Clients remove dot segments, and may normalize a URL in other ways."""
    with _server(tmp_path, s3, bucket) as server:
        for image in requests.get(f"{server.url}/api/images", timeout=60).json()["images"]:
            url = urljoin(f"{server.url}/", image["image_url"])
            data = aws.get_object(Bucket=bucket, Key=image["key"])["Body"].read()
            assert requests.get(url, timeout=60).content == data, url
            deleted = requests.delete(url, timeout=60).json()
            assert (deleted["success"], deleted.get("key")) == (True, image["key"])
        assert _keys(aws, bucket) == set(UNSAFE)


def test_listed_urls_resolve_to_their_key(aws: Any, s3_client: FlaskClient) -> None:
    """Also after a client has normalized the URL."""
    for image in json_of(s3_client.get("/api/images"))["images"]:
        url = urlsplit(urljoin("http://localhost/", image["image_url"]))
        assert url.path == "/api/images/" + quote(image["key"], safe="/-._~")
        assert is_readable(image["key"])


def _server(directory: Path, s3: S3Server, bucket: str) -> Any:
    settings = {"S3_BUCKET": bucket, "AWS_ENDPOINT_URL_S3": s3.url, "AWS_REGION": "us-east-1"}
    return running(directory, **settings, **CREDENTIALS, WEB_CONCURRENCY="1")
