"""Counts of cache hits, misses and the other results, summed over all processes.

The counts are in a small memory-mapped file. Each process has its own slot of 64 bytes, which is one CPU
cache line, so counting a hit takes two additions in memory, but no lock and no system call. When a process
has ended, the next process to start takes over the slot and continues its counts.
"""

import mmap
import os
import struct
import threading
from contextlib import suppress
from dataclasses import dataclass
from weakref import WeakSet

from app.cache.layout import Layout
from app.cache.lookup import CacheStatus
from app.core.system import claim, locked

GET_USD_PER_MILLION = 0.4
"""Price of a million GET requests to S3 Standard in us-east-1, in US dollars (https://aws.amazon.com/s3/pricing/)."""

_SLOTS = 256
_SLOT_BYTES = 64

COUNTS_BYTES = _SLOTS * _SLOT_BYTES
"""Size of the counts file in bytes."""

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

_FROM_STORE = (CacheStatus.MISS, CacheStatus.BYPASS)
"""Statuses of responses whose bodies were fetched from the store."""


@dataclass(frozen=True, slots=True)
class CountTotals:
    """The number of responses with each `CacheStatus`.

    `bytes_served` is the total size of the bodies that were not fetched from the store. `evicted` is the
    number of objects that were removed to make room for other objects.
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
        """The number of responses for which the store was not called."""
        return self.hits + self.stale + self.collapsed


class Counts:
    """The counts in `CACHE_DIR/counts`. If the file can't be used, responses are not counted."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._lock = threading.Lock()
        self._slot: memoryview | None = None  # None until this process counts something
        self._claim = -1
        _instances.add(self)

    def hit(self, size: int) -> None:
        """Count a hit whose body has `size` bytes.

        No counts are lost between threads: the interpreter switches threads only at calls and jumps, and an
        in-place addition contains neither.
        """
        slot = self._slot
        if slot is None:
            slot = self._take_slot()
        slot[0] += 1
        slot[_BYTES_SERVED] += size

    def add(self, status: CacheStatus, size: int) -> None:
        """Count a response whose body has `size` bytes."""
        slot = self._slot
        if slot is None:
            slot = self._take_slot()
        field = _FIELD_OF[status]
        slot[field] += 1
        if status not in _FROM_STORE:
            slot[_BYTES_SERVED] += size

    def evicted(self) -> None:
        """Count an object that was removed to make room for other objects."""
        slot = self._slot
        if slot is None:
            slot = self._take_slot()
        slot[_EVICTED] += 1

    def totals(self) -> CountTotals:
        """Return the counts of all processes since the cache was created, added up. Raises `OSError`."""
        data = self._layout.counts.read_bytes()[:COUNTS_BYTES]
        starts = range(0, len(data) - _SLOT_BYTES + 1, _SLOT_BYTES)
        slots = [_SLOT.unpack_from(data, start) for start in starts] or [(0,) * len(_FIELDS)]
        return CountTotals(*map(sum, zip(*slots, strict=True)))

    def prepare(self) -> None:
        """Create the file and reserve its space on disk. Raises `OSError`.

        A later write to the memory-mapped file can't report that the disk is full.
        """
        self.close()
        with locked(self._layout.counts) as descriptor:
            size = os.fstat(descriptor).st_size
            os.pwrite(descriptor, bytes(max(0, COUNTS_BYTES - size)), size)

    def close(self) -> None:
        """Give up the slot, so that another process can take it over. The next count takes a new slot."""
        with self._lock:
            self._release_claim()
            self._slot = None

    def after_fork_in_child(self) -> None:
        """Drop the parent process's slot, so that the next count takes a new one."""
        self._lock = threading.Lock()
        self._slot = None

    def _take_slot(self) -> memoryview:
        with self._lock:
            if self._slot is None:
                self._release_claim()
                slot = None
                with suppress(OSError, ValueError):  # the directory is missing, or the file was truncated
                    slot = self._free_slot()
                self._slot = slot or memoryview(bytearray(_SLOT_BYTES)).cast("Q")
            return self._slot

    def _release_claim(self) -> None:
        if self._claim >= 0:
            os.close(self._claim)
            self._claim = -1

    def _free_slot(self) -> memoryview | None:
        for number in range(_SLOTS):
            descriptor = claim(self._layout.locks / f"counts-{number}")
            if descriptor is not None:
                self._claim = descriptor
                return self._map_slot(number)
        return None

    def _map_slot(self, number: int) -> memoryview:
        descriptor = os.open(self._layout.counts, os.O_RDWR | os.O_CLOEXEC)
        try:
            mapped = memoryview(mmap.mmap(descriptor, COUNTS_BYTES))
        finally:
            os.close(descriptor)
        return mapped[number * _SLOT_BYTES : (number + 1) * _SLOT_BYTES].cast("Q")


_instances: WeakSet[Counts] = WeakSet()


def _after_fork_in_child() -> None:
    for counts in _instances:
        counts.after_fork_in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)
