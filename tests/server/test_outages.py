"""Tests of all kinds of S3 outages, of the response and the log during each, and of the recovery.

A call to S3 ends within 25 seconds (`app/stores/s3/client.py`). On a busy machine, everything around it takes
longer, too.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import requests

from tests.pictures import noise
from tests.ports import free_port
from tests.s3server import CREDENTIALS, Fault, S3Server, error
from tests.server.running import Running, running
from tests.waiting import wait_until

MISSING = f"images/00/{'0' * 30}.png"
WITHIN = 45


class Outage(NamedTuple):
    """The behaviour of S3, and the response and the log message that the server must produce."""

    fault: Callable[[S3Server], Fault]
    status: int
    code: str
    log_message: str
    readiness: tuple[int, str]


def _always(status: str, code: str) -> Callable[[S3Server], Fault]:
    return lambda s3: error(status, code, lambda environ: True)


def _stalling(s3: S3Server) -> Fault:
    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
        s3.silence(60)
        start_response("500 Late", [("Content-Length", "0")])
        yield b""

    return answer


def _body(etag: str, *, stall: bool) -> Callable[[S3Server], Fault]:
    """Return a fault with which bodies are incomplete or stall. They have this ETag."""

    def fault(s3: S3Server) -> Fault:
        def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            date = ("Last-Modified", "Sun, 22 Nov 2026 08:00:00 GMT")
            headers = [("Content-Type", "image/png"), ("Content-Length", "50000"), ("ETag", etag), date]
            start_response("200 OK", headers)
            yield b"\x89PNG only this"
            if stall:
                s3.silence(60)

        return answer

    return fault


STAYS_READY = (200, "unreachable")
"""The status of /readyz if the cache contains images."""

REFUSED = (503, "refused")
"""The status of /readyz if the store has never accepted the credentials of this server."""

OUTAGES = {
    "stalling": Outage(_stalling, 504, "store_timeout", "Check the network, AWS_REGION", STAYS_READY),
    "500": Outage(
        _always("500 Oops", "InternalError"), 503, "store_unreachable", "S3 is overloaded", STAYS_READY
    ),
    "503": Outage(
        _always("503 Slow Down", "SlowDown"), 503, "store_unreachable", "S3 is overloaded", STAYS_READY
    ),
    "403": Outage(
        _always("403 No", "ExpiredToken"), 502, "store_refused", "Renew AWS_SESSION_TOKEN", REFUSED
    ),
    "301": Outage(_always("301 Moved", "PermanentRedirect"), 502, "store_refused", "Set AWS_REGION", REFUSED),
    "truncated": Outage(_body('"e"', stall=False), 502, "store_error", "a body broke off", (200, "ok")),
    "stalling within": Outage(
        _body('"e"', stall=True), 504, "store_timeout", "Check the network, AWS_REGION", (200, "ok")
    ),
    "no ETag": Outage(_body("", stall=False), 502, "store_error", "with the ETag", (200, "failing")),
}


@pytest.fixture
def over_s3(s3: S3Server, bucket: str, tmp_path: Path) -> Iterator[Running]:
    """Start a server with S3 and one worker. Images with chosen names are stale immediately."""
    settings = {**CREDENTIALS, "S3_BUCKET": bucket, "AWS_ENDPOINT_URL_S3": s3.url, "AWS_REGION": "us-east-1"}
    with running(tmp_path, **settings, WEB_CONCURRENCY="1", CACHE_TTL="0", CACHE_NEGATIVE_TTL="0") as server:
        yield server


def _upload(url: str, data: bytes, **fields: str) -> str:
    answer = requests.post(f"{url}/api/images", files={"image": ("a.png", data)}, data=fields, timeout=60)
    return f"{url}/api/images/{answer.json()['key']}"


def _get(url: str) -> requests.Response:
    began = time.monotonic()
    answer = requests.get(url, timeout=60)
    assert time.monotonic() - began < WITHIN
    return answer


def _readiness(server: Running) -> tuple[int, str]:
    """Return the status and the state of the store. If a probe is slow, a later call has the result."""
    answer = _get(f"{server.url}/readyz")
    return answer.status_code, answer.json()["store"]


def _check_that_cached_images_are_served(known: str, named: str) -> None:
    hit, stale = _get(known), _get(named)
    assert (hit.status_code, hit.content) == (200, noise(1))
    assert hit.headers["Cache-Status"] == "s3-image-server; hit"
    assert (stale.status_code, stale.content) == (200, noise(2))
    assert stale.headers["Cache-Status"] == "s3-image-server; hit; detail=stale-if-error"


def _check_that_it_recovers(server: Running, named: str) -> None:
    wait_until(lambda: "fwd-status=304" in _get(named).headers["Cache-Status"])
    assert _get(f"{server.url}/api/images/{MISSING}").status_code == 404
    wait_until(lambda: _get(f"{server.url}/readyz").status_code == 200)
    assert _get(_upload(server.url, noise(3))).content == noise(3)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("outage", OUTAGES.values(), ids=OUTAGES.keys())
def test_an_outage_has_its_status_and_cached_images_are_served(
    s3: S3Server, over_s3: Running, outage: Outage
) -> None:
    known, named = _upload(over_s3.url, noise(1)), _upload(over_s3.url, noise(2), name="me.png")
    s3.fault = outage.fault(s3)
    away = _get(f"{over_s3.url}/api/images/{MISSING}")
    assert (away.status_code, away.json()["code"]) == (outage.status, outage.code)
    assert ("Retry-After" in away.headers) == (outage.status in (503, 504))
    assert outage.log_message in over_s3.log
    _check_that_cached_images_are_served(known, named)
    wait_until(lambda: _readiness(over_s3) == outage.readiness)
    s3.reset()
    _check_that_it_recovers(over_s3, named)
    assert "Traceback" not in over_s3.log


@pytest.mark.timeout(180)
def test_a_store_that_refuses_connections_is_unreachable(bucket: str, tmp_path: Path) -> None:
    """S3 stops and is started again at the same address."""
    own = S3Server(free_port()).start()
    own.make_bucket("cats").close()
    settings = {**CREDENTIALS, "S3_BUCKET": "cats", "AWS_ENDPOINT_URL_S3": own.url, "AWS_REGION": "us-east-1"}
    with running(tmp_path, **settings, WEB_CONCURRENCY="1", CACHE_TTL="0", CACHE_NEGATIVE_TTL="0") as server:
        known, named = _upload(server.url, noise(1)), _upload(server.url, noise(2), name="me.png")
        port = own.port
        own.stop()
        away = _get(f"{server.url}/api/images/{MISSING}")
        assert (away.status_code, away.json()["code"]) == (503, "store_unreachable")
        assert "Check the network, AWS_REGION and AWS_ENDPOINT_URL_S3" in server.log
        wait_until(lambda: _readiness(server)[1] == "unreachable")
        _check_that_cached_images_are_served(known, named)
        back = S3Server(port).start()
        _check_that_it_recovers(server, named)
        back.stop()
