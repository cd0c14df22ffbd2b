"""Tests with gunicorn's gthread worker, which can run the application too."""

from collections.abc import Iterator

import pytest
import requests

from tests.pictures import noise
from tests.server.running import Running, running
from tests.waiting import wait_until

HIT = "s3-image-server; hit"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Start a server with two gthread workers and default settings otherwise."""
    directory = tmp_path_factory.mktemp("gthread")
    with running(directory, WEB_CONCURRENCY="2", GUNICORN_CMD_ARGS="--worker-class gthread") as started:
        assert "Using worker: gthread" in started.log
        yield started


def test_uploads_hits_and_misses_are_served(server: Running) -> None:
    data = noise(1)
    uploaded = requests.post(f"{server.url}/api/images", files={"image": data}, timeout=60)
    assert uploaded.status_code == 201, uploaded.text
    url, key = uploaded.json()["image_url"], uploaded.json()["key"]
    hit = requests.get(url, timeout=60)
    assert (hit.status_code, hit.content, hit.headers["Cache-Status"]) == (200, data, HIT)
    assert len(hit.headers["X-Request-ID"]) == 16
    (server.log_path.parent / "cache" / "objects" / key).unlink()
    miss = requests.get(url, timeout=60)
    assert (miss.status_code, miss.content) == (200, data)
    assert "fwd=uri-miss" in miss.headers["Cache-Status"]
    assert requests.get(url, timeout=60).headers["Cache-Status"] == HIT
    wait_until(lambda: server.log.count(f"/{key} 200 {len(data)} ") == 3)


def test_all_workers_share_their_metrics(server: Running) -> None:
    before = _count(server)
    for _ in range(10):
        assert requests.get(f"{server.url}/healthz", timeout=60).ok
    assert _count(server) == before + 10


def _count(server: Running) -> int:
    text = requests.get(f"{server.url}/metrics", timeout=60).text
    lines = [
        line for line in text.splitlines() if line.startswith("s3image_requests_total{") and "health" in line
    ]
    return sum(int(float(line.rpartition(" ")[2])) for line in lines)
