"""Tests of listening at TCP addresses, Unix sockets and sockets of systemd, and of errors."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from tests.pictures import noise
from tests.ports import free_port
from tests.server.raw import RawResponse, read_response
from tests.server.running import GUNICORN, ROOT, answers
from tests.waiting import wait_until

IMAGE = noise(1)


class Started:
    """A server that was started with certain arguments, and its log."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def log(self) -> str:
        """Everything that it has logged."""
        return self._log.read_text(encoding="utf-8")

    def reload(self) -> None:
        """Send SIGHUP and wait until new workers have taken over."""
        count = self.log.count("Booting worker")
        before = self.log.count("Worker exiting")
        self.process.send_signal(signal.SIGHUP)
        wait_until(
            lambda: self.log.count("Booting worker") > count and self.log.count("Worker exiting") > before
        )


@contextmanager
def started(
    directory: Path,
    *arguments: str,
    through: Sequence[str] = (),
    pass_fds: Sequence[int] = (),
    **settings: str,
) -> Iterator[Started]:
    """Start gunicorn with these arguments. Wait until a worker is running or gunicorn has exited."""
    places = {name: str(directory / name) for name in ("CACHE_DIR", "LOCAL_STORE_DIR", "STATE_DIR")}
    environ = {**os.environ, **places, "ENV_FILE": os.devnull, "WEB_CONCURRENCY": "2", **settings}
    path = directory / "log"
    with path.open("ab") as log:
        process = subprocess.Popen(
            [*through, *GUNICORN, *arguments],
            cwd=ROOT,
            env=environ,
            pass_fds=pass_fds,
            stdout=log,
            stderr=log,
        )
    server = Started(process, path)
    try:
        wait_until(lambda: "Booting worker" in server.log or process.poll() is not None)
        yield server
    finally:
        process.send_signal(signal.SIGQUIT)
        process.wait(60)


def _wait_for(url: str) -> None:
    wait_until(lambda: answers(url))


def _ask(path: str, request: str, body: bytes = b"") -> RawResponse:
    """Return the response of the server at a Unix socket."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(60)
        sock.connect(path)
        sock.sendall(request.encode() + body)
        return read_response(sock)


def _get(path: str, version: str = "1.1", *lines: str) -> str:
    return "\r\n".join((f"GET {path} HTTP/{version}", *lines, "", ""))


def _upload(*lines: str, version: str = "1.1") -> str:
    head = f"POST /api/images HTTP/{version}"
    return "\r\n".join((head, "Content-Type: image/png", f"Content-Length: {len(IMAGE)}", *lines, "", ""))


def test_several_workers_listen_on_a_unix_socket(tmp_path: Path) -> None:
    """This works before and after a reload, although PORT is in use."""
    path = str(tmp_path / "a:b.sock")
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = str(busy.getsockname()[1])
        with started(tmp_path, "--bind", f"unix:{path}", PORT=port) as server:
            assert f"Listening at: unix:{path} " in server.log
            assert f"S3 Image Server: listening at unix:{path}\n" in server.log
            assert "http://" not in server.log
            assert _ask(path, _get("/healthz", "1.1", "Host: x")).status == 200
            server.reload()
            assert _ask(path, _get("/healthz", "1.1", "Host: x")).status == 200
            assert "exited with code" not in server.log
    assert not Path(path).exists()


def test_clients_of_a_unix_socket_need_a_key_and_the_message_says_so(tmp_path: Path) -> None:
    """Unix sockets are usually used by a proxy, so their clients don't count as programs on this machine."""
    path = str(tmp_path / "a:b.sock")
    with started(tmp_path, "--bind", f"unix:{path}", API_KEYS="") as server:
        answer = _ask(path, _upload("Host: localhost"), IMAGE)
        assert answer.status == 401
        assert b"Unix socket" in answer.body
        assert b"API_KEYS" in answer.body
        assert "Traceback" not in server.log


def test_uploads_over_a_unix_socket_work_with_a_key(tmp_path: Path) -> None:
    """They work with any Host header, and without one."""
    path, key = str(tmp_path / "a:b.sock"), "k" * 32
    with started(tmp_path, "--bind", f"unix:{path}", API_KEYS=key, WEB_CONCURRENCY="1"):
        for host in ("localhost", "[::1]:8000", "img.example.org", ""):
            lines = [f"Authorization: Bearer {key}", *([f"Host: {host}"] if host else [])]
            version = "1.1" if host else "1.0"
            answer = _ask(path, _upload(*lines, version=version), IMAGE)
            assert answer.status in (200, 201)
            image = answer.headers["location"].partition("/api/")[2]
            assert _ask(path, _get(f"/api/{image}", version, *lines)).body == IMAGE


def test_a_unix_socket_is_replaced_only_if_its_server_is_dead(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(path)
    with started(tmp_path, "--bind", f"unix:{path}") as server:
        assert _ask(path, _get("/healthz", "1.1", "Host: x")).status == 200
        other = tmp_path / "other"
        other.mkdir()
        with started(other, "--bind", f"unix:{path}") as second:
            assert second.process.wait(60) == 1
            assert f"unix:{path} is in use by another program" in second.log
        assert _ask(path, _get("/healthz", "1.1", "Host: x")).status == 200
        assert server.process.poll() is None


def test_a_server_listens_at_addresses_of_several_kinds(tmp_path: Path) -> None:
    path, ports = str(tmp_path / "socket"), (free_port(), free_port())
    addresses = [f"unix:{path}", f"127.0.0.1:{ports[0]}", f"[::1]:{ports[1]}"]
    urls = [f"http://127.0.0.1:{ports[0]}", f"http://[::1]:{ports[1]}"]
    with started(tmp_path, *(f"--bind={address}" for address in addresses)) as server:
        assert f"Listening at: unix:{path},{urls[0]},{urls[1]} " in server.log
        assert all(f"open {url}/\n" in server.log for url in urls)
        assert _ask(path, _get("/healthz", "1.1", "Host: x")).status == 200
        for url in urls:
            _wait_for(url)
        server.reload()
        assert all(answers(url) for url in urls * 4)


def test_each_worker_listens_on_several_ports(tmp_path: Path) -> None:
    urls = [f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"]
    with started(tmp_path, "-b", urls[0], "-b", urls[1]) as server:
        assert f"Listening at: http://{urls[0]},http://{urls[1]} " in server.log
        for url in urls:
            _wait_for(f"http://{url}")
            assert all(answers(f"http://{url}") for _ in range(10))


def test_the_same_address_twice_is_an_error(tmp_path: Path) -> None:
    """With SO_REUSEPORT, two servers could share a port and its requests."""
    address = f"127.0.0.1:{free_port()}"
    with started(tmp_path, "-b", address, "-b", address) as server:
        assert server.process.wait(60) == 1
        assert "An address is given twice" in server.log
    with started(tmp_path, "-b", address) as server:
        _wait_for(f"http://{address}")
        other = tmp_path / "other"
        other.mkdir()
        with started(other, "-b", address) as second:
            assert second.process.wait(60) == 1
            assert f"Port {address[10:]} on 127.0.0.1 is in use by another program" in second.log
        assert server.process.poll() is None


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("unix:{tmp}/file", "the file there is not a socket"),
        ("unix:{tmp}/nowhere/socket", "{tmp}/nowhere is not a directory"),
        ("unix:{tmp}/" + "x" * 200, "too long"),
        ("192.0.2.1:8000", "Can't listen on 192.0.2.1:8000: "),
        ("[2001:db8::1]:8000", "Can't listen on 2001:db8::1:8000: "),
    ],
)
def test_an_unusable_address_is_reported_in_one_line(tmp_path: Path, address: str, message: str) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    with started(tmp_path, "-b", address.replace("{tmp}", str(tmp_path))) as server:
        assert server.process.wait(60) == 1
        (line,) = [line for line in server.log.splitlines() if "CRITICAL" in line]
        assert message.replace("{tmp}", str(tmp_path)) in line
        assert "Traceback" not in server.log
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"


AS_SYSTEMD = (
    "import fcntl, os, sys\n"
    "count = int(sys.argv[1])\n"
    "given = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 30) for number in sys.argv[2 : 2 + count]]\n"
    "for place, number in enumerate(given, 3): os.dup2(number, place)\n"
    "os.environ.setdefault('LISTEN_PID', str(os.getpid()))\n"
    "os.execv(sys.argv[2 + count], sys.argv[2 + count :])"
)
"""systemd passes sockets as file descriptors, beginning with 3 (sd_listen_fds(3))."""


def test_a_server_uses_the_sockets_of_systemd(tmp_path: Path) -> None:
    """This works before and after a reload, with sockets of several kinds, although PORT is in use."""
    path = str(tmp_path / "socket")
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.create_server(("127.0.0.1", 0)) as busy,
        socket.socket(socket.AF_UNIX) as unix,
    ):
        unix.bind(path)
        unix.listen()
        numbers = [tcp.fileno(), unix.fileno()]
        systemd = [sys.executable, "-c", AS_SYSTEMD, "2", *map(str, numbers)]
        port = str(busy.getsockname()[1])
        with started(tmp_path, through=systemd, pass_fds=numbers, PORT=port, LISTEN_FDS="2") as server:
            url = f"http://127.0.0.1:{tcp.getsockname()[1]}"
            assert f"Listening at: {url},unix:{path} " in server.log
            for _ in range(2):
                assert all(requests.get(f"{url}/healthz", timeout=60).ok for _ in range(8))
                assert _ask(path, _get("/healthz", "1.1", "Host: x")).status == 200
                server.reload()
            assert f"open {url}/\n" in server.log
    assert Path(path).exists()  # systemd owns the socket


def test_sockets_meant_for_another_process_are_reported(tmp_path: Path) -> None:
    port = free_port()
    with started(tmp_path, LISTEN_FDS="1", LISTEN_PID="1", PORT=str(port)) as server:
        assert "LISTEN_FDS is meant for process 1, not for this one" in server.log
        _wait_for(f"http://127.0.0.1:{port}")
