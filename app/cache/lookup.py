"""The hit path below HTTP: finding an object in the cache directory.

A hit takes no lock, does not write to the index and does not read the body. It opens the file, calls `fstat`
and compares the result with a table of known files in memory. A file that is not in the table is identified
by its *stamp* if the object is immutable, or by its row in the index if the object is mutable.

The stamp is part of the file's mtime. The whole seconds of the mtime are the time that front servers such as
nginx send as Last-Modified. The nanoseconds, the stamp, are a checksum of the key, the seconds and the size.
If someone truncates or overwrites the file, or moves a different file to its path, the stamp does not match.
Only files whose bytes match the digest for their key get a stamp. An older version of this software used a
different checksum, and stamped every file whose key had the right shape.
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
from app.core.object_keys import looks_immutable
from app.core.objects import CONTENT_TYPES, Body, ObjectFacts, StoredObject, version_tag
from app.core.variant_keys import source_of

MAX_KNOWN_FILES = 20_000
"""Maximum number of files in a process's table. Each takes about 700 bytes of memory."""

_EXTENSION_SECONDS = 5.0
_FOREVER = float("inf")

_ACCESS_RESOLUTION_NS = 10**8
"""Minimum interval between two updates of a file's atime, in nanoseconds."""

_NS_PER_SECOND = 10**9
_STAMPED_TYPES = {**CONTENT_TYPES, "json": "application/json"}
"""Content types of immutable files by extension. The facts about an image are cached as JSON."""

_STAMP_SALT = "proven "

Load = Callable[[str | None], StoredObject | None]
"""Function that fetches an object, or returns None if the object's entity tag still equals the argument."""


class CacheStatus(Enum):
    """How the cache handled a request. Most of the terms come from RFC 9211."""

    HIT = "hit"
    MISS = "miss"
    COLLAPSED = "collapsed"
    REVALIDATED = "revalidated"
    STALE = "stale"
    BYPASS = "bypass"


@dataclass(frozen=True, slots=True)
class CachedObject:
    """An object to send: its `ObjectFacts`, its body positioned at the first byte, and the cache status.

    The body is a file. With the status BYPASS, it may be a stream from the store instead. The caller must
    close the body.
    """

    facts: ObjectFacts
    body: Body
    status: CacheStatus


class OpenFile:
    """A file that is open for reading. Creating one takes half as long as calling the built-in `open`."""

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def fileno(self) -> int:
        """Return the descriptor, for `sendfile`."""
        return self._descriptor

    def read(self, size: int = -1, /) -> bytes:
        """Return at most `size` bytes, or all remaining bytes if `size` is negative."""
        if size >= 0:
            return os.read(self._descriptor, size)
        chunks = []
        while chunk := os.read(self._descriptor, 1024 * 1024):
            chunks.append(chunk)
        return b"".join(chunks)

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Set the position in the file and return it."""
        return os.lseek(self._descriptor, offset, whence)

    def close(self) -> None:
        """Close the descriptor; a second call does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Found:
    """An open file with its facts. Until the Unix time `fresh_until`, it may be served without revalidation.

    `is_stale` is True if `fresh_until` was extended because the store had failed.
    """

    facts: ObjectFacts
    file: OpenFile
    fresh_until: float
    is_stale: bool


@dataclass(frozen=True, slots=True)
class _KnownFile:
    """The state of a file when it was last identified."""

    path: str
    facts: ObjectFacts
    inode: int
    version: int
    fresh_until: float
    is_stale: bool = False


class Lookup:
    """Opens cached files. A mutable object is fresh for `ttl` seconds after its last validation.

    `clock` returns the Unix time. Methods raise `OSError` and `sqlite3.Error` if the cache directory can't be
    used.
    """

    def __init__(self, layout: Layout, index: Index, ttl: float, clock: Callable[[], float]) -> None:
        self._layout = layout
        self._index = index
        self._ttl = ttl
        self._max_fresh_seconds = max(ttl, _EXTENSION_SECONDS)
        self._clock = clock
        # To find its oldest item, a dict would have to skip thousands of removed items. This one does not.
        self._known: OrderedDict[str, _KnownFile] = OrderedDict()

    def find(self, key: str) -> Found | None:
        """Return the object's file, fresh or stale. Return None if no file exists or can be identified."""
        known = self._known.get(key)
        if known is not None and (found := self._open(key, known.path, known)):
            return found
        for path in self._layout.paths(key):
            # The file moves to its other path when the object is proven to be immutable, or no longer is.
            if (known is None or path != known.path) and (found := self._open(key, path, None)):
                return found
        return None

    def find_immutable(self, key: str) -> Found | None:
        """Return the file of an immutable object, or None if there is none. Doesn't read the index."""
        known = self._known.get(key)
        if known is None:
            if not looks_immutable(source_of(key)):  # such a key may not be safe as a path
                return None
            return self._open(key, self._layout.immutable_path(key), None)
        return self._open(key, known.path, known) if known.facts.is_immutable else None

    def is_valid(self, found: Found, since: float) -> bool:
        """Return whether an object is fresh, or the store has confirmed it after the Unix time `since`."""
        return found.fresh_until >= self._clock() or found.fresh_until - self._ttl >= since

    def extend_freshness(self, key: str) -> None:
        """Treat a stale object as fresh for a few more seconds. Call this when the store has failed."""
        known = self._known.get(key)
        if known is not None:
            self._known[key] = replace(known, fresh_until=self._clock() + _EXTENSION_SECONDS, is_stale=True)

    def _open(self, key: str, path: str, known: _KnownFile | None) -> Found | None:
        try:
            file = OpenFile(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            stat = os.fstat(file.fileno())
            if known is None or not self._is_unchanged(known, stat):
                known = self._identify(key, path, stat)
            if known is not None:
                _record_access(file, stat)
                return Found(known.facts, file, known.fresh_until, known.is_stale)
        except BaseException:
            file.close()
            raise
        file.close()
        return None

    def _is_unchanged(self, known: _KnownFile, stat: os.stat_result) -> bool:
        """Return whether `stat` matches the known file and the object is still fresh."""
        seen = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        same = seen == (known.inode, known.version, known.facts.size)
        left = known.fresh_until - self._clock()
        return same and (left == _FOREVER or 0 <= left <= self._max_fresh_seconds)

    def _identify(self, key: str, path: str, stat: os.stat_result) -> _KnownFile | None:
        by_stamp = self._layout.is_immutable_path(path)
        known = (self._by_stamp if by_stamp else self._by_row)(key, path, stat)
        if known is not None:
            if len(self._known) >= MAX_KNOWN_FILES:
                with suppress(KeyError):  # another thread emptied the table in the meantime
                    self._known.popitem(last=False)
            self._known[key] = known
        return known

    def _by_stamp(self, key: str, path: str, stat: os.stat_result) -> _KnownFile | None:
        facts = stamped_facts(key, stat)
        return None if facts is None else _KnownFile(path, facts, stat.st_ino, stat.st_mtime_ns, _FOREVER)

    def _by_row(self, key: str, path: str, stat: os.stat_result) -> _KnownFile | None:
        entry = self._index.get(key)
        if entry is None or entry.facts.is_immutable:  # the row describes the file at the other path
            return None
        if (entry.facts.size, entry.version) != (stat.st_size, stat.st_mtime_ns):
            return None
        now = self._clock()  # if the clock was set back, the age of the validation is unknown
        fresh_until = entry.validated_at + self._ttl if entry.validated_at <= now else now - 1
        return _KnownFile(path, entry.facts, stat.st_ino, entry.version, fresh_until)


def stamped_mtime(facts: ObjectFacts) -> int:
    """Return the mtime, in nanoseconds, to set on the file of an immutable object."""
    seconds = int(facts.last_modified.timestamp())
    return seconds * _NS_PER_SECOND + _stamp(_STAMP_SALT + facts.key, seconds, facts.size)


def stamped_facts(key: str, stat: os.stat_result) -> ObjectFacts | None:
    """Return the facts of the immutable object `key`, or None if the stamp of its file does not match."""
    return _facts(key, stat, _STAMP_SALT)


def unproven_facts(key: str, stat: os.stat_result) -> ObjectFacts | None:
    """Return the facts if the file has the stamp of an older version of this software, else None.

    Such a file is complete, but its bytes were not compared with the digest in its key.
    """
    return _facts(key, stat, "")


def _facts(key: str, stat: os.stat_result, salt: str) -> ObjectFacts | None:
    seconds, stamp = divmod(stat.st_mtime_ns, _NS_PER_SECOND)
    if stamp != _stamp(salt + key, seconds, stat.st_size):
        return None
    modified = datetime.fromtimestamp(seconds, UTC)
    content_type = _STAMPED_TYPES[key.rpartition(".")[2]]
    etag = version_tag(modified, stat.st_size)
    return ObjectFacts(key, stat.st_size, content_type, etag, modified, is_immutable=True)


def _stamp(text: str, seconds: int, size: int) -> int:
    return zlib.crc32(f"{text} {seconds} {size}".encode()) % _NS_PER_SECOND


def _record_access(file: OpenFile, stat: os.stat_result) -> None:
    """Set the file's atime to the current time. Eviction uses it to find the least recently used files.

    With relatime, the kernel itself updates atime only once a day.
    """
    now = time.time_ns()
    if now - stat.st_atime_ns > _ACCESS_RESOLUTION_NS:
        with suppress(OSError):  # the file system may have become read-only
            os.utime(file.fileno(), ns=(now, stat.st_mtime_ns))
