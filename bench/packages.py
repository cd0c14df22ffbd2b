"""Installs other servers and tools for benchmarks, outside of this project's virtual environment.

They are kept in BENCH_DIR, by default `~/.cache/s3-image-server-bench`, since their installation takes long.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.progress import say

_INSTALL_SECONDS = 600.0


class NotInstalledError(Exception):
    """A package can't be installed on this machine. The text says why."""


def npm_package(name: str, version: str) -> Path:
    """Install a package from npm, unless it is installed. Return the directory that has its `node_modules`.

    Raises `NotInstalledError` if that fails.
    """
    if not shutil.which("node") or not shutil.which("npm"):
        raise NotInstalledError(f"{name} needs node and npm, which are not installed.")

    def install(directory: Path) -> None:
        options = ("--no-fund", "--no-audit", "--prefix", str(directory))
        _run(name, ("npm", "install", *options, f"{name}@{version}"))

    return _kept(f"{name}-{version}", install)


def python_with(*requirements: str) -> Path:
    """Install packages from PyPI into a new virtual environment. Return the path of its interpreter.

    Raises `NotInstalledError` if that fails.
    """
    name = requirements[0].partition("==")[0]

    def install(directory: Path) -> None:
        _run(name, (sys.executable, "-m", "venv", str(directory)))
        options = ("--quiet", "--disable-pip-version-check")
        _run(name, (str(directory / "bin" / "python"), "-m", "pip", "install", *options, *requirements))

    return _kept("-".join(requirements).replace("==", "-"), install) / "bin" / "python"


def _kept(name: str, install: Callable[[Path], None]) -> Path:
    root = Path(os.environ.get("BENCH_DIR") or Path.home() / ".cache" / "s3-image-server-bench")
    directory = root / name
    complete = directory / "installed"
    if not complete.exists():
        say(f"installing {name} into {root}")
        shutil.rmtree(directory, ignore_errors=True)  # an installation that was interrupted
        directory.mkdir(parents=True)
        install(directory)
        complete.touch()
    return directory


def _run(name: str, command: Sequence[str]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=_INSTALL_SECONDS)
    except subprocess.CalledProcessError as exc:
        last = (exc.stderr.strip().splitlines() or ["no message"])[-1]
        raise NotInstalledError(f"{name} can't be installed: {last}") from exc
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise NotInstalledError(f"{name} can't be installed: {exc}") from exc
