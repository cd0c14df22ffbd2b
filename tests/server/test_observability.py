"""Tests of the logs and metrics of a running server with several workers, some of which die."""

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from tests.observability.test_metrics import Samples, samples
from tests.pictures import noise
from tests.server.raw import connected, read_response
from tests.server.running import Running, answers, running
from tests.waiting import wait_until

WORKERS = 3
SECRET = "sEcReT-sEcReT-sEcReT"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """Start a server with three workers, one API key and JSON logs."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    settings = {"WEB_CONCURRENCY": str(WORKERS), "LOG_FORMAT": "json", "API_KEYS": f"ci={SECRET}"}
    with running(tmp_path, **settings) as started:
        yield started


def _upload(server: Running, data: bytes) -> str:
    headers = {"X-API-Key": SECRET}
    answer = requests.post(f"{server.url}/api/images", files={"image": data}, headers=headers, timeout=60)
    return str(urlsplit(answer.json()["image_url"]).path)


def _get_often(server: Running, path: str, times: int) -> None:
    """Send requests over new connections, which the kernel distributes over the workers."""
    with ThreadPoolExecutor(8) as pool:
        for answer in pool.map(lambda _: requests.get(server.url + path, timeout=60), range(times)):
            assert answer.status_code == 200


def _metrics(server: Running) -> Samples:
    return samples(requests.get(f"{server.url}/metrics", headers={"X-API-Key": SECRET}, timeout=60).text)


def _served(found: Samples) -> float:
    return found["s3image_requests_total", (("route", "images.serve"), ("status", "200"))]


def _counters(server: Running) -> list[Path]:
    (directory,) = (server.log_path.parent / "temporary").glob("s3-image-server-metrics-*")
    return sorted(directory.iterdir())


def _lines(server: Running) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.log.splitlines()]


def _access(server: Running) -> list[dict[str, Any]]:
    return [line for line in _lines(server) if line["logger"] == "access"]


def _is_replaced(server: Running, victim: int) -> bool:
    workers = server.workers()
    return len(workers) == WORKERS and victim not in workers


def test_the_counters_of_workers_survive_their_deaths(server: Running) -> None:
    path = _upload(server, noise(1))
    for seed in range(2, 8):
        _upload(server, noise(seed))
    _get_often(server, path, 120)
    wait_until(lambda: _served(_metrics(server)) == 120)
    before = _metrics(server)
    assert before["s3image_cache_answers_total", (("result", "hit"),)] == 120
    assert before["s3image_store_calls_total", (("call", "put"), ("outcome", "ok"))] == 7
    assert before["s3image_cache_entries", ()] == 7
    files = _counters(server)
    assert len(files) <= 3 * WORKERS

    for victim in server.workers():
        os.kill(victim, signal.SIGKILL)
        wait_until(partial(_is_replaced, server, victim))
    wait_until(lambda: answers(server.url))
    after = _metrics(server)
    uploads = ("s3image_requests_total", (("route", "images.upload"), ("status", "201")))
    assert (after[uploads], _served(after)) == (7, 120)
    assert after["s3image_cache_answers_total", (("result", "hit"),)] == 120
    _get_often(server, path, 60)
    wait_until(lambda: _served(_metrics(server)) == 180)
    assert len(_counters(server)) <= 3 * WORKERS, "new workers did not continue the files of dead ones"


def test_the_directory_of_the_counters_is_removed_when_the_server_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    with running(tmp_path, WEB_CONCURRENCY="1") as server:
        assert len(list((tmp_path / "temporary").glob("s3-image-server-metrics-*"))) == 1
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(40)
    assert list((tmp_path / "temporary").glob("s3-image-server-metrics-*")) == []


def test_each_request_has_one_access_line(server: Running) -> None:
    path = _upload(server, noise(1))
    key = path.removeprefix("/api/images/")
    with requests.Session() as session:
        session.headers["X-Request-ID"] = "one-of-mine"
        hit = session.get(server.url + path, timeout=60)
        tag = {"If-None-Match": hit.headers["ETag"]}
        session.get(server.url + path, headers=tag, timeout=60)
        session.get(server.url + path, headers={"Range": "bytes=0-9"}, timeout=60)
        session.head(server.url + path, timeout=60)
        session.get(f"{server.url}{path}?key={SECRET}", timeout=60)
        session.get(f"{server.url}/api/images/no/such.png", timeout=60)
        session.post(f"{server.url}/api/images", timeout=60)
        session.get(f"{server.url}/web/app.css", timeout=60)
    wait_until(lambda: sum(line["request_id"] == "one-of-mine" for line in _access(server)) == 8)
    wait_until(lambda: [line for line in _access(server) if line["status"] == 201])
    found = [line for line in _access(server) if line["request_id"] == "one-of-mine"]
    names = ("method", "path", "status", "bytes", "image", "cache", "key_name")
    size = len(hit.content)
    assert [tuple(line[name] for name in names) for line in found[:6]] == [
        ("GET", path, 200, size, key, "hit", None),
        ("GET", path, 304, 0, key, "hit", None),
        ("GET", path, 206, 10, key, "hit", None),
        ("HEAD", path, 200, 0, key, "hit", None),
        ("GET", path, 200, size, key, "hit", None),
        ("GET", "/api/images/no/such.png", 404, found[5]["bytes"], None, None, None),
    ]
    assert [(line["status"], line["bytes"] > 100) for line in found[6:]] == [(401, True), (200, True)]
    assert all(line["client"] == "127.0.0.1" and 0 < line["ms"] < 60_000 for line in found)
    (upload,) = [line for line in _access(server) if line["status"] == 201]
    assert (upload["key_name"], upload["image"], upload["method"]) == ("ci", key, "POST")
    assert SECRET not in server.log


HOSTILE = [
    b"GET /a\x1b[31m HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /%0d%0aforged HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /\xc3\xa4\x85\xe2\x80\xa8 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET http://user:" + SECRET.encode() + b"@x/a?" + SECRET.encode() + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /?" + SECRET.encode() + b" a HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /?" + SECRET.encode() + b" HTTP/9\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + SECRET.encode() + b"\x00\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization Bearer: " + SECRET.encode() + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nBearer " + SECRET.encode() + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nX-A: 1\r\n " + SECRET.encode() + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nX-Request-ID: a\x0bb\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nX-Request-ID: \xe2\x80\xa8forged\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nX-Request-ID: a\r\nX-Request-ID: b\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: \x1b[2J\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: " + SECRET.encode() + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: " + SECRET.encode() + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nExpect: " + SECRET.encode() + b"\r\n\r\n",
    SECRET.encode() + b" / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /" + b"a" * 9000 + b"?" + SECRET.encode() + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /api/images HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Type: image/png\r\n"
    b"X-API-Key: " + SECRET.encode() + b"\r\n\r\n" + SECRET.encode() + b"\r\n\r\n",
]


def _access_lines(server: Running, request_id: str) -> int:
    """Return the number of access log lines with this request ID, in either format."""
    lines = server.log.splitlines()
    return sum(request_id in line and ("] access: " in line or '"logger":"access"' in line) for line in lines)


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_hostile_requests_forge_no_log_line_and_no_secret_is_logged(tmp_path: Path, log_format: str) -> None:
    """Each request gets a response with a request ID, and has one line in the access log."""
    settings = {"LOG_FORMAT": log_format, "LOG_LEVEL": "DEBUG", "API_KEYS": f"ci={SECRET}"}
    with running(tmp_path, WEB_CONCURRENCY="1", **settings) as server:
        ids = []
        for request in HOSTILE:
            with connected(server.url) as sock:
                sock.sendall(request)
                ids.append(read_response(sock).headers["x-request-id"])
        wait_until(lambda: all(_access_lines(server, given) for given in ids))
        assert len(set(ids)) == len(HOSTILE)
        assert [number for number, given in enumerate(ids) if given not in server.log] == []
        assert SECRET not in server.log
        assert "Traceback" not in server.log
        assert {given: _access_lines(server, given) for given in ids} == dict.fromkeys(ids, 1)
        assert all(line.isprintable() for line in server.log.split("\n"))
        if log_format == "json":
            assert all(json.loads(line) for line in server.log.splitlines())
        else:
            assert all(line.startswith("20") for line in server.log.splitlines())


UNPARSABLE = [
    (b"GET / HTTP/9\r\n\r\n", 400),
    (SECRET.encode() + b"\r\n\r\n", 400),
    (b"\x16\x03\x01\x02\r\n\r\n", 400),
    (b"GET /" + SECRET.encode() * 500 + b" HTTP/1.1\r\n\r\n", 414),
    (b"GET / HTTP/1.1\r\n" + b"X: 1\r\n" * 200 + b"\r\n", 431),
    (b"POST /" + SECRET.encode() + b" HTTP/1.1\r\nContent-Length: x\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nTransfer-Encoding: x\r\n\r\n", 501),
    (b"POST / HTTP/1.1\r\nExpect: x\r\n\r\n", 417),
]


BAD_REQUEST = (("code", "bad_request"), ("route", "none"))


def test_an_unparsable_request_has_an_access_line_and_is_counted(tmp_path: Path) -> None:
    with running(tmp_path, WEB_CONCURRENCY="1", LOG_FORMAT="json", TRUSTED_PROXIES="1") as server:
        answers = []
        for request, _ in UNPARSABLE:
            with connected(server.url) as sock:
                sock.sendall(request)
                answers.append(read_response(sock))
        ids = [answer.headers["x-request-id"] for answer in answers]
        wait_until(lambda: {line["request_id"] for line in _access(server)} >= set(ids))
        lines = [line for line in _access(server) if line["request_id"] in ids]
        lines.sort(key=lambda line: ids.index(line["request_id"]))
        assert SECRET not in server.log
        statuses = Counter(str(status) for _, status in UNPARSABLE)
        wait_until(lambda: _unrouted(_metrics(server), statuses) == statuses)
        wait_until(lambda: _metrics(server)["s3image_errors_total", BAD_REQUEST] == statuses["400"])
    names = ("request_id", "status", "bytes", "client", "method", "path", "key_name", "image", "cache")
    assert [tuple(line[name] for name in names) for line in lines] == [
        (request_id, status, len(answer.body), "127.0.0.1", "", "", None, None, None)
        for request_id, (_, status), answer in zip(ids, UNPARSABLE, answers, strict=True)
    ]


def _unrouted(found: Samples, statuses: Iterable[str]) -> dict[str, float]:
    """Return the numbers of requests without a route, by status."""
    return {s: found.get(("s3image_requests_total", (("route", "none"), ("status", s))), 0) for s in statuses}


LINE = " access: 127.0.0.1 - GET /healthz 200 "


@pytest.mark.parametrize(
    ("settings", "logged"),
    [({}, True), ({"ACCESS_LOG": "false"}, False), ({"LOG_LEVEL": "WARNING"}, False)],
)
def test_the_access_log_can_be_turned_off(tmp_path: Path, settings: dict[str, str], logged: bool) -> None:
    with running(tmp_path, WEB_CONCURRENCY="1", **settings) as server:
        answer = requests.get(f"{server.url}/healthz", timeout=60)
        assert answer.headers["X-Request-ID"]
        if logged:
            wait_until(lambda: LINE in server.log)
        else:
            time.sleep(0.3)
    assert (LINE in server.log) is logged


def test_a_client_that_disconnects_has_an_access_line(server: Running) -> None:
    path = _upload(server, noise(9, (1500, 1500)))
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\nX-Request-ID: gone\r\n\r\n".encode()
    with connected(server.url, receive_buffer=4096) as sock:
        sock.sendall(request)
        sock.recv(100)
    wait_until(lambda: [line["request_id"] for line in _access(server)].count("gone") == 1)
