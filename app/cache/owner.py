"""The processes that use the cache, each with a directory for the files that it is writing.

Each process locks a file for its whole lifetime. The kernel releases the lock even if the process is killed,
so if another process can lock the file, the process that created the file is dead. Its process ID would not
prove this, since the system reuses process IDs.
"""

import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

from app.core.system import lock, try_lock


class Owner:
    """This process, as the owner of a directory in `tmp` and of the lock file next to it."""

    def __init__(self, tmp: Path) -> None:
        self._tmp = tmp
        self._pid = 0
        self._descriptor = -1
        self._token = ""

    def token(self) -> str:
        """Return the random name of this process. A forked process gets a new one."""
        if self._pid != os.getpid():
            self._claim()
        return self._token

    def new_path(self) -> str:
        """Return a path for a new file in this process's directory."""
        return f"{self._tmp}/{self.token()}/{secrets.token_hex(8)}"

    def reclaim(self, settle: Callable[[str], None]) -> None:
        """For each dead process, call `settle` with its token, then remove its directory and lock file."""
        self.token()
        for path in self._tmp.glob("*.lock"):
            if path.stem != self._token:
                self._reclaim_if_dead(path, settle)

    def close(self) -> None:
        """Remove the directory and the lock file. The next use creates new ones."""
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
            # Between open and flock, another process mistook this process for dead and removed the file.
            os.close(descriptor)
        (self._tmp / token).mkdir()
        self._token, self._descriptor, self._pid = token, descriptor, os.getpid()

    def _reclaim_if_dead(self, path: Path, settle: Callable[[str], None]) -> None:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            if try_lock(descriptor):
                settle(path.stem)
                shutil.rmtree(self._tmp / path.stem, ignore_errors=True)
                path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)
