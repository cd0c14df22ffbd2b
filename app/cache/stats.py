"""How many requests were answered from the cache and how many were not, for all processes together.

A small file mapped into memory, with a slot of 64 bytes, a cache line, for each process: a hit costs two
additions in memory, no lock and no call to the kernel. A process that ends leaves its slot with its counts to
the next one, which counts on.
"""

import mmap
import os
import struct
import threading
from contextlib import suppress
from dataclasses import dataclass

from app.cache.layout import Layout
from app.cache.lookup import CacheStatus
from app.core.system import claim, locked

GET_USD_PER_MILLION = 0.4
"""What S3 Standard takes for a million GET requests in us-east-1, in US dollars (https://aws.amazon.com/s3/pricing/)."""
_SLOTS = 256
_WIDTH = 64
_FIELDS = ("hits", "misses", "collapsed", "revalidated", "stale", "bypass", "bytes_served", "evicted")
_SLOT = struct.Struct(f"={len(_FIELDS)}Q")
_BYTES_SERVED = _FIELDS.index("bytes_served")
_EVICTED = _FIELDS.index("evicted")

_FIELD_OF = {
    CacheStatus.HIT: _FIELDS.index("hits"),
    CacheStatus.MISS: _FIELDS.index("misses"),
    CacheStatus.COLLAPSED: _FIELDS.index("collapsed"),
    CacheStatus.REVALIDATED: _FIELDS.index("revalidated"),
    CacheStatus.STALE: _FIELDS.index("stale"),
    CacheStatus.BYPASS: _FIELDS.index("bypass"),
}

_BROUGHT = (CacheStatus.MISS, CacheStatus.BYPASS)
"""Their bytes were asked of the store, once for each such answer."""

_process = object()
"""Another one in each process; for the process id the kernel would have to be asked each time."""

COUNTS_BYTES = _SLOTS * _WIDTH
"""What the file takes."""


@dataclass(frozen=True, slots=True)
class CountTotals:
    """How many answers there were of each result, as `CacheStatus` names them.

    `bytes_served` are the bytes of bodies that the store was not asked for;
    `evicted` are the objects that made room for others.
    """

    hits: int
    misses: int
    collapsed: int
    revalidated: int
    stale: int
    bypass: int
    bytes_served: int
    evicted: int = 0

    @property
    def requests_saved(self) -> int:
        """Answers for which the store was not asked."""
        return self.hits + self.stale + self.collapsed


class Counts:
    """The counts in `CACHE_DIR/counts`; where that can't be used, answers just are not counted."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._taking = threading.Lock()
        self._process: object = None
        self._claim = -1
        self._slot = _nobodys()

    def hit(self, size: int) -> None:
        """Count a hit whose body has `size` bytes.

        Threads lose none: the interpreter changes threads at calls and jumps, and an addition has neither.
        """
        if self._process is not _process:
            self._take_slot()
        slot = self._slot
        slot[0] += 1
        slot[_BYTES_SERVED] += size

    def add(self, status: CacheStatus, size: int) -> None:
        """Count an answer with a body of `size` bytes."""
        if self._process is not _process:
            self._take_slot()
        slot, field = self._slot, _FIELD_OF[status]
        slot[field] += 1
        if status not in _BROUGHT:
            slot[_BYTES_SERVED] += size

    def evicted(self) -> None:
        """Count an object that made room for others."""
        if self._process is not _process:
            self._take_slot()
        self._slot[_EVICTED] += 1

    def totals(self) -> CountTotals:
        """The sums over all processes, since the directory was made. Raises `OSError`."""
        data = self._layout.counts.read_bytes()[:COUNTS_BYTES]
        rows = (_SLOT.unpack_from(data, start) for start in range(0, len(data) - _WIDTH + 1, _WIDTH))
        return CountTotals(*map(sum, zip(*rows, strict=True))) if data else CountTotals(*[0] * len(_FIELDS))

    def prepare(self) -> None:
        """Make the file, and take its room on disk now: storing in memory can't say that a disk is full.

        Raises `OSError`.
        """
        self.close()
        with locked(self._layout.counts) as descriptor:
            size = os.fstat(descriptor).st_size
            os.pwrite(descriptor, bytes(max(0, COUNTS_BYTES - size)), size)

    def close(self) -> None:
        """Leave the slot to another process, with its counts; the next answer takes one again."""
        with self._taking:
            self._let_go()

    def _take_slot(self) -> None:
        """Claim a slot at a process's first answer; one that a fork has inherited is the parent's."""
        with self._taking:
            if self._process is _process:
                return
            self._let_go()
            with suppress(OSError, ValueError):  # no directory, or a file cut short
                self._slot = self._first_free()
            self._process = _process

    def _let_go(self) -> None:
        self._slot, self._process = _nobodys(), None
        if self._claim >= 0:
            os.close(self._claim)
            self._claim = -1

    def _first_free(self) -> memoryview:
        for number in range(_SLOTS):
            descriptor = claim(self._layout.locks / f"counts-{number}")
            if descriptor is not None:
                self._claim = descriptor
                return self._mapped(number)
        return _nobodys()

    def _mapped(self, number: int) -> memoryview:
        descriptor = os.open(self._layout.counts, os.O_RDWR | os.O_CLOEXEC)
        try:
            mapped = memoryview(mmap.mmap(descriptor, COUNTS_BYTES))
        finally:
            os.close(descriptor)
        return mapped[number * _WIDTH : (number + 1) * _WIDTH].cast("Q")


def _nobodys() -> memoryview:
    """A slot that nobody adds up."""
    return memoryview(bytearray(_WIDTH)).cast("Q")


def _after_fork() -> None:
    global _process
    _process = object()


os.register_at_fork(after_in_child=_after_fork)
