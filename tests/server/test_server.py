"""End-to-end tests over HTTP, with several workers."""

import os
import re
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from app import create_app
from app.components import components_of
from app.config.settings import Config
from tests.pictures import noise, picture
from tests.s3server import CREDENTIALS, S3Server
from tests.server.running import GUNICORN, ROOT, Running, running

HIT = "s3-image-server; hit"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Start a server with two workers and default settings otherwise."""
    with running(tmp_path_factory.mktemp("server"), WEB_CONCURRENCY="2") as started:
        yield started


def _s3_settings(s3: S3Server, bucket: str) -> dict[str, str]:
    return {**CREDENTIALS, "S3_BUCKET": bucket, "AWS_ENDPOINT_URL_S3": s3.url, "AWS_REGION": "us-east-1"}


def _upload(url: str, data: bytes, **fields: str) -> requests.Response:
    return requests.post(f"{url}/api/images", files={"image": ("photo.jpg", data)}, data=fields, timeout=60)


def test_a_react_component_gets_its_image(server: Running) -> None:
    """The React component in the guide posts a prompt and then shows `image_url`."""
    response = requests.post(
        f"{server.url}/api/generate-image", json={"prompt": "A beautiful sunset over mountains"}, timeout=30
    )
    data = response.json()
    assert (response.status_code, data["success"]) == (200, True)
    shown = requests.get(data["image_url"], timeout=60)
    assert shown.headers["Content-Type"] == "image/png"
    with Image.open(BytesIO(shown.content)) as image:
        assert (image.format, image.size) == ("PNG", (1024, 1024))


def test_the_component_works_through_a_dev_proxy(server: Running) -> None:
    """A dev proxy keeps the Host of the page, so the URL points to the proxy."""
    response = requests.post(
        f"{server.url}/api/generate-image",
        json={"prompt": "a red boat", "size": "64x64"},
        headers={"Host": "localhost:5173", "Origin": "http://localhost:5173"},
        timeout=60,
    )
    assert response.json()["image_url"].startswith("http://localhost:5173/api/images/generated/")


def test_the_same_upload_again_gets_the_same_url(server: Running) -> None:
    data = picture("JPEG", colour="teal")
    first, again = _upload(server.url, data), _upload(server.url, data)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["image_url"] == again.json()["image_url"] == first.headers["Location"]
    assert requests.get(first.json()["image_url"], timeout=60).content == data


def test_concurrent_uploads_of_the_same_bytes_create_one_object(server: Running) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: _upload(server.url, noise(5), folder="race"), range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
    listed = requests.get(f"{server.url}/api/images?prefix=race/", timeout=60).json()
    assert len(listed["images"]) == 1


def test_an_overwrite_is_visible_in_every_worker(server: Running) -> None:
    for number in range(6):
        url = _upload(server.url, noise(number), folder="users/1", name="me.png").json()["image_url"]
        assert {requests.get(url, timeout=60).content for _ in range(8)} == {noise(number)}
    assert requests.delete(url, timeout=60).status_code == 200
    assert {requests.get(url, timeout=60).status_code for _ in range(8)} == {404}


@pytest.mark.parametrize("workers", ["1", "4"])
def test_a_miss_takes_one_request_to_s3_and_a_hit_takes_none(
    s3: S3Server, bucket: str, tmp_path: Path, workers: str
) -> None:
    (tmp_path / "up").mkdir()
    with running(tmp_path / "up", **_s3_settings(s3, bucket), WEB_CONCURRENCY="1") as uploader:
        key = _upload(uploader.url, noise(1)).json()["key"]
    s3.reset()
    s3.delay = 0.3
    with running(tmp_path, **_s3_settings(s3, bucket), WEB_CONCURRENCY=workers, THREADS="16") as server:
        url = f"{server.url}/api/images/{key}"
        with ThreadPoolExecutor(40) as pool:
            answers = list(pool.map(lambda _: requests.get(url, timeout=60), range(40)))
        assert {answer.content for answer in answers} == {noise(1)}
        statuses = {requests.get(url, timeout=60).headers["Cache-Status"] for _ in range(20)}
    assert statuses == {HIT}
    assert s3.count("GET", key) == 1


def test_an_object_in_s3_is_public_and_can_be_fetched_by_its_url(
    s3: S3Server, bucket: str, tmp_path: Path
) -> None:
    with running(tmp_path, **_s3_settings(s3, bucket)) as server:
        answer = _upload(server.url, noise(2)).json()
        drawn = requests.post(
            f"{server.url}/api/generate-image", json={"prompt": "sea", "size": "64x64"}, timeout=20
        ).json()
    assert answer["image_url"] == f"{s3.url}/{bucket}/{answer['key']}"
    look = s3.make_bucket(bucket)
    for image in (answer, drawn):
        fetched = requests.get(image["image_url"], timeout=60)
        assert (fetched.status_code, fetched.headers["Content-Type"]) == (200, "image/png")
        assert len(fetched.content) == image["bytes"]
        grants = look.get_object_acl(Bucket=bucket, Key=image["key"])["Grants"]
        assert any(
            grant["Grantee"].get("URI", "").endswith("AllUsers") and grant["Permission"] == "READ"
            for grant in grants
        )
        assert look.head_object(Bucket=bucket, Key=image["key"])["ContentType"] == "image/png"
    look.close()


def test_images_and_the_cache_survive_a_restart(s3: S3Server, bucket: str, tmp_path: Path) -> None:
    with running(tmp_path, **_s3_settings(s3, bucket)) as server:
        key = _upload(server.url, noise(3)).json()["key"]
    s3.reset()
    with running(tmp_path, **_s3_settings(s3, bucket)) as server:
        response = requests.get(f"{server.url}/api/images/{key}", timeout=60)
    assert (response.content, response.headers["Cache-Status"]) == (noise(3), HIT)
    assert s3.count("GET", key) == 0


def test_images_of_the_previous_store_are_not_served(s3: S3Server, bucket: str, tmp_path: Path) -> None:
    """The cache directory is the same. Running a command for the other store in between changes nothing."""
    with running(tmp_path, WEB_CONCURRENCY="2") as server:
        keys = [_upload(server.url, noise(3), **fields).json()["key"] for fields in ({}, {"name": "a.png"})]
        other = create_app(Config.from_env({"CACHE_DIR": str(tmp_path / "cache"), "S3_BUCKET": bucket}))
        components_of(other).cache.close()
        images = [requests.get(f"{server.url}/api/images/{key}", timeout=60) for key in keys]
        assert [image.headers["Cache-Status"] for image in images] == [HIT, HIT]
    with running(tmp_path, **_s3_settings(s3, bucket)) as server:
        images = [requests.get(f"{server.url}/api/images/{key}", timeout=60) for key in keys]
        assert [image.status_code for image in images] == [404, 404]


@pytest.mark.parametrize("way", ["length", "chunked", "form", "closing"])
def test_a_body_of_100_mb_gets_413(server: Running, way: str) -> None:
    """The client must get the response even while it is still sending."""
    body = BytesIO(bytes(100_000_000))
    ways: dict[str, dict[str, Any]] = {
        "length": {"data": body, "headers": {"Content-Type": "image/png"}},
        "chunked": {"data": iter(lambda: body.read(65536), b""), "headers": {"Content-Type": "image/png"}},
        "form": {"files": {"image": ("a.png", body)}},
        "closing": {"data": body, "headers": {"Content-Type": "image/png", "Connection": "close"}},
    }
    response = requests.post(f"{server.url}/api/images", timeout=60, **ways[way])
    assert (response.status_code, response.json()["code"]) == (413, "too_large")


def _raw(server: Running, request: bytes) -> tuple[int, bytes]:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(request)
        with connection.makefile("rb") as answer:
            status = int(answer.readline().split()[1])
            headers = {}
            while line := answer.readline().strip():
                name, _, value = line.decode().partition(": ")
                headers[name.lower()] = value
            assert headers["content-type"] == "application/json"
            return status, answer.read(int(headers["content-length"]))


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET /api/images/../../../etc/passwd HTTP/1.1", 400),
        (b"GET /api/images/%2e%2e/%2e%2e/etc/passwd HTTP/1.1", 400),
        (b"GET /api/images/..%2f..%2f..%2fetc%2fpasswd HTTP/1.1", 400),
        (b"GET /api/images//etc/passwd HTTP/1.1", 400),
        (b"GET /api/images/a%00.png HTTP/1.1", 400),
        (b"GET /api/images/a\\b.png HTTP/1.1", 400),
        (b"GET /api/images/" + b"x" * 5000 + b" HTTP/1.1", 400),
        (b"GET /" + b"x" * 20_000 + b" HTTP/1.1", 414),
        (b"GET /api/images/a\0.png HTTP/1.1", 400),
        (b"nonsense", 400),
        (b"POST /api/images HTTP/1.1\r\nContent-Type: image/png\r\nTransfer-Encoding: xchunked", 501),
        (b"GET / HTTP/9.9", 400),
        (b"PUT /api/images/a.png HTTP/1.1", 405),
        (b"GET /no/such/page HTTP/1.1", 404),
    ],
)
def test_requests_that_no_client_library_sends_get_a_json_error(
    server: Running, request_line: bytes, status: int
) -> None:
    answered, body = _raw(server, request_line + b"\r\nHost: localhost\r\n\r\n")
    assert answered == status, body
    assert body.startswith(b'{"success"')


@pytest.mark.parametrize("chunks", [b"ZZ\r\nabc\r\n0\r\n\r\n", b"-5\r\nabc\r\n", b"3\r\nabcdef\r\n0\r\n\r\n"])
@pytest.mark.parametrize(
    "head",
    [
        b"POST /api/images HTTP/1.1\r\nContent-Type: image/png",
        b"POST /api/images HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=x",
        b"POST /api/generate-image HTTP/1.1\r\nContent-Type: application/json",
    ],
)
def test_invalid_chunks_are_rejected(server: Running, head: bytes, chunks: bytes) -> None:
    request = head + b"\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks
    assert _raw(server, request)[0] == 400


def test_no_traceback_is_logged(server: Running) -> None:
    for data in (b"", b"text", picture("JPEG", (99, 99))[:-30]):
        assert 400 <= _upload(server.url, data).status_code < 500
    assert requests.get(f"{server.url}/api/images/..%2f..%2fx", timeout=60).status_code == 400
    assert "Traceback" not in server.log


def test_a_port_in_use_is_reported_in_one_line(server: Running, tmp_path: Path) -> None:
    port = server.url.rpartition(":")[2]
    environ = {**os.environ, "PORT": port, "CACHE_DIR": f"{tmp_path}/c", "LOCAL_STORE_DIR": f"{tmp_path}/s"}
    result = subprocess.run(
        GUNICORN, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode != 0
    assert f"Port {port} on 127.0.0.1 is in use by another program." in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("settings", "messages"),
    [
        ({"PORT": "many", "CACHE_MAX_BYTES": "lots"}, ["PORT=many", "CACHE_MAX_BYTES=lots"]),
        ({"STORE": "no.such:Store"}, ["STORE=no.such:Store can't be loaded"]),
        ({"HOST": "192.0.2.1"}, ["HOST=192.0.2.1"]),
    ],
)
def test_invalid_settings_are_reported_without_a_traceback(
    tmp_path: Path, settings: dict[str, str], messages: list[str]
) -> None:
    environ = {**os.environ, "PORT": "0", "CACHE_DIR": f"{tmp_path}/c", "LOCAL_STORE_DIR": f"{tmp_path}/s"}
    result = subprocess.run(
        GUNICORN,
        cwd=ROOT,
        env={**environ, **settings},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode != 0
    for text in messages:
        assert text in result.stderr
    assert "Traceback" not in result.stderr


def test_the_log_has_the_url_to_open(server: Running) -> None:
    assert re.search(r"open http://127\.0\.0\.1:\d+/", server.log)
