"""Tests of HOST=::, with which the addresses of IPv4 clients are mapped to IPv6."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.pictures import noise
from tests.server.running import Running, running
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Start a server without API keys that listens for IPv4 and IPv6."""
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    directory = tmp_path_factory.mktemp("dual")
    with running(directory, HOST="::", WEB_CONCURRENCY="1") as started:
        yield started


@pytest.mark.parametrize("address", ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "localhost"])
def test_ipv4_and_ipv6_clients_on_this_machine_need_no_key(server: Running, address: str) -> None:
    url = f"http://{address}:{server.url.rpartition(':')[2]}"
    answer = requests.post(f"{url}/api/images", files={"image": noise(1)}, timeout=60)
    assert answer.status_code in (200, 201), answer.text
    assert requests.get(answer.json()["image_url"], timeout=60).content == noise(1)


def test_the_access_log_has_the_ipv4_address(server: Running) -> None:
    requests.get(f"{server.url}/readyz", timeout=60)
    wait_until(lambda: "access: 127.0.0.1 - GET /readyz 200" in server.log)
    assert "::ffff:" not in server.log


def test_a_different_host_name_needs_a_key(server: Running) -> None:
    """A page of a different site can send such a name through DNS rebinding."""
    headers = {"Host": "[::ffff:192.0.2.1]:8000"}
    answer = requests.post(f"{server.url}/api/images", headers=headers, timeout=60)
    assert answer.status_code == 401


def test_host_can_be_an_ipv6_address_in_brackets(tmp_path: Path) -> None:
    with running(tmp_path, HOST="[::1]", WEB_CONCURRENCY="1") as server:
        assert server.url.startswith("http://[::1]:")
        assert requests.get(f"{server.url}/healthz", timeout=60).ok
