"""Finding an object in the cache directory: the hit path below HTTP.

No lock, no index write, no byte of the body read: open, `fstat`, and a table in memory that says what the
file is. The index is asked only for files that the table does not know as they are.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from io import FileIO

from app.cache.index import Entry, Index
from app.cache.layout import Layout
from app.keys import is_immutable
from app.objects import ObjectFacts

_REMEMBERED = 10_000
"""Rows kept in a process's memory, at some 600 bytes each."""

_POSTPONE_SECONDS = 5.0

_TOUCH_NS = 10**9
"""A file's access time is set at most once in this many nanoseconds."""


@dataclass(frozen=True, slots=True)
class Found:
    """An open file, what it is, and until when (epoch seconds) it may be served without asking the store.

    `is_stale` says that this is so only because the store could not be reached a moment ago.
    """

    facts: ObjectFacts
    file: FileIO
    fresh_until: float
    is_stale: bool


@dataclass(frozen=True, slots=True)
class _Known:
    entry: Entry
    inode: int
    fresh_until: float
    is_stale: bool = False

    def describes(self, stat: os.stat_result) -> bool:
        """Whether the file is the one that the row was written for, and not cut or swapped since."""
        entry = self.entry
        return (stat.st_ino, stat.st_size, stat.st_mtime_ns) == (self.inode, entry.facts.size, entry.version)


class Lookup:
    """Opens cached files; `ttl` is how many seconds a mutable object stays fresh."""

    def __init__(self, layout: Layout, index: Index, ttl: float, clock: Callable[[], float]) -> None:
        self._layout = layout
        self._index = index
        self._ttl = ttl
        self._clock = clock
        self._known: dict[str, _Known] = {}

    def find(self, key: str) -> Found | None:
        """The object's file, fresh or not; None where there is none that the index vouches for.

        Raises `OSError` or `sqlite3.Error` where the cache is out of order.
        """
        try:
            file = open(self._layout.path(key), "rb", buffering=0)  # noqa: SIM115 (the reader closes it)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            stat = os.fstat(file.fileno())
            known = self._describe(key, stat)
            if known is not None:
                _touch(file, stat)
        except BaseException:
            file.close()
            raise
        if known is None:
            file.close()
            return None
        return Found(known.entry.facts, file, known.fresh_until, known.is_stale)

    def postpone(self, key: str) -> None:
        """Let a stale object count as fresh for some seconds: the store was just asked in vain."""
        known = self._known.get(key)
        if known is not None:
            self._known[key] = replace(known, fresh_until=self._clock() + _POSTPONE_SECONDS, is_stale=True)

    def _describe(self, key: str, stat: os.stat_result) -> _Known | None:
        known = self._known.get(key)
        if known is not None and known.describes(stat) and known.fresh_until >= self._clock():
            return known
        return self._recall(key, stat)

    def _recall(self, key: str, stat: os.stat_result) -> _Known | None:
        entry = self._index.recall(key)
        if entry is None:
            return None
        fresh_until = float("inf") if is_immutable(key) else entry.validated_at + self._ttl
        known = _Known(entry, stat.st_ino, fresh_until)
        if not known.describes(stat):
            return None
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known[key] = known
        return known


def _touch(file: FileIO, stat: os.stat_result) -> None:
    """Set the access time, the clock of the LRU: left to itself the kernel moves it once a day (relatime)."""
    now = time.time_ns()
    if now - stat.st_atime_ns > _TOUCH_NS:
        os.utime(file.fileno(), ns=(now, stat.st_mtime_ns))
