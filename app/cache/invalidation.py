"""Which store a cache directory was filled from: another one's images must not be served as this one's.

How often keys have been changed: what keeps a fill under way from bringing back what was deleted.

A file of counters, one for each slot of keys, that needs no database: a delete must hold even where the index
is busy or broken.
"""

import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.cache.layout import SLOTS, Layout, slot_of
from app.core.system import SHARED, locked

_WIDTH = 8


class Epochs:
    """The counters in the file at `path`, shared by all processes. Methods raise `OSError`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, key: str) -> int:
        """The present epoch of `key`."""
        with locked(self._path, SHARED) as descriptor:
            return _read(descriptor, key)

    def advance(self, key: str) -> int:
        """Begin a new epoch of `key`; its number."""
        with locked(self._path) as descriptor:
            number = _read(descriptor, key) + 1
            os.pwrite(descriptor, number.to_bytes(_WIDTH), slot_of(key) * _WIDTH)
            return number

    @contextmanager
    def held(self, key: str, epoch: int) -> Iterator[bool]:
        """Whether `epoch` is the present one of `key`; no new one begins inside the block."""
        with locked(self._path, SHARED) as descriptor:
            yield _read(descriptor, key) == epoch

    def prepare(self) -> None:
        """Take the counters' room on disk now: a full one must not keep an epoch from beginning."""
        with locked(self._path) as descriptor:
            size = os.fstat(descriptor).st_size
            os.pwrite(descriptor, bytes(max(0, SLOTS * _WIDTH - size)), size)


def _read(descriptor: int, key: str) -> int:
    return int.from_bytes(os.pread(descriptor, _WIDTH, slot_of(key) * _WIDTH))


_log = logging.getLogger(__name__)


def keep_only(layout: Layout, origin: str) -> None:
    """Empty the directory where it was filled from another origin. Raises `OSError`."""
    digest = hashlib.sha256(origin.encode()).hexdigest()
    with locked(layout.locks / "origin"):
        known = layout.origin.read_text(encoding="ascii") if layout.origin.exists() else digest
        if known != digest:
            _log.warning("The cache holds images of another store, and is emptied.")
            layout.remove_everything()
        layout.origin.write_text(digest, encoding="ascii")
