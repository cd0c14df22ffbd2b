"""How many generations run at once on this machine, whichever worker process they run in.

A slot is a file, taken by a lock on it: the kernel lets go of that however a process ends.

STATE_DIR, where the worker processes agree on slots and outcomes: what it means that it can't be used.
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


@contextmanager
def state_errors_mapped() -> Iterator[None]:
    """Raises `StateUnavailable` for errors of the file system and of SQLite."""
    try:
        yield
    except (OSError, sqlite3.Error) as exc:
        raise StateUnavailable(detail=f"STATE_DIR: {exc}") from exc


_WAIT_SECONDS = 2.0
"""How long one waits for the first slot: quick generators would refuse many who need not wait long."""

_LOOK_SECONDS = 0.05


class Slots:
    """`count` slots, as files in `directory`."""

    def __init__(self, directory: Path, count: int) -> None:
        self._directory = directory
        self._count = count

    @contextmanager
    def take(self, most: int) -> Iterator[int]:
        """Hold between one and `most` slots in this block, as many as are free; gives their number.

        Raises `GeneratorBusy` where none becomes free in a while, and `StateUnavailable`.
        """
        with ExitStack() as held:
            with state_errors_mapped():
                taken = self._wait_for(most, held)
            yield taken

    def _wait_for(self, most: int, held: ExitStack) -> int:
        deadline = time.monotonic() + _WAIT_SECONDS
        while not (taken := self._take_free(most, held)):
            if time.monotonic() > deadline:
                raise GeneratorBusy
            time.sleep(_LOOK_SECONDS)
        return taken

    def _take_free(self, most: int, held: ExitStack) -> int:
        taken = 0
        self._directory.mkdir(parents=True, exist_ok=True)
        for number in random.sample(range(self._count), self._count):
            if taken == most:
                break
            descriptor = claim(self._directory / str(number))
            if descriptor is not None:
                held.callback(os.close, descriptor)
                taken += 1
        return taken
