"""Test that the server works without some system calls, and that it logs each problem once."""

import os
import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from tests.pictures import long_png, noise
from tests.server.raw import connected, read_response
from tests.server.refusing import refusing
from tests.server.running import Running, running
from tests.waiting import wait_until


def _upload(server: Running, data: bytes) -> str:
    answer = requests.post(f"{server.url}/api/images", files={"image": data}, timeout=60)
    assert answer.status_code == 201, answer.text
    return str(urlsplit(answer.json()["image_url"]).path)


def _check_served(server: Running, path: str, data: bytes) -> None:
    for _ in range(3):
        answer = requests.get(server.url + path, timeout=60)
        assert (answer.status_code, answer.content == data) == (200, True)


def _check_main_job(server: Running) -> None:
    """Check that an upload is decoded, stored and served, and that no process has exited."""
    _check_served(server, _upload(server, noise(1)), noise(1))
    assert "exited with code" not in server.log
    assert "Traceback" not in server.log


def test_images_are_sent_if_sendfile_fails(tmp_path: Path) -> None:
    """The loop and threads send whole images and parts of them, even to clients that read slowly."""
    with (
        refusing(tmp_path, sendfile="EINVAL"),
        running(tmp_path, WEB_CONCURRENCY="1", MAX_UPLOAD_BYTES="64MiB") as server,
    ):
        data, large = noise(1), long_png(2)
        path, large_path = _upload(server, data), _upload(server, large)
        request = f"GET {large_path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        _check_served(server, path, data)
        _check_served(server, f"{path}?x", data)
        answer = requests.get(server.url + path, headers={"Range": "bytes=5-14"}, timeout=60)
        assert (answer.status_code, answer.content) == (206, data[5:15])
        with connected(server.url, receive_buffer=4096) as sock:
            sock.sendall(request)
            assert read_response(sock).body == large
        with connected(server.url, receive_buffer=4096) as sock:
            sock.sendall(request)
            assert sock.recv(1)
            os.truncate(tmp_path / "cache" / "objects" / large_path.removeprefix("/api/images/"), 1000)
            with pytest.raises(EOFError):  # a missing image is better than one with wrong bytes
                read_response(sock)
        assert server.log.count("sendfile(2) does not work") == 1
        assert "Traceback" not in server.log


def test_the_server_runs_if_resource_limits_can_not_be_set(tmp_path: Path) -> None:
    """These are the calls of `SystemCallFilter=~@resources` (systemd.exec(5))."""
    names = ("sched_setaffinity", "sched_getaffinity", "setpriority", "prlimit64", "setrlimit", "getrlimit")
    with (
        refusing(tmp_path, **dict.fromkeys(names, "EPERM")),
        running(tmp_path, WEB_CONCURRENCY="2") as server,
    ):
        _check_main_job(server)
        assert server.log.count("Workers are not pinned to cores") == 1
        assert len(re.findall("refuses setrlimit.*RLIMIT_CPU.*RLIMIT_AS", server.log)) == 1


def test_the_server_runs_if_pinning_and_confinement_fail(tmp_path: Path) -> None:
    names = ("sched_setaffinity", "landlock_create_ruleset", "prctl", "close_range", "memfd_create")
    with (
        refusing(tmp_path, **dict.fromkeys(names, "EPERM")),
        running(tmp_path, WEB_CONCURRENCY="2") as server,
    ):
        _check_main_job(server)
        assert server.log.count("Workers are not pinned to cores") == 1


def test_the_server_runs_if_flock_fails(tmp_path: Path) -> None:
    """Open file description locks are used instead, so the cache and Idempotency-Key still work."""
    with refusing(tmp_path, flock="ENOLCK"), running(tmp_path, WEB_CONCURRENCY="2") as server:
        _check_main_job(server)
        request = {"json": {"prompt": "a boat"}, "headers": {"Idempotency-Key": "a" * 32}, "timeout": 120}
        answers = [requests.post(f"{server.url}/api/generate-image", **request) for _ in range(2)]  # type: ignore[arg-type]
        assert answers[0].json()["key"] == answers[1].json()["key"]
        url = f"{server.url}/api/images/{answers[0].json()['key']}"
        assert "hit" in requests.get(url, timeout=60).headers["Cache-Status"]
        assert "The cache is degraded" not in server.log


def test_uploads_are_stored_if_directories_can_not_be_synced(tmp_path: Path) -> None:
    with refusing(tmp_path, fsync="EINVAL"), running(tmp_path, WEB_CONCURRENCY="1") as server:
        _check_main_job(server)


def test_workers_continue_if_heartbeats_fail(tmp_path: Path) -> None:
    """gunicorn's heartbeat sets the mtime of a file about once a second."""
    with refusing(tmp_path, utimensat="EPERM"), running(tmp_path, WEB_CONCURRENCY="1") as server:
        before = server.workers()
        wait_until(lambda: "a worker that hangs is not replaced" in server.log)
        _check_main_job(server)
        assert server.workers() == before
