"""Finding an object in the cache directory: the hit path below HTTP.

No lock, no index write, no byte of the body read: open, `fstat`, and a table in memory that says what the
file is. For files that the table does not know, an immutable object's stamp or a mutable one's row says it.

What the cache answers, and how it asks the store.

What an immutable object's file says of itself, so that a hit needs no index.

Its modification time is Last-Modified in whole seconds, for front servers, and below the second a checksum of
key, time and size. A file that was cut, written over or moved there by hand has another time or size, and so
does not fit its stamp. Only files whose bytes were compared with their digest get one. The stamp of older
versions, another checksum, was given to whatever had a key of the right shape.

A file open for reading, and nothing else, at half the price of `open`.
"""

import os
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum

from app.cache.index import Index
from app.cache.layout import Layout
from app.core.objects import CONTENT_TYPES, Body, ObjectFacts, StoredObject, version_tag

Load = Callable[[str | None], StoredObject | None]
"""Asks the store for the object; given an entity tag, None says that it still has it."""


class CacheStatus(Enum):
    """The cache's result for a request (RFC 9211 has the words)."""

    HIT = "hit"
    MISS = "miss"
    COLLAPSED = "collapsed"
    REVALIDATED = "revalidated"
    STALE = "stale"
    BYPASS = "bypass"


@dataclass(frozen=True, slots=True)
class CachedObject:
    """An object to send: its facts, its body open at the first byte, and the cache's result.

    The body is a file but for BYPASS, when it comes straight from the store. The reader closes it.
    """

    facts: ObjectFacts
    body: Body
    status: CacheStatus


_SECOND = 10**9

_PROVEN = "proven "


def stamped_time(facts: ObjectFacts) -> int:
    """The modification time, in nanoseconds, for the file of an immutable object."""
    seconds = int(facts.last_modified.timestamp())
    return seconds * _SECOND + _stamp(_PROVEN + facts.key, seconds, facts.size)


def facts_of(key: str, stat: os.stat_result) -> ObjectFacts | None:
    """The facts of the immutable object `key` from its file; None where the file does not fit its stamp."""
    return _facts(key, stat, _PROVEN)


def facts_of_unproven(key: str, stat: os.stat_result) -> ObjectFacts | None:
    """The same from a file that an older version has stamped: whole, but its bytes were not compared."""
    return _facts(key, stat, "")


def _facts(key: str, stat: os.stat_result, salt: str) -> ObjectFacts | None:
    seconds, stamp = divmod(stat.st_mtime_ns, _SECOND)
    if stamp != _stamp(salt + key, seconds, stat.st_size):
        return None
    modified = datetime.fromtimestamp(seconds, UTC)
    content_type = CONTENT_TYPES[key.rpartition(".")[2]]
    etag = version_tag(modified, stat.st_size)
    return ObjectFacts(key, stat.st_size, content_type, etag, modified, is_immutable=True)


def _stamp(text: str, seconds: int, size: int) -> int:
    return zlib.crc32(f"{text} {seconds} {size}".encode()) % _SECOND


class OpenFile:
    """The file at `path`, from its first byte; raises `OSError` as `open` does."""

    __slots__ = ("_descriptor",)

    def __init__(self, path: str) -> None:
        self._descriptor = -1
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def fileno(self) -> int:
        """The descriptor, for `sendfile`."""
        return self._descriptor

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes, all that is left where negative."""
        if size >= 0:
            return os.read(self._descriptor, size)
        chunks = []
        while chunk := os.read(self._descriptor, 1024 * 1024):
            chunks.append(chunk)
        return b"".join(chunks)

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to a byte."""
        return os.lseek(self._descriptor, offset, whence)

    def close(self) -> None:
        """Give the descriptor back; a second time does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        self.close()


MAX_KNOWN_FILES = 20_000
"""Files kept in a process's memory, at some 700 bytes each."""

_POSTPONE_SECONDS = 5.0
_FOR_EVER = float("inf")

_TOUCH_NS = 10**8
"""A file's access time is set at most once in this many nanoseconds."""


@dataclass(frozen=True, slots=True)
class Found:
    """An open file, what it is, and until when (epoch seconds) it may be served without asking the store.

    `is_stale` says that this is so only because the store could not be reached a moment ago.
    """

    facts: ObjectFacts
    file: OpenFile
    fresh_until: float
    is_stale: bool


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of a file as it was when it was looked at."""

    path: str
    facts: ObjectFacts
    inode: int
    version: int
    fresh_until: float
    is_stale: bool = False


class Lookup:
    """Opens cached files; `ttl` is how many seconds a mutable object stays fresh."""

    def __init__(self, layout: Layout, index: Index, ttl: float, clock: Callable[[], float]) -> None:
        self._layout = layout
        self._index = index
        self._ttl = ttl
        self._longest = max(ttl, _POSTPONE_SECONDS)
        self._clock = clock
        # To find its oldest item, a dict passes all that were removed before it: thousands, here.
        self._known: OrderedDict[str, _Known] = OrderedDict()

    def find(self, key: str) -> Found | None:
        """The object's file, fresh or not; None where there is none that can be vouched for.

        Raises `OSError` or `sqlite3.Error` where the cache is out of order.
        """
        known = self._known.get(key)
        paths = self._layout.paths(key) if known is None else (known.path,)
        for path in paths:
            if found := self._find_at(key, path, known):
                return found
        if known is None:
            return None
        others = (path for path in self._layout.paths(key) if path != known.path)  # it may be proven by now
        return next((found for path in others if (found := self._find_at(key, path, None))), None)

    def find_immutable(self, key: str) -> Found | None:
        """Like `find`, but never ask the index: None also for what only a row can tell of."""
        known = self._known.get(key)
        if known is None:
            return self._find_at(key, self._layout.immutable_path(key), None)
        return self._find_at(key, known.path, known) if known.facts.is_immutable else None

    def _find_at(self, key: str, path: str, known: _Known | None) -> Found | None:
        try:
            file = OpenFile(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            stat = os.fstat(file.fileno())
            if known is None or not self._still_holds(known, stat):
                known = self._look_closer(key, path, stat)
            if known is not None:
                _touch(file, stat)
                return Found(known.facts, file, known.fresh_until, known.is_stale)
        except BaseException:
            file.close()
            raise
        file.close()
        return None

    def postpone(self, key: str) -> None:
        """Let a stale object count as fresh for some seconds: the store was just asked in vain."""
        known = self._known.get(key)
        if known is not None:
            self._known[key] = replace(known, fresh_until=self._clock() + _POSTPONE_SECONDS, is_stale=True)

    def _still_holds(self, known: _Known, stat: os.stat_result) -> bool:
        seen = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        same = seen == (known.inode, known.version, known.facts.size)
        left = known.fresh_until - self._clock()
        return same and (left == _FOR_EVER or 0 <= left <= self._longest)

    def _look_closer(self, key: str, path: str, stat: os.stat_result) -> _Known | None:
        by_stamp = self._layout.is_immutable_path(path)
        known = (self._by_stamp if by_stamp else self._by_row)(key, path, stat)
        if known is not None:
            self._remember(key, known)
        return known

    def _by_stamp(self, key: str, path: str, stat: os.stat_result) -> _Known | None:
        facts = facts_of(key, stat)
        return None if facts is None else _Known(path, facts, stat.st_ino, stat.st_mtime_ns, _FOR_EVER)

    def _by_row(self, key: str, path: str, stat: os.stat_result) -> _Known | None:
        entry = self._index.recall(key)
        if entry is None or entry.facts.is_immutable:  # the row is of a file at another path
            return None
        if (entry.facts.size, entry.version) != (stat.st_size, stat.st_mtime_ns):
            return None
        now = self._clock()  # where it was set back, nobody knows for how long the object was fresh
        fresh_until = entry.validated_at + self._ttl if entry.validated_at <= now else now - 1
        return _Known(path, entry.facts, stat.st_ino, entry.version, fresh_until)

    def _remember(self, key: str, known: _Known) -> None:
        if len(self._known) >= MAX_KNOWN_FILES:
            with suppress(KeyError):  # other threads were quicker
                self._known.popitem(last=False)
        self._known[key] = known


def _touch(file: OpenFile, stat: os.stat_result) -> None:
    """Set the access time, the clock of the LRU: left to itself the kernel moves it once a day (relatime)."""
    now = time.time_ns()
    if now - stat.st_atime_ns > _TOUCH_NS:
        with suppress(OSError):  # on a file system that is read-only by now
            os.utime(file.fileno(), ns=(now, stat.st_mtime_ns))
