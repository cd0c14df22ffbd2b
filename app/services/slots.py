"""Slots limit how many images the worker processes of a machine generate at the same time.

A slot is a locked file below STATE_DIR. The kernel releases the lock however its process ends, so a killed
worker never leaves a slot taken.
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
"""How long to wait for a slot: with a quick generator one soon becomes free."""

_POLL_SECONDS = 0.05


@contextmanager
def state_errors_mapped() -> Iterator[None]:
    """Raise `StateUnavailable` for errors of the file system or of SQLite below STATE_DIR."""
    try:
        yield
    except (OSError, sqlite3.Error) as exc:
        raise StateUnavailable(detail=f"STATE_DIR: {exc}") from exc


class Slots:
    """`count` slots, whose files are in `directory`."""

    def __init__(self, directory: Path, count: int) -> None:
        self._directory = directory
        self._count = count

    @contextmanager
    def take(self, wanted: int) -> Iterator[int]:
        """Hold up to `wanted` slots during the block, as many as are free but at least one; yield how many.

        Raises `GeneratorBusy` if no slot becomes free within two seconds, and `StateUnavailable`.
        """
        deadline = time.monotonic() + _WAIT_SECONDS
        with ExitStack() as held:
            while not (taken := self._lock_free_slots(wanted, held)):
                if time.monotonic() > deadline:
                    raise GeneratorBusy
                time.sleep(_POLL_SECONDS)
            yield taken

    def _lock_free_slots(self, wanted: int, held: ExitStack) -> int:
        """Lock up to `wanted` slots until `held` is closed; return how many were free."""
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
