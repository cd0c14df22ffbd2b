"""SIGHUP: a running server takes up the settings file as a start does, and outlives the mistakes in it."""

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.pictures import noise
from tests.ports import free_port
from tests.server.running import Running, answers, running
from tests.waiting import wait_until

OLD, NEW, SHELL = "old-key-old-key-old-key", "new-key-new-key-new-key", "shell-key-shell-key-shell"


class Reloading:
    """A server whose settings file can be changed."""

    def __init__(self, server: Running, file: Path) -> None:
        self.server = server
        self.file = file

    def reload(self, data: bytes | str, said: str = "Settings file:") -> str:
        """Write the file and send SIGHUP; return what the server says up to a line that holds `said`."""
        self.file.write_bytes(data.encode() if isinstance(data, str) else data)
        before = len(self.server.log)
        self.server.process.send_signal(signal.SIGHUP)
        return wait_until(lambda: text if said in (text := self.server.log[before:]) else "")

    def status(self, key: str) -> int:
        """What an upload with this key is answered, by a worker that has started."""
        headers = {"Authorization": f"Bearer {key}"}
        url = f"{self.server.url}/api/images"
        return requests.post(url, files={"image": noise(1)}, headers=headers, timeout=60).status_code

    def wait_for(self, key: str, status: int) -> None:
        """The old workers end a moment after the new ones have started."""
        wait_until(lambda: all(self.status(key) == status for _ in range(4)))


@pytest.fixture
def reloading(tmp_path: Path) -> Iterator[Reloading]:
    """One with two workers."""
    file = tmp_path / "settings"
    file.write_text(f"API_KEYS={OLD}\n", encoding="utf-8")
    file.chmod(0o600)
    with running(tmp_path, ENV_FILE=str(file), WEB_CONCURRENCY="2") as server:
        yield Reloading(server, file)


def test_a_key_revoked_in_the_file_is_refused_after_a_reload(reloading: Reloading) -> None:
    assert (reloading.status(OLD) in (200, 201), reloading.status(NEW)) == (True, 403)
    reloading.reload(f"API_KEYS={NEW}\n")
    reloading.wait_for(OLD, 403)
    assert reloading.status(NEW) == 200
    reloading.reload("# no key at all: programs on this machine need none\n")
    wait_until(lambda: requests.get(f"{reloading.server.url}/api/images", timeout=60).status_code == 200)


def test_a_worker_that_replaces_another_has_its_settings(reloading: Reloading) -> None:
    """Not what stands in the file meanwhile, whether that is right or wrong."""
    reloading.file.write_text(f"API_KEYS={NEW}\nPORT=nonsense\n", encoding="utf-8")
    old = reloading.server.workers()
    for pid in old:
        os.kill(pid, signal.SIGKILL)
    wait_until(
        lambda: len(reloading.server.workers()) == 2 and not set(reloading.server.workers()) & set(old)
    )
    assert (reloading.status(OLD) in (200, 201), reloading.status(NEW)) == (True, 403)


def test_what_the_shell_exported_wins_after_a_reload_as_well(tmp_path: Path) -> None:
    file = tmp_path / "settings"
    file.write_text(f"API_KEYS={OLD}\nLOG_FORMAT=json\n", encoding="utf-8")
    file.chmod(0o600)
    with running(tmp_path, ENV_FILE=str(file), WEB_CONCURRENCY="1", API_KEYS=SHELL) as server:
        reloading = Reloading(server, file)
        assert '"logger":"access"' in server.log
        reloading.reload(f"API_KEYS={NEW}\n")
        reloading.wait_for(NEW, 403)
        assert reloading.status(SHELL) in (200, 201)
        assert " INFO [" in server.log  # the format is that of the default again, of the access log as well
        assert any("access: 127.0.0.1" in line for line in server.log.splitlines())


WRONG: dict[str, tuple[bytes, str]] = {
    "a value": (b"THREADS=nonsense\nCACHE_TTL=x", "THREADS=nonsense: is not a whole number"),
    "Latin-1": (b"API_KEYS=a\nS3_BUCKET=M\xfcller\n", "Line 2 of the settings file"),
    "UTF-16": ("API_KEYS=a\n".encode("utf-16"), "Line 1 of the settings file"),
    "a NUL": (b"API_KEYS=a\n\nPORT=8\x000\n", "Line 3 of the settings file"),
    "a class": (b"STORE=nowhere.at:All", "nowhere"),
    "a package": (b"RATELIMIT_STORAGE_URI=redis://127.0.0.1:1", "pip install redis"),
    "another file": (b"ENV_FILE=/tmp/other", "must not set ENV_FILE"),
}


def test_mistakes_in_the_file_leave_the_old_workers(reloading: Reloading) -> None:
    before = sorted(reloading.server.workers())
    for data, said in WRONG.values():
        text = reloading.reload(data, "Nothing is reloaded")
        assert said in text
        assert "Traceback" not in text
        assert OLD not in text
    reloading.file.chmod(0o666)
    assert "chmod o-w" in reloading.reload(f"API_KEYS={NEW}\n", "Nothing is reloaded")
    reloading.file.unlink()
    reloading.server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "settings can't be read: No such file" in reloading.server.log)
    assert sorted(reloading.server.workers()) == before
    assert reloading.status(OLD) in (200, 201)


@pytest.mark.parametrize("options", ["", "--max-requests 100000"], ids=["a listener each", "one for all"])
def test_a_reload_moves_the_server_to_a_free_port_and_to_no_other(tmp_path: Path, options: str) -> None:
    """The first process must keep no listener that nobody accepts from."""
    first, second, file = free_port(), free_port(), tmp_path / "settings"
    file.write_text(f"PORT={first}\n", encoding="utf-8")
    file.chmod(0o600)
    settings = {"ENV_FILE": str(file), "PORT": "", "WEB_CONCURRENCY": "2", "GUNICORN_CMD_ARGS": options}
    with running(tmp_path, **settings) as server, socket.create_server(("127.0.0.1", 0)) as other:
        reloading, busy = Reloading(server, file), other.getsockname()[1]
        assert f"Port {busy} on 127.0.0.1 is in use" in reloading.reload(
            f"PORT={busy}", "Nothing is reloaded"
        )
        assert "HOST can't be changed" in reloading.reload(
            f"HOST=0.0.0.0\nPORT={first}\n", "Nothing is reloaded"
        )
        assert answers(server.url)
        reloading.reload(f"PORT={second}", f"open http://127.0.0.1:{second}/")
        moved = f"http://127.0.0.1:{second}"
        wait_until(lambda: answers(moved) and not answers(server.url))
        assert all(answers(moved) for _ in range(40))


def test_a_reload_changes_the_number_of_workers(tmp_path: Path) -> None:
    """One worker shares its listener with the first process, two have one each."""
    file = tmp_path / "settings"
    file.write_text("WEB_CONCURRENCY=2\n", encoding="utf-8")
    file.chmod(0o600)
    with running(tmp_path, ENV_FILE=str(file)) as server:
        reloading = Reloading(server, file)
        for count in (1, 2, 1):
            old = set(server.workers())
            reloading.reload(f"WEB_CONCURRENCY={count}\n", "open http")
            wait_until(lambda: len(server.workers()) == count and not old & set(server.workers()))  # noqa: B023
            assert all(answers(server.url) for _ in range(40))


def test_a_server_is_replaced_while_it_runs(tmp_path: Path) -> None:
    """SIGUSR2 starts a second server on the same address, SIGQUIT ends the first."""
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
            assert all(answers(server.url) for _ in range(20))
        finally:
            os.kill(new, signal.SIGQUIT)
            wait_until(lambda: (text := _text(Path(f"/proc/{new}/status"))) == "" or "State:\tZ" in text)


def _text(path: Path) -> str:
    """What the file holds, "" if there is none."""
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""
