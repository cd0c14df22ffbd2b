"""A bound on what is in work at the same time."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore

from app.errors import Busy


class Gate:
    """Lets `places` threads through at once; the others wait, for `patience` seconds at most."""

    def __init__(self, places: int, patience: float) -> None:
        self._places = BoundedSemaphore(places)
        self._patience = patience

    @contextmanager
    def passed(self, patience: float | None = None) -> Iterator[None]:
        """Hold a place for the time of the block; raises `Busy` where none comes free in time.

        That is after `patience` seconds, where the gate's own don't suit.
        """
        if not self._places.acquire(timeout=self._patience if patience is None else patience):
            raise Busy
        try:
            yield
        finally:
            self._places.release()
