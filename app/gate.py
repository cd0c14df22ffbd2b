"""A bound on what is in work at the same time."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore

from app.errors import Busy
from app.parking import parked


class Gate:
    """Lets `places` threads through at once; the others wait, for `patience` seconds at most.

    Their threads are parked, and those inside as well: what they wait for is done in another process.
    """

    def __init__(self, places: int, patience: float) -> None:
        self._places = BoundedSemaphore(places)
        self._patience = patience

    @contextmanager
    def passed(self, patience: float | None = None) -> Iterator[None]:
        """Hold a place for the time of the block. Raises `Busy` if none comes free in `patience` seconds.

        Without `patience` that of the gate holds.
        """
        with parked():
            if not self._places.acquire(timeout=self._patience if patience is None else patience):
                raise Busy
            try:
                yield
            finally:
                self._places.release()
