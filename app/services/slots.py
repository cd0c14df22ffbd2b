"""Slots, which limit how many images the worker processes of a machine generate at the same time.

A slot is a locked file below STATE_DIR. The kernel releases the lock when the process that holds it ends,
so a killed worker does not keep a slot.
"""

import os
import random
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from app.core.errors import GeneratorBusy, StateUnavailable
from app.core.system import claim

_WAIT_SECONDS = 2.0
"""How many seconds to wait for a free slot. With a fast generator, a slot becomes free within this time."""

_POLL_SECONDS = 0.05


@contextmanager
def state_errors_mapped() -> Iterator[None]:
    """Raise `StateUnavailable` for file system errors and SQLite errors inside the block."""
    try:
        yield
    except (OSError, sqlite3.Error) as exc:
        raise StateUnavailable(detail=f"STATE_DIR: {exc}") from exc


class Slots:
    """A set of `count` slots. Their files are in `directory`."""

    def __init__(self, directory: Path, count: int) -> None:
        self._directory = directory
        self._count = count

    @contextmanager
    def take(self, wanted: int) -> Iterator[int]:
        """Hold at least one and at most `wanted` slots during the block. Yield how many are held.

        If fewer than `wanted` slots are free, hold only the free slots. If no slot is free, wait for one.
        Raises `GeneratorBusy` if no slot becomes free within two seconds, and `StateUnavailable` if the
        slots' files can't be used.
        """
        deadline = time.monotonic() + _WAIT_SECONDS
        with ExitStack() as held:
            while not (taken := self._lock_free_slots(wanted, held)):
                if time.monotonic() > deadline:
                    raise GeneratorBusy
                time.sleep(_POLL_SECONDS)
            yield taken

    def _lock_free_slots(self, wanted: int, held: ExitStack) -> int:
        """Lock up to `wanted` free slots until `held` is closed. Return how many were locked."""
        taken = 0
        with state_errors_mapped():
            self._directory.mkdir(parents=True, exist_ok=True)
            for number in random.sample(range(self._count), self._count):
                if taken == wanted:
                    break
                descriptor = claim(self._directory / str(number))
                if descriptor is not None:
                    held.callback(os.close, descriptor)
                    taken += 1
        return taken
