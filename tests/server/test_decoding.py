"""Tests of the separate processes in which a running server decodes images."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import pytest
import requests
from PIL import Image

from tests.pictures import picture
from tests.server.running import Running, running
from tests.server.trees import children_of, is_there, tree_of
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are read from Linux' /proc"),
    pytest.mark.timeout(300),
]

SECRETS = {"API_KEYS": "web=a-secret-of-ours", "AWS_SECRET_ACCESS_KEY": "a-secret-of-ours"}
HEADERS = {"Authorization": "Bearer a-secret-of-ours"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("server"), WEB_CONCURRENCY="1", **SECRETS) as started:
        yield started


@pytest.fixture(scope="module")
def slow_image() -> bytes:
    """Return an image that takes a second or more, since it must be rotated and encoded as lossy WebP."""
    exif = Image.Exif()
    exif[0x0112] = 6
    specks = Image.frombytes("RGB", (300, 300), os.urandom(300 * 300 * 3)).resize((3000, 3000))
    buffer = BytesIO()
    specks.save(buffer, "WEBP", quality=80, method=0, exif=exif.tobytes())
    return buffer.getvalue()


def _upload(server: Running, data: bytes, folder: str = "a") -> requests.Response:
    form = {"image": ("a.png", data)}
    return requests.post(f"{server.url}/api/images?folder={folder}", files=form, headers=HEADERS, timeout=120)


def _host_and_child(server: Running) -> tuple[int, int]:
    """Return the decoder host of the only worker, and its child process that is decoding."""

    def found() -> tuple[int, int] | None:
        (worker,) = server.workers()
        for host in children_of(worker):
            for child in children_of(host):
                return host, child
        return None

    return wait_until(found)


def _begin(server: Running, pool: ThreadPoolExecutor, data: bytes) -> Future[requests.Response]:
    assert _upload(server, picture()).status_code in (200, 201)  # so that a decoder host is running
    return pool.submit(_upload, server, data, f"slow/{os.urandom(4).hex()}")


def test_a_crash_in_native_code_fails_only_one_upload(server: Running, slow_image: bytes) -> None:
    workers = server.workers()
    with ThreadPoolExecutor(1) as pool:
        answer = _begin(server, pool, slow_image)
        host, child = _host_and_child(server)
        os.kill(child, signal.SIGSEGV)
        refused = answer.result()
    assert (refused.status_code, refused.json()["code"]) == (422, "undecodable_image")
    assert "A decoder ended with signal 11" in server.log
    assert _upload(server, slow_image).status_code == 201
    assert server.workers() == workers
    assert children_of(workers[0]) == [host]
    assert children_of(host) == []


def test_an_upload_survives_the_death_of_the_decoder_host(server: Running, slow_image: bytes) -> None:
    with ThreadPoolExecutor(1) as pool:
        answer = _begin(server, pool, slow_image)
        host, child = _host_and_child(server)
        os.kill(host, signal.SIGKILL)
        assert answer.result().status_code == 201
    assert not is_there(child)
    assert children_of(server.workers()[0]) != [host]


def test_hits_and_health_checks_are_answered_while_an_image_is_decoded(
    server: Running, slow_image: bytes
) -> None:
    url = _upload(server, picture()).json()["image_url"]
    with ThreadPoolExecutor(1) as pool:
        answer = _begin(server, pool, slow_image)
        _host_and_child(server)
        assert requests.get(url, timeout=60).ok
        assert requests.get(f"{server.url}/healthz", timeout=60).ok
        assert answer.result().status_code == 201


def test_the_decoder_host_has_no_secrets(server: Running) -> None:
    assert _upload(server, picture()).ok
    (worker,) = server.workers()
    (host,) = children_of(worker)
    assert b"a-secret-of-ours" in Path(f"/proc/{worker}/environ").read_bytes()
    assert b"a-secret-of-ours" not in Path(f"/proc/{host}/environ").read_bytes()
    assert (
        "/_ssl" not in Path(f"/proc/{host}/maps").read_text()
    )  # not even the library that could hold secrets


def test_a_killed_worker_leaves_no_process_behind(server: Running, slow_image: bytes) -> None:
    with ThreadPoolExecutor(1) as pool:
        answer = _begin(server, pool, slow_image)
        host, child = _host_and_child(server)
        (worker,) = server.workers()
        os.kill(worker, signal.SIGKILL)
        assert answer.exception() is not None
    wait_until(lambda: not any(map(is_there, (worker, host, child))))
    wait_until(lambda: server.workers() not in ([], [worker]))
    assert wait_until(lambda: _answered(server))


def test_a_stopped_server_leaves_no_process_behind(tmp_path: Path) -> None:
    with running(tmp_path, WEB_CONCURRENCY="2", **SECRETS) as server:
        for _ in range(8):
            assert _upload(server, picture()).ok
        processes = tree_of(server.process.pid)
        assert len(processes) > 3
    wait_until(lambda: not any(map(is_there, processes)))


def test_a_stopping_server_finishes_the_current_upload(tmp_path: Path, slow_image: bytes) -> None:
    with running(tmp_path, WEB_CONCURRENCY="1", **SECRETS) as server, ThreadPoolExecutor(1) as pool:
        answer = _begin(server, pool, slow_image)
        host, _ = _host_and_child(server)
        for pid in (host, server.process.pid):  # like systemd, or Ctrl-C in a terminal
            os.kill(pid, signal.SIGTERM)
        assert answer.result().status_code == 201


def _answered(server: Running) -> bool:
    try:
        return _upload(server, picture()).ok
    except requests.RequestException:
        return False
