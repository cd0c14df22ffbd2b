"""The server as users run it, which is gunicorn with gunicorn.conf.py in a separate process."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests

from tests.ports import free_port
from tests.waiting import wait_until

ROOT = Path(__file__).parent.parent.parent
GUNICORN = [str(Path(sys.executable).parent / "gunicorn"), "wsgi:app"]


@dataclass
class Running:
    """A running server with its URL, its log and its process."""

    url: str
    log_path: Path
    process: subprocess.Popen[bytes]

    @property
    def log(self) -> str:
        """Everything that it has logged."""
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def workers(self) -> list[int]:
        """Return the process IDs of its workers."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in children.read_text(encoding="ascii").split()]


@contextmanager
def running(directory: Path, **settings: str) -> Iterator[Running]:
    """Start a server on a free port, with its data in `directory`, and stop it after the block.

    A setting that is "" is not exported, so that a settings file can set it.
    """
    with open(directory / "server.log", "wb") as log:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        defaults = {
            "PORT": str(free_port()),
            "CACHE_DIR": str(directory / "cache"),
            "LOCAL_STORE_DIR": str(directory / "store"),
            "STATE_DIR": str(directory / "state"),
            "ENV_FILE": os.devnull,
        }
        environ = {name: value for name, value in {**environ, **defaults, **settings}.items() if value}
        process = subprocess.Popen(GUNICORN, cwd=ROOT, env=environ, stdout=log, stderr=log)
    try:
        quiet = settings.get("LOG_LEVEL", "INFO") not in ("INFO", "DEBUG")
        unlogged = f"http://127.0.0.1:{settings.get('PORT', defaults['PORT'])}" if quiet else ""
        yield Running(
            _wait_for_url(directory / "server.log", process, unlogged), directory / "server.log", process
        )
    finally:
        process.send_signal(signal.SIGQUIT)
        process.wait(60)  # a worker that is still starting misses the signal and is killed after 30 s


def answers(url: str) -> bool:
    """Return whether the server answers. Each worker opens its listener after the URL is logged."""
    try:
        return requests.get(f"{url}/healthz", timeout=10).ok
    except requests.RequestException:
        return False


def _wait_for_url(log: Path, process: subprocess.Popen[bytes], unlogged: str) -> str:
    """Wait until the server answers. Return the URL in the log, or `unlogged` if the server logs none."""

    def url() -> str:
        assert process.poll() is None, log.read_text(encoding="utf-8")
        found = [unlogged] if unlogged else re.findall(r"open (http://\S+)/", log.read_text(encoding="utf-8"))
        return str(found[-1]) if found and answers(found[-1]) else ""

    try:
        return wait_until(url, seconds=90)
    except AssertionError as exc:
        raise AssertionError(log.read_text(encoding="utf-8")) from exc
