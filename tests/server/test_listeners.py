"""Tests of the choice of listeners, including on systems on which the tests rarely run."""

import errno
import os
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app.server import listeners
from app.server.listeners import choose_listeners, describe_listener, problem_with
from tests.ports import free_port


class Configuration(SimpleNamespace):
    """The part of gunicorn's configuration that is used."""

    def set(self, name: str, value: object) -> None:
        """Set a value."""
        setattr(self, name, value)


def _server(*addresses: Any, **settings: Any) -> Any:
    cfg = Configuration(address=list(addresses), workers=2, max_requests=0, reuse_port=True, is_ssl=False)
    vars(cfg).update(settings)
    return SimpleNamespace(cfg=cfg, log=None, LISTENERS=[])


@pytest.mark.parametrize(
    ("settings", "own"),
    [({}, True), ({"workers": 1}, False), ({"max_requests": 5}, False), ({"reuse_port": False}, False)],
)
def test_each_worker_has_its_own_listener_if_no_client_is_refused(
    settings: dict[str, Any], own: bool
) -> None:
    port = free_port()
    server = _server(("127.0.0.1", port), **settings)
    choose_listeners(server, ("127.0.0.1", port))
    assert server.cfg.reuse_port is own
    assert [str(listener) for listener in server.LISTENERS] == [f"http://127.0.0.1:{port}"] * own
    for listener in server.LISTENERS:
        assert not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        listener.close()


@pytest.mark.parametrize("address", [("127.0.0.1", 0), "socket", 7])
def test_workers_share_listeners_that_they_can_not_open_themselves(
    address: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    server = _server(address)
    choose_listeners(server, ("127.0.0.1", 0))
    assert (server.cfg.reuse_port, server.LISTENERS) == (False, [])


def test_a_system_without_working_reuseport_has_one_listener(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: object, sock: socket.socket, bound: bool = False) -> socket.socket:
        sock.close()
        raise OSError(errno.ENOPROTOOPT, os.strerror(errno.ENOPROTOOPT))

    monkeypatch.setattr(listeners._ReservedSocket, "set_options", refused)
    server = _server(("127.0.0.1", free_port()))
    choose_listeners(server, ("127.0.0.1", 1))
    assert (server.cfg.reuse_port, server.LISTENERS) == (False, [])


def test_a_machine_without_ipv6_gets_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def without(family: int, *arguments: Any) -> socket.socket:
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")

    monkeypatch.setattr(socket, "socket", without)
    message = "Can't listen on HOST=:: PORT=8000: Address family not supported by protocol"
    assert problem_with([("::", 8000)], ("::", 8000)) == message
    assert problem_with([("::", 8000), ("0.0.0.0", 8000)], ("::", 8000)) == message


def test_passed_sockets_and_addresses_can_not_be_combined() -> None:
    assert "fd://" in problem_with([3, ("127.0.0.1", 8000)])
    assert problem_with([3, 4]) == ""


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("127.0.0.1", 8000), ("127.0.0.1", 8000)),
        (("localhost", 8000), ("127.0.0.1", 8000)),
        (("0.0.0.0", 8000), ("127.0.0.1", 8000)),
        (("127.0.0.1", 8000), ("", 8000)),
        (("::1", 8000), ("0:0::1", 8000)),
        ("{tmp}/socket", "{tmp}/x/../socket"),
        ("socket", "./socket"),
        (3, 3),
    ],
)
def test_an_address_given_twice_is_found_even_if_it_is_written_differently(
    tmp_path: Path, one: Any, other: Any
) -> None:
    """With SO_REUSEPORT, both could be bound and would share the connections."""
    given = [a.replace("{tmp}", str(tmp_path)) if isinstance(a, str) else a for a in (one, other)]
    assert problem_with(given).startswith("An address is given twice with --bind: ")


def test_addresses_that_do_not_overlap_are_allowed(tmp_path: Path) -> None:
    port = free_port()
    given = ("127.0.0.1", port), ("127.0.0.2", port), ("::1", port)
    assert problem_with(given) == ""
    assert problem_with([str(tmp_path / "a"), str(tmp_path / "b"), *given[:1]]) == ""


@pytest.mark.parametrize(
    ("address", "description"),
    [
        (("0.0.0.0", 80), "open http://127.0.0.1:80/"),
        (("::", 80, 0, 0), "open http://127.0.0.1:80/"),
        (("::1", 80, 0, 0), "open http://[::1]:80/"),
        (("192.0.2.1", 80), "open http://192.0.2.1:80/"),
        ("/run/x", "listening at unix:/run/x"),
        (b"\0name", "listening at unix:@name"),
    ],
)
def test_a_listener_is_described_by_the_url_to_open(address: Any, description: str) -> None:
    assert (
        describe_listener(SimpleNamespace(sock=SimpleNamespace(getsockname=lambda: address))) == description
    )
