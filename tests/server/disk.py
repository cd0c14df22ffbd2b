"""A small file system that is quickly full."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_file_system(at: Path) -> Iterator[Path]:
    """Mount a file system of 3 MiB at `at`. Skip the test if this is not allowed."""
    at.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(at)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system is not permitted here")
    try:
        yield at
    finally:
        subprocess.run(["umount", "-l", str(at)], check=True)
