"""The file system that a directory lies on, as far as it matters to a cache.

What is out of order with the cache directory: said once, mended where it can be, and lived with.
"""

import logging
import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

CACHE_ERRORS = (OSError, sqlite3.Error)
"""What a full, read-only, vanished or corrupt cache directory raises."""

_MEND_SECONDS = 10.0
_REMEMBERED_SECONDS = 60.0
_QUIET_SECONDS = 600.0

_log = logging.getLogger(__name__)


class Disorder:
    """Notes what fails; `mend` is called with the error, once in a while."""

    def __init__(self, mend: Callable[[Exception], None]) -> None:
        self._mend = mend
        self._failed_at = self._said_at = self._mended_at = float("-inf")

    @property
    def is_present(self) -> bool:
        """Whether something failed in the last minute, and nothing of the kind has succeeded since."""
        return time.monotonic() < self._failed_at + _REMEMBERED_SECONDS

    @contextmanager
    def survived(self) -> Iterator[None]:
        """Go on without the cache where it is out of order."""
        try:
            yield
        except CACHE_ERRORS as exc:
            self.note(exc)

    def note(self, exc: Exception) -> None:
        """Say what is out of order, where that is new, and try to mend it."""
        now = time.monotonic()
        if now >= self._said_at + _QUIET_SECONDS:
            self._said_at = now
            _log.error(
                "The cache is out of order, the store is asked instead: %s: %s", type(exc).__name__, exc
            )
        self._failed_at = now
        if now >= self._mended_at + _MEND_SECONDS:
            self._mended_at = now
            self._mend(exc)

    def over(self) -> None:
        """Something was written."""
        self._failed_at = float("-inf")


MOUNTS = "/proc/self/mountinfo"
"""https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html"""


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted file system: where, and of what kind, such as `ext4`."""

    point: str
    kind: str


def records_access_times(directory: str | os.PathLike[str]) -> bool:
    """Whether the kernel notes when a file is read, as for a front server's hits."""
    return not os.statvfs(directory).f_flag & getattr(os, "ST_NOATIME", 0)


def mount_of(directory: str | os.PathLike[str]) -> Mount | None:
    """The mount that holds `directory`; None where the system does not tell."""
    path = os.path.realpath(directory)
    try:
        with open(MOUNTS, encoding="utf-8", errors="surrogateescape") as table:
            mounts = [_parsed(line) for line in table]
    except OSError:
        return None
    holding = [mount for mount in mounts if os.path.commonpath((path, mount.point)) == mount.point]
    # A later mount hides an earlier one at the same place.
    return max(reversed(holding), key=lambda mount: len(mount.point), default=None)


def _parsed(line: str) -> Mount:
    before, _, after = line.partition(" - ")
    return Mount(
        re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), before.split(" ")[4]), after.split(" ")[0]
    )
