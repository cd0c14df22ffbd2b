"""Which process a temporary file or a reservation belongs to, and whether that process still lives.

A process holds a lock on a file of its own for as long as it lives: the kernel lets go of it however the
process ends, so a lock that can be taken is that of a dead owner. Process ids would be used again.
"""

import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

from app.filelock import lock, lock_now


class Owner:
    """This process, as the owner of a directory below `tmp`."""

    def __init__(self, tmp: Path) -> None:
        self._tmp = tmp
        self._pid = 0
        self._descriptor = -1
        self._token = ""

    def token(self) -> str:
        """This process's name; new after a fork."""
        if self._pid != os.getpid():
            self._claim()
        return self._token

    def new_path(self) -> str:
        """A path for a file to write, in this process's directory."""
        return f"{self._tmp}/{self.token()}/{secrets.token_hex(8)}"

    def reclaim(self, before: Callable[[str], None]) -> None:
        """Remove what dead owners left, calling `before` with each one's token first."""
        self.token()
        for path in self._tmp.glob("*.lock"):
            if path.stem != self._token:
                self._reclaim_if_dead(path, before)

    def close(self) -> None:
        """Give up the claim."""
        if self._pid == os.getpid():
            shutil.rmtree(self._tmp / self._token, ignore_errors=True)
            (self._tmp / f"{self._token}.lock").unlink(missing_ok=True)
            os.close(self._descriptor)
            self._pid = 0

    def _claim(self) -> None:
        while True:
            token = secrets.token_hex(8)
            path = self._tmp / f"{token}.lock"
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                lock(descriptor)
            except OSError:
                os.close(descriptor)
                path.unlink(missing_ok=True)
                raise
            if os.fstat(descriptor).st_nlink:
                break
            # Another process took it for a dead owner's between open and flock.
            os.close(descriptor)
        (self._tmp / token).mkdir()
        self._token, self._descriptor, self._pid = token, descriptor, os.getpid()

    def _reclaim_if_dead(self, path: Path, before: Callable[[str], None]) -> None:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            if lock_now(descriptor):
                before(path.stem)
                shutil.rmtree(self._tmp / path.stem, ignore_errors=True)
                path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)
