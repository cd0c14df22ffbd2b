"""Tests of SIGHUP. A running server applies the settings file and survives mistakes in it."""

import os
import signal
import socket
from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Self

import pytest
import requests

from app.config.settings import Config
from app.core.errors import ConfigError
from app.generators.builtin import BuiltinGenerator
from app.stores.local import LocalStore
from tests.pictures import noise
from tests.ports import free_port
from tests.server.running import Running, answers, running
from tests.waiting import wait_until

OLD, NEW, SHELL = "old-key-old-key-old-key", "new-key-new-key-new-key", "shell-key-shell-key-shell"


class Reloading:
    """A running server and its settings file."""

    def __init__(self, server: Running, file: Path) -> None:
        self.server = server
        self.file = file

    def reload(self, data: bytes | str, message: str = "Settings file:") -> str:
        """Write the file and send SIGHUP. Return the new part of the log as soon as it contains `message`."""
        self.file.write_bytes(data.encode() if isinstance(data, str) else data)
        before = len(self.server.log)
        self.server.process.send_signal(signal.SIGHUP)
        return wait_until(lambda: text if message in (text := self.server.log[before:]) else "")

    def status(self, key: str) -> int:
        """Return the status of an upload with this key."""
        headers = {"Authorization": f"Bearer {key}"}
        url = f"{self.server.url}/api/images"
        return requests.post(url, files={"image": noise(1)}, headers=headers, timeout=60).status_code

    def settle(self, old: Collection[int]) -> None:
        """Wait until these workers have exited and new workers answer."""
        wait_until(lambda: not set(old) & set(self.server.workers()) and answers(self.server.url))


@pytest.fixture
def reloading(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Reloading]:
    """Start a server with two workers. The fixture's parameter is an option of gunicorn."""
    file = tmp_path / "settings"
    file.write_text(f"API_KEYS={OLD}\n", encoding="utf-8")
    file.chmod(0o600)
    options = getattr(request, "param", "")
    with running(tmp_path, ENV_FILE=str(file), WEB_CONCURRENCY="2", GUNICORN_CMD_ARGS=options) as server:
        wait_until(
            lambda: len(server.workers()) == 2
        )  # the first worker answers before the second one has started
        yield Reloading(server, file)


@pytest.mark.parametrize("reloading", ["", "--preload"], indirect=True)
def test_a_key_that_is_removed_from_the_file_is_rejected_after_a_reload(reloading: Reloading) -> None:
    assert (reloading.status(OLD) in (200, 201), reloading.status(NEW)) == (True, 403)
    old = reloading.server.workers()
    reloading.reload(f"API_KEYS={NEW}\n")
    reloading.settle(old)
    assert [reloading.status(OLD) for _ in range(4)] == [403] * 4
    assert reloading.status(NEW) == 200
    old = reloading.server.workers()
    reloading.reload("# no key at all: programs on this machine need none\n")
    reloading.settle(old)
    assert requests.get(f"{reloading.server.url}/api/images", timeout=60).status_code == 200


def test_a_replaced_worker_keeps_the_old_settings(reloading: Reloading) -> None:
    """It does not use the new content of the file, whether it is valid or not."""
    reloading.file.write_text(f"API_KEYS={NEW}\nPORT=nonsense\n", encoding="utf-8")
    old = reloading.server.workers()
    for pid in old:
        os.kill(pid, signal.SIGKILL)
    reloading.settle(old)
    assert (reloading.status(OLD) in (200, 201), reloading.status(NEW)) == (True, 403)


def test_exported_variables_override_the_file_even_after_a_reload(tmp_path: Path) -> None:
    file = tmp_path / "settings"
    file.write_text(f"API_KEYS={OLD}\nLOG_FORMAT=json\n", encoding="utf-8")
    file.chmod(0o600)
    with running(tmp_path, ENV_FILE=str(file), WEB_CONCURRENCY="1", API_KEYS=SHELL) as server:
        reloading = Reloading(server, file)
        wait_until(lambda: '"logger":"access"' in server.log)
        old = server.workers()
        reloading.reload(f"API_KEYS={NEW}\n")
        reloading.settle(old)
        assert (reloading.status(NEW), reloading.status(SHELL) in (200, 201)) == (403, True)
        # The format is the default again, including the format of the access log.
        wait_until(lambda: " INFO [" in server.log and "access: 127.0.0.1" in server.log)


@pytest.mark.parametrize("option", ["", "--preload"])
def test_an_exported_prefix_survives_a_reload(tmp_path: Path, option: str) -> None:
    """gunicorn must not see it in the workers, since they also answer paths without the prefix."""
    (tmp_path / "settings").touch(0o600)
    settings = {"ENV_FILE": str(tmp_path / "settings"), "SCRIPT_NAME": "/img", "WEB_CONCURRENCY": "1"}
    with running(tmp_path, GUNICORN_CMD_ARGS=option, **settings) as server:
        reloading = Reloading(server, tmp_path / "settings")
        for _ in range(2):
            old = server.workers()
            reloading.reload("")
            reloading.settle(old)
            for path in ("/img/openapi.json", "/openapi.json"):
                answer = requests.get(f"{server.url}{path}", timeout=60)
                assert (answer.status_code, answer.json()["servers"]) == (200, [{"url": "/img"}])


class Unusable(LocalStore):
    """A custom store that fails to start."""

    @classmethod
    def from_config(cls, config: Config) -> Self:
        """Raise."""
        raise ConfigError("This store can't be used today.")


class Crashing(BuiltinGenerator):
    """A custom generator with a bug."""

    @classmethod
    def from_config(cls, config: Config) -> Self:
        """Raise."""
        raise ZeroDivisionError


WRONG: dict[str, tuple[bytes, str]] = {
    "a value": (b"THREADS=nonsense\nCACHE_TTL=x", "THREADS=nonsense: is not a whole number"),
    "Latin-1": (b"API_KEYS=a\nS3_BUCKET=M\xfcller\n", "Line 2 of the settings file"),
    "UTF-16": ("API_KEYS=a\n".encode("utf-16"), "Line 1 of the settings file"),
    "a NUL": (b"API_KEYS=a\n\nPORT=8\x000\n", "Line 3 of the settings file"),
    "a class": (b"STORE=nowhere.at:All", "nowhere"),
    "a start that fails": (f"STORE={__name__}:Unusable".encode(), "This store can't be used today."),
    "a start that crashes": (f"GENERATOR={__name__}:Crashing".encode(), "ZeroDivisionError"),
    "another file": (b"ENV_FILE=/tmp/other", "must not set ENV_FILE"),
}


def test_mistakes_in_the_file_leave_the_old_workers_running(reloading: Reloading) -> None:
    before = sorted(reloading.server.workers())
    for data, message in WRONG.values():
        text = reloading.reload(data, "Nothing was reloaded")
        assert message in text
        assert "Traceback" not in text
        assert OLD not in text
    reloading.file.chmod(0o666)
    assert "chmod o-w" in reloading.reload(f"API_KEYS={NEW}\n", "Nothing was reloaded")
    reloading.file.unlink()
    reloading.server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "can't be read: No such file" in reloading.server.log)
    assert sorted(reloading.server.workers()) == before
    assert reloading.status(OLD) in (200, 201)


@pytest.mark.parametrize("each", [True, False], ids=["own listeners", "shared listener"])
def test_a_reload_moves_the_server_only_to_a_free_address(tmp_path: Path, each: bool) -> None:
    """The arbiter must not keep a listener on which no worker accepts connections."""
    first, second, file = free_port(), free_port(), tmp_path / "settings"
    file.write_text(f"PORT={first}\n", encoding="utf-8")
    file.chmod(0o600)
    settings = {
        "ENV_FILE": str(file),
        "PORT": "",
        "WEB_CONCURRENCY": "2",
        "GUNICORN_CMD_ARGS": "" if each else "--max-requests 100000",
    }
    with running(tmp_path, **settings) as server, socket.create_server(("127.0.0.1", 0)) as other:
        reloading, busy = Reloading(server, file), other.getsockname()[1]
        assert f"Port {busy} on 127.0.0.1 is in use" in reloading.reload(
            f"PORT={busy}", "Nothing was reloaded"
        )
        everywhere = f"HOST=0.0.0.0\nPORT={first}\n"
        if each:
            old = server.workers()
            reloading.reload(everywhere, f"Listening at: http://0.0.0.0:{first}")
            reloading.settle(old)
            assert all(answers(server.url) for _ in range(20))
        else:
            assert "HOST can't be changed" in reloading.reload(everywhere, "Nothing was reloaded")
        assert answers(server.url)
        reloading.reload(f"PORT={second}", f"open http://127.0.0.1:{second}/")
        moved = f"http://127.0.0.1:{second}"
        wait_until(lambda: answers(moved) and not answers(server.url))
        assert all(answers(moved) for _ in range(40))


def test_the_server_keeps_its_address_if_the_new_host_is_unavailable(tmp_path: Path) -> None:
    port, file = free_port(), tmp_path / "settings"
    file.write_text(f"PORT={port}\n", encoding="utf-8")
    file.chmod(0o600)
    with (
        running(tmp_path, ENV_FILE=str(file), PORT="", WEB_CONCURRENCY="2") as server,
        socket.create_server(("127.0.0.2", port)),
    ):
        reloading = Reloading(server, file)
        for host, message in {
            "203.0.113.77": "Can't listen on HOST=203.0.113.77",  # not an address of this machine
            "nowhere.invalid": "Can't listen on HOST=nowhere.invalid",
            "127.0.0.2": f"Port {port} on 127.0.0.2 is in use",
        }.items():
            assert message in reloading.reload(f"HOST={host}\nPORT={port}\n", "Nothing was reloaded")
        assert server.process.poll() is None
        assert all(answers(server.url) for _ in range(20))


def test_a_reload_changes_the_number_of_workers(tmp_path: Path) -> None:
    """A single worker shares its listener with the arbiter, but each of two workers has its own."""
    file = tmp_path / "settings"
    file.write_text("WEB_CONCURRENCY=2\n", encoding="utf-8")
    file.chmod(0o600)
    with running(tmp_path, ENV_FILE=str(file)) as server:
        reloading = Reloading(server, file)
        for count in (1, 2, 1):
            old = set(server.workers())
            reloading.reload(f"WEB_CONCURRENCY={count}\n", "open http")
            reloading.settle(old)
            # A worker that was forked in the meantime may still be exiting.
            wait_until(partial(_has_workers, server, count))
            assert all(answers(server.url) for _ in range(40))


def _has_workers(server: Running, count: int) -> bool:
    return len(server.workers()) == count


def test_a_server_is_replaced_while_it_runs(tmp_path: Path) -> None:
    """SIGUSR2 starts a second server on the same address, and SIGQUIT stops the first."""
    pid_file = tmp_path / "pid"
    options = f"--pid {pid_file}"
    with running(tmp_path, WEB_CONCURRENCY="2", GUNICORN_CMD_ARGS=options) as server:
        server.process.send_signal(signal.SIGUSR2)
        new = int(
            wait_until(lambda: Path(f"{pid_file}.2").read_text() if Path(f"{pid_file}.2").exists() else "")
        )
        try:
            wait_until(lambda: server.log.count("open http") == 2)
            server.process.send_signal(signal.SIGQUIT)
            server.process.wait(60)
            wait_until(lambda: answers(server.url))
            assert all(answers(server.url) for _ in range(20))
        finally:
            os.kill(new, signal.SIGQUIT)
            wait_until(lambda: (text := _text(Path(f"/proc/{new}/status"))) == "" or "State:\tZ" in text)


def _text(path: Path) -> str:
    """Return the text of the file, or "" if there is no file."""
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""
