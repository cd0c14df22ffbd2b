"""The React example: installed from its lock file, built, and served with its proxy set to a server."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import requests

from tests.ports import free_port
from tests.server.running import ROOT
from tests.waiting import wait_until

EXAMPLE = ROOT / "examples" / "react"

NPM = shutil.which("npm")


def build(directory: Path) -> Path:
    """A copy of the example in `directory`, ready to serve."""
    assert NPM is not None
    copy = directory / "react"
    shutil.copytree(EXAMPLE, copy, ignore=shutil.ignore_patterns("node_modules", "dist"))
    for command in (["ci", "--no-progress"], ["run", "build"]):
        done = subprocess.run([NPM, *command], cwd=copy, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return copy


@contextmanager
def served(copy: Path, api: str) -> Iterator[str]:
    """The URL at which Vite serves the built example, which passes `/api` on to `api`."""
    port = free_port()
    command = [str(copy / "node_modules" / ".bin" / "vite"), "preview", "--port", str(port), "--strictPort"]
    environ = {**os.environ, "IMAGE_SERVER": api}
    with subprocess.Popen(
        [*command, "--host", "127.0.0.1"], cwd=copy, env=environ, stdout=subprocess.DEVNULL
    ) as process:
        try:
            yield _wait_for(f"http://127.0.0.1:{port}")
        finally:
            process.terminate()


def _wait_for(url: str) -> str:
    def answers() -> bool:
        with suppress(requests.RequestException):
            return requests.get(url, timeout=5).ok
        return False

    wait_until(answers, seconds=90)
    return url
