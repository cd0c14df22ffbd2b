"""Tests of killed workers, full disks, a deleted cache, and a store that sends incomplete bodies."""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.pictures import noise
from tests.s3server import CREDENTIALS, Fault, S3Server
from tests.server.crashing import CACHE_BYTES, crash
from tests.server.disk import small_file_system
from tests.server.running import Running, running
from tests.waiting import wait_until

HIT = "s3-image-server; hit"


@pytest.fixture
def over_s3(s3: S3Server, bucket: str, tmp_path: Path) -> Iterator[Running]:
    """Start a server with S3 and two workers. Mutable images are stale immediately."""
    settings = {**CREDENTIALS, "S3_BUCKET": bucket, "AWS_ENDPOINT_URL_S3": s3.url, "AWS_REGION": "us-east-1"}
    with running(tmp_path, **settings, WEB_CONCURRENCY="2", CACHE_TTL="0", CACHE_NEGATIVE_TTL="0") as server:
        yield server


def _upload(url: str, data: bytes, **fields: str) -> str:
    answer = requests.post(f"{url}/api/images", files={"image": ("a.png", data)}, data=fields, timeout=60)
    return f"{url}/api/images/{answer.json()['key']}"


def _get(url: str) -> requests.Response:
    return requests.get(url, timeout=60)


@pytest.mark.timeout(180)
def test_killed_workers_lose_no_image_and_serve_no_wrong_bytes(tmp_path: Path) -> None:
    outcome = crash(tmp_path, int(os.environ.get("KILLS", "25")))
    assert outcome.statuses[200] > 50
    assert outcome.wrong == []
    assert outcome.lost == []
    assert CACHE_BYTES // 2 < outcome.largest_cache <= CACHE_BYTES
    assert outcome.report.is_clean, outcome.report


def _cut(times: int) -> Fault:
    """Return a fault with which S3 closes the connection in the middle of a body, a number of times."""
    left = [times]

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes] | None:
        if environ["REQUEST_METHOD"] != "GET" or left[0] == 0:
            return None
        left[0] -= 1
        headers = {
            "ETag": '"e"',
            "Last-Modified": "Sun, 22 Nov 2026 08:00:00 GMT",
            "Content-Type": "image/png",
        }
        start_response("200 OK", [*headers.items(), ("Content-Length", "50000")])
        return [b"\x89PNG only this"]

    return answer


def test_an_incomplete_body_is_requested_again(s3: S3Server, over_s3: Running) -> None:
    url = _upload(over_s3.url, noise(3), name="cut.png")
    shutil.rmtree(Path(over_s3.log_path.parent) / "cache" / "named")
    s3.fault = _cut(1)
    assert _get(url).content == noise(3)


def test_a_body_that_is_always_incomplete_gives_502_and_never_a_truncated_200(
    s3: S3Server, over_s3: Running
) -> None:
    s3.fault = _cut(10**9)
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(_get, [f"{over_s3.url}/api/images/some.png"] * 10))
    assert {answer.status_code for answer in answers} == {502}
    assert {answer.json()["code"] for answer in answers} == {"store_error"}


def test_deleting_the_cache_directory_of_a_running_server_fails_no_request(over_s3: Running) -> None:
    url = _upload(over_s3.url, noise(4))
    shutil.rmtree(over_s3.log_path.parent / "cache")
    assert {_get(url).content for _ in range(12)} == {noise(4)}
    wait_until(lambda: _get(url).headers["Cache-Status"] == HIT)
    assert _get(_upload(over_s3.url, noise(5))).content == noise(5)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 3 MiB."""
    with small_file_system(tmp_path / "small") as mounted:
        yield mounted


def test_a_full_disk_never_fails_a_request(small_disk: Path, tmp_path: Path) -> None:
    """The limit of the cache is 100 MiB, but the disk has 3.

    Uploads and reads use the store directly, and variants are made for each request.
    """
    with running(tmp_path, CACHE_DIR=str(small_disk / "cache"), CACHE_MAX_BYTES="100MiB") as server:
        urls = [_upload(server.url, noise(number, (200, 200))) for number in range(40)]
        for number, url in enumerate(urls):
            answer = _get(url)
            assert (answer.status_code, answer.content) == (200, noise(number, (200, 200)))
        for _ in range(2):
            variants = [_get(f"{url}/w{width}.webp") for url in urls[:3] for width in (128, 192)]
            assert {answer.status_code for answer in variants} == {200}
            assert all(answer.content[8:12] == b"WEBP" for answer in variants)
        assert shutil.disk_usage(small_disk).free < 200_000
        assert "Traceback" not in server.log
        assert 1 <= server.log.count("No space left") <= len(server.workers()), (
            "logged more than once in a worker"
        )
        wait_until(lambda: _get(f"{server.url}/readyz").json()["cache"] == "unwritable")
