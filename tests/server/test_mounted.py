"""Tests of a running server with a mount point that is set by SCRIPT_NAME or by a trusted proxy."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.pictures import noise
from tests.ports import free_port
from tests.server.raw import connected, read_response
from tests.server.running import Running, answers, running
from tests.server.test_listening import started
from tests.waiting import wait_until

KEY = {"X-API-Key": "k"}
HIT = "s3-image-server; hit"
SETTINGS = {"API_KEYS": "k", "WEB_CONCURRENCY": "1"}


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Start a server with SCRIPT_NAME=/img."""
    with running(tmp_path_factory.mktemp("mounted"), SCRIPT_NAME="/img", **SETTINGS) as started:
        yield started


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Start a server that trusts one proxy."""
    with running(tmp_path_factory.mktemp("proxied"), TRUSTED_PROXIES="1", **SETTINGS) as started:
        yield started


def _stored(url: str, number: int, **headers: str) -> str:
    answer = requests.post(
        f"{url}/api/images", files={"image": noise(number)}, headers=KEY | headers, timeout=60
    )
    assert answer.status_code == 201, answer.text
    assert answer.headers["Location"] == answer.json()["image_url"]
    return str(answer.json()["image_url"])


def test_every_path_works_with_and_without_the_prefix(mounted: Running) -> None:
    url = _stored(f"{mounted.url}/img", 1)
    assert url.startswith(f"{mounted.url}/img/api/images/")
    for address in (url, url.replace("/img/", "/", 1)):
        hit = requests.get(address, timeout=60)
        assert (hit.status_code, hit.content, hit.headers["Cache-Status"]) == (200, noise(1), HIT)
        part = requests.get(address, headers={"Range": "bytes=0-9"}, timeout=60)
        assert (part.status_code, part.content) == (206, noise(1)[:10])
        wrong = requests.get(address, headers={"If-Match": '"x"'}, timeout=60)
        assert (wrong.status_code, wrong.json()["code"]) == (412, "precondition_failed")
    for path in ("/img/healthz", "/healthz", "/img/", "/img/docs", "/"):
        assert requests.get(f"{mounted.url}{path}", timeout=60).status_code == 200, path
    assert requests.get(f"{mounted.url}/imgs/healthz", timeout=60).status_code == 404
    assert "Refused a request" not in mounted.log


def test_the_settings_file_can_set_the_prefix(tmp_path: Path) -> None:
    (tmp_path / "settings").write_text("SCRIPT_NAME=/a/b/\n", encoding="utf-8")
    with running(tmp_path, ENV_FILE=str(tmp_path / "settings"), **SETTINGS) as server:
        url = _stored(f"{server.url}/a/b", 2)
        assert url.startswith(f"{server.url}/a/b/api/images/")
        assert requests.get(url, timeout=60).headers["Cache-Status"] == HIT


@pytest.mark.parametrize("kept", ["", "/img"], ids=["removed", "kept"])
def test_a_trusted_proxy_can_set_the_prefix(proxied: Running, kept: str) -> None:
    headers = {"X-Forwarded-Prefix": "/img", "X-Forwarded-Host": "a.example", "X-Forwarded-For": "192.0.2.1"}
    url = _stored(f"{proxied.url}{kept}", 3 + len(kept), **headers)
    assert url.startswith("http://a.example/img/api/images/")
    path = url.removeprefix("http://a.example/img")
    hit = requests.get(f"{proxied.url}{kept}{path}", headers=headers, timeout=60)
    assert (hit.content, hit.headers["Cache-Status"]) == (noise(3 + len(kept)), HIT)


def test_the_request_header_script_name_is_ignored(proxied: Running) -> None:
    """Many proxies pass on a `SCRIPT_NAME` header of a client."""
    url = _stored(proxied.url, 11, SCRIPT_NAME="/evil", **{"X-Script-Name": "/evil"})
    assert url.startswith(f"{proxied.url}/api/images/")


@pytest.mark.parametrize(
    "lines",
    [
        b"X-Forwarded-Prefix: //evil.example\r\n",
        b"X-Forwarded-Prefix: /a\r\n\t/b\r\n",
        b"X-Forwarded-Prefix: /a\rSet-Cookie: a=b\r\n",
        b"X-Forwarded-Prefix: /../..\r\n",
        b"X-Forwarded-Prefix: /" + b"x" * 8000 + b"\r\n",
        b"X-Forwarded-Prefix: /" + b"x" * 9000 + b"\r\n",
        b"X-Forwarded-Prefix: /evil\r\nX-Forwarded-Prefix: //x\r\n",
        b"X-Forwarded-Prefix: /evil\r\nX-Forwarded-Prefix: /..\r\n",
        b"X_Forwarded_Prefix: /evil\r\n",
    ],
)
def test_hostile_prefixes_are_ignored_or_refused(proxied: Running, lines: bytes) -> None:
    with connected(proxied.url) as sock:
        head = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        sock.sendall(head + lines + b"\r\n")
        answer = read_response(sock)
    assert answer.status in (200, 400, 431)
    assert "set-cookie" not in answer.headers
    assert b'"servers"' not in answer.body
    assert b"evil" not in answer.body


def test_the_prefix_works_without_gunicorn_conf_py(tmp_path: Path) -> None:
    """gunicorn would return 500 for health checks without the prefix."""
    address = f"127.0.0.1:{free_port()}"
    with started(tmp_path, "-c", os.devnull, "-b", address, SCRIPT_NAME="/img") as server:
        wait_until(lambda: answers(f"http://{address}"), seconds=90)
        assert answers(f"http://{address}/img")
        assert "does not start with SCRIPT_NAME" not in server.log
