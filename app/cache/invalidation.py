"""Invalidation: making sure that objects that were changed, or come from a different store, are not served.

Each upload and delete begins a new *epoch* of its key. A *fill*, which fetches an object and caches it, reads
the epoch when it begins, and publishes the object only if the epoch is still the same at the end. So a fill
never brings back an object that was deleted in the meantime. A variant has the epochs of the image from which
it is made. Epochs are counters in a file that all processes
share. They are not in the index, since a delete must take effect even while the index is busy or broken.
"""

import copy
import hashlib
import json
import logging
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from app.cache.layout import Layout
from app.core.errors import AppError
from app.core.system import EXCLUSIVE, SHARED, locked, open_locked
from app.core.variant_keys import source_of, variant_name

_log = logging.getLogger(__name__)

_COUNTERS = 1024
"""Number of epoch counters. Many keys share a counter, so while an object is being fetched, a change to a
different key may keep the object from being cached. The object is still served."""

_COUNTER_BYTES = 8

_MAX_FAILED_KEYS = 10_000


class Epochs:
    """The epoch counters in the file at `path`, shared by all processes. Methods raise `OSError`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def prepare(self) -> None:
        """Create the file and reserve its space on disk, so that a full disk can't prevent a delete."""
        with locked(self._path) as descriptor:
            size = os.fstat(descriptor).st_size
            os.pwrite(descriptor, bytes(max(0, _COUNTERS * _COUNTER_BYTES - size)), size)

    def read(self, key: str) -> int:
        """Return the current epoch of `key`."""
        descriptor = open_locked(self._path, SHARED)
        try:
            return _read(descriptor, _offset_of(key))
        finally:
            os.close(descriptor)

    def advance(self, key: str) -> int:
        """Begin a new epoch of `key` and return its number."""
        descriptor = open_locked(self._path, EXCLUSIVE)
        try:
            offset = _offset_of(key)
            number = _read(descriptor, offset) + 1
            os.pwrite(descriptor, number.to_bytes(_COUNTER_BYTES), offset)
            return number
        finally:
            os.close(descriptor)

    @contextmanager
    def held(self, key: str, epoch: int) -> Iterator[bool]:
        """Yield whether `epoch` is the current epoch of `key`. No new epoch can begin during the block."""
        descriptor = open_locked(self._path, SHARED)
        try:
            yield _read(descriptor, _offset_of(key)) == epoch
        finally:
            os.close(descriptor)


class NegativeCache:
    """Remembers for `ttl` seconds that a key has failed, for example because it is missing from the store.

    The number of keys is bounded. A key is forgotten as soon as any process on this machine begins a new
    epoch of the key. `clock` returns seconds.
    """

    def __init__(self, epochs: Epochs, ttl: float, clock: Callable[[], float]) -> None:
        self._epochs = epochs
        self._ttl = ttl
        self._clock = clock
        self._failed: dict[str, tuple[float, int, AppError]] = {}  # expiry time, epoch, error

    def add(self, key: str, epoch: int, error: AppError) -> None:
        """Remember the error of `key`. `epoch` must have been read before the store was called."""
        if len(self._failed) >= _MAX_FAILED_KEYS:
            self._failed.clear()
        self._failed[key] = (self._clock() + self._ttl, epoch, copy.copy(error))

    def get(self, key: str) -> AppError | None:
        """Return the error with which `key` is known to fail, or None. Raises `OSError`."""
        remembered = self._failed.get(key)
        if remembered is None:
            return None
        expires_at, epoch, error = remembered
        if self._clock() < expires_at and self._epochs.read(key) == epoch:
            return copy.copy(error)
        self._failed.pop(key, None)
        return None


def bind_directory(layout: Layout, store_identity: str) -> None:
    """Record which store the directory caches. If it cached a different store, empty it. Raises `OSError`."""
    digest = hashlib.sha256(store_identity.encode()).hexdigest()
    with locked(layout.locks / "origin"):
        recorded = layout.origin.read_text(encoding="ascii") if layout.origin.exists() else digest
        if recorded != digest:
            _log.warning("The cache contains images from a different store. Emptying it.")
            layout.remove_everything()
        layout.origin.write_text(digest, encoding="ascii")


class ListedVariants:
    """The names and specs of the variants that the settings list. Methods raise `OSError`.

    They are recorded in the cache directory. While a server reloads its settings, old workers still run.
    """

    def __init__(self, layout: Layout) -> None:
        self._recorded = layout.listed
        self._lock = layout.locks / "listed"
        self._own: Mapping[str, str] = {}

    @contextmanager
    def changed(self, listed: Mapping[str, str]) -> Iterator[set[str]]:
        """Yield the recorded names that are not in `listed` or have a different spec. Then record `listed`.

        If the process is killed during the block, the next call yields the same names.
        """
        with locked(self._lock):
            self._own = dict(listed)
            recorded = self._read()
            yield {name for name, spec in recorded.items() if listed.get(name) != spec}
            if recorded != listed:
                self._recorded.write_text(json.dumps(dict(listed)), encoding="ascii")

    @contextmanager
    def held(self, key: str) -> Iterator[bool]:
        """Yield whether a variant with this cache key may be kept.

        It may not if another process has recorded different settings since. No process can do so during the
        block.
        """
        name = variant_name(key)
        if name not in self._own:
            yield True
            return
        descriptor = open_locked(self._lock, SHARED)
        try:
            yield self._read().get(name) == self._own[name]
        finally:
            os.close(descriptor)

    def _read(self) -> dict[str, str]:
        try:
            return dict(json.loads(self._recorded.read_bytes()))
        except (FileNotFoundError, ValueError, TypeError):
            return {}


def _offset_of(key: str) -> int:
    return zlib.crc32(source_of(key).encode("utf-8", "surrogatepass")) % _COUNTERS * _COUNTER_BYTES


def _read(descriptor: int, offset: int) -> int:
    return int.from_bytes(os.pread(descriptor, _COUNTER_BYTES, offset))
