"""Limits how many images are decoded at once."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore

from app.errors import Busy
from app.parking import parked


class Gate:
    """Lets `places` threads in at once; the others wait for `patience` seconds at most.

    All of them are parked, also those inside, since another process does the decoding.
    """

    def __init__(self, places: int, patience: float) -> None:
        self._places = BoundedSemaphore(places)
        self._patience = patience

    @contextmanager
    def passed(self, patience: float | None = None) -> Iterator[None]:
        """Hold a place during the block. Raises `Busy` if none becomes free in `patience` seconds.

        `patience` defaults to that of the gate.
        """
        with parked():
            if not self._places.acquire(timeout=self._patience if patience is None else patience):
                raise Busy
            try:
                yield
            finally:
                self._places.release()
