"""Tests of generation in a running server, with stalled generators, retries and killed workers."""

import os
import signal
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import requests

from tests.pictures import noise
from tests.s3server import CREDENTIALS, S3Server, refusal
from tests.server.running import Running, answers, running
from tests.services.generators import NAME
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(180)  # several servers start, and each worker imports everything


def _settings(directory: Path, **settings: str) -> dict[str, str]:
    return {"GENERATOR": NAME, "DRAWN": str(directory / "drawn"), **settings}


@pytest.fixture
def go_on(tmp_path: Path) -> Path:
    """Return the file that the prompt `until FILE` waits for."""
    return tmp_path / "go-on"


def _generate(server: Running, prompt: str, key: str | None = None) -> requests.Response:
    return requests.post(
        f"{server.url}/api/generate-image",
        json={"prompt": prompt, "size": "64x64"},
        headers={"Idempotency-Key": key} if key else {},
        timeout=150,
    )


def _drawn(directory: Path) -> list[str]:
    path = directory / "drawn"
    return path.read_text().splitlines() if path.exists() else []


def _seconds_of(call: Callable[[], requests.Response], statuses: set[int]) -> float:
    began = time.monotonic()
    assert call().status_code in statuses
    return time.monotonic() - began


def _speeds(server: Running, url: str, first: int) -> tuple[float, float]:
    """Return the median seconds of a hit and of an upload, on new connections."""
    hits = [_seconds_of(lambda: requests.get(url, timeout=20), {200}) for _ in range(60)]
    uploads = []
    for number in range(first, first + 15):
        files = {"image": ("a.png", noise(number))}
        uploads.append(
            _seconds_of(lambda: requests.post(f"{server.url}/api/images", files=files, timeout=20), {201})  # noqa: B023 (called at once)
        )
    return median(hits), median(uploads)


def test_hits_and_uploads_are_served_while_all_generation_slots_stall(tmp_path: Path, go_on: Path) -> None:
    """More requests are stuck than there are threads. Some are generating, and others are waiting for them.

    They stay stuck until everything else is measured, so their threads could not answer other requests.
    """
    settings = _settings(tmp_path, WEB_CONCURRENCY="2", THREADS="2", GENERATE_CONCURRENCY="6")
    with running(tmp_path, **settings) as server, ThreadPoolExecutor(40) as pool:
        url = _generate(server, "quick").json()["image_url"]
        quiet = _speeds(server, url, 0)
        stuck = [pool.submit(_generate, server, f"until {go_on} {number}") for number in range(5)]
        stuck += [pool.submit(_generate, server, f"until {go_on} together", "one-key") for _ in range(15)]
        try:
            wait_until(lambda: len(_drawn(tmp_path)) == 7)
            refused = [pool.submit(_generate, server, "one more") for _ in range(6)]
            stalled = _speeds(server, url, 100)
            assert [answer.result().status_code for answer in refused] == [429] * 6
            assert refused[0].result().json()["code"] == "generator_busy"
            assert int(refused[0].result().headers["Retry-After"]) > 0
            assert not any(answer.done() for answer in stuck)
        finally:
            go_on.touch()
        assert [answer.result().status_code for answer in stuck] == [200] * 20
    for before, during in zip(quiet, stalled, strict=True):
        assert during < 10 * before + 1  # a busy machine may have become busier
    assert len(_drawn(tmp_path)) == 7


def test_a_stalled_generation_releases_its_slot_at_the_deadline(tmp_path: Path) -> None:
    settings = _settings(tmp_path, WEB_CONCURRENCY="1", GENERATE_CONCURRENCY="1", GENERATOR_TIMEOUT="10")
    with running(tmp_path, **settings) as server, ThreadPoolExecutor(1) as pool:
        stuck = pool.submit(_generate, server, "slow 600")
        wait_until(lambda: _drawn(tmp_path))
        assert _generate(server, "quick").status_code in (200, 429)
        answer = stuck.result()
        assert (answer.status_code, answer.json()["code"]) == (504, "generator_timeout")
        assert _generate(server, "quick").status_code == 200


def test_fifty_requests_with_one_idempotency_key_generate_one_image(tmp_path: Path) -> None:
    settings = _settings(tmp_path, WEB_CONCURRENCY="4", THREADS="2")

    def send(server: Running) -> tuple[int, bytes]:
        answer = requests.post(
            f"{server.url}/api/generate-image",
            json={"prompt": "slow 2", "size": "64x64"},
            headers={"Idempotency-Key": '"8e03978e-40d5-43dd-bc93-6894a57f9324"', "Host": "localhost"},
            timeout=100,
        )
        return answer.status_code, answer.content

    with running(tmp_path, **settings) as server, ThreadPoolExecutor(50) as pool:
        answers = set(pool.map(send, [server] * 50))
    assert [status for status, _ in answers] == [200]
    with running(tmp_path, **settings) as server:
        assert {send(server)} == answers
    assert len(_drawn(tmp_path)) == 1


def test_an_idempotency_key_can_be_reused_after_its_worker_was_killed(tmp_path: Path, go_on: Path) -> None:
    settings, prompt = _settings(tmp_path, WEB_CONCURRENCY="2"), f"until {go_on}"
    with running(tmp_path, **settings) as server, ThreadPoolExecutor(8) as pool:
        first = [pool.submit(_generate, server, prompt, "a-key") for _ in range(8)]
        wait_until(lambda: _drawn(tmp_path))
        victim = int(_drawn(tmp_path)[0].split()[0])
        os.kill(victim, signal.SIGKILL)
        go_on.touch()
        wait_until(lambda: victim not in server.workers() and len(server.workers()) == 2)
        wait_until(lambda: answers(server.url))
        answer = _generate(server, prompt, "a-key")
        assert answer.status_code == 200
        assert {_body(sent) for sent in first} <= {None, answer.content}
        assert _generate(server, prompt, "a-key").content == answer.content
    assert len(_drawn(tmp_path)) == 2


def _body(sent: "Future[requests.Response]") -> bytes | None:
    try:
        return sent.result().content
    except requests.ConnectionError:  # the killed worker held it
        return None


def _over_s3(directory: Path, s3: S3Server, bucket: str) -> dict[str, str]:
    store = {"S3_BUCKET": bucket, "AWS_ENDPOINT_URL_S3": s3.url, "AWS_REGION": "us-east-1"}
    return _settings(directory, **CREDENTIALS, **store, WEB_CONCURRENCY="2")


def _puts(s3: S3Server) -> int:
    return sum(method == "PUT" for method, _, _ in s3.requests)


def test_a_generated_image_survives_a_store_outage_and_kill_9(
    tmp_path: Path, s3: S3Server, bucket: str
) -> None:
    """The worker is killed during the put, so it is unknown whether S3 stored the image."""

    def store_without_answering(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes] | None:
        if environ["REQUEST_METHOD"] != "PUT":
            return None
        list(s3._moto(environ, start))
        s3.silence(120)
        raise ConnectionResetError

    settings = _over_s3(tmp_path, s3, bucket)
    with running(tmp_path, **settings) as server, ThreadPoolExecutor(1) as pool:
        s3.fault = refusal("503 Service Unavailable", "ServiceUnavailable", "PUT")
        away = _generate(server, "a cat", "a-key")
        assert (away.status_code, away.json()["code"]) == (503, "store_unreachable")
        s3.reset()
        s3.fault = store_without_answering
        under_way = pool.submit(_generate, server, "a cat", "a-key")
        wait_until(lambda: _puts(s3))
        workers = server.workers()
        server.process.kill()
        for worker in workers:
            os.kill(worker, signal.SIGKILL)
        assert _body(under_way) is None
    s3.reset()
    with running(tmp_path, **settings) as server:
        answer = _generate(server, "a cat", "a-key")
        assert answer.status_code == 200
        assert _generate(server, "a cat", "a-key").content == answer.content
        (stored,) = s3.client().list_objects_v2(Bucket=bucket)["Contents"]
        assert stored["Key"] == answer.json()["key"]
    assert len(_drawn(tmp_path)) == 1
    assert list((tmp_path / "state" / "unstored").iterdir()) == []
