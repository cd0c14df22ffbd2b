"""Limits how many images are decoded at once.

Limits how many threads of a process wait for the store: one that does not answer then stops nothing else.

The pattern has this name: https://learn.microsoft.com/en-us/azure/architecture/patterns/bulkhead. Threads are
parked while they wait (`app.core.thread_pool`): quick requests have all of a worker's threads meanwhile.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore

from app.core.errors import Busy, StoreBusy
from app.core.thread_pool import blocking

STORE_CALLS_PER_THREAD = 4
"""How many threads may call the store at once for each of `THREADS`: they spend most of the time waiting."""

_MOST_WAITING = 256

_SILENCE_SECONDS = 1.0
"""A store that ends no call and sends no piece of a body for so long counts as silent."""

_PATIENCE_SECONDS = 20.0
"""How long a thread waits for a place while the store makes progress."""


class Bulkhead:
    """Lets `places` threads call the store at once, and `waiting` more wait for their turn.

    A thread waits `patience` seconds at most, and only while the store makes progress: at least every
    `silence` seconds a call must end or a piece of a body arrive. Nested blocks of one thread share a place.
    """

    def __init__(
        self,
        places: int = 8 * STORE_CALLS_PER_THREAD,
        *,
        waiting: int = _MOST_WAITING,
        silence: float = _SILENCE_SECONDS,
        patience: float = _PATIENCE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._places = places
        self._most = places + waiting
        self._silence = silence
        self._patience = patience
        self._clock = clock
        self._present = 0  # threads inside or waiting
        self._calling = 0
        self._progress_at = 0.0
        self._change = threading.Condition()
        self._here = threading.local()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Wait parked in this block for something from the store, such as another thread's call.

        Raises `StoreBusy` if too many threads already wait for the store or call it.
        """
        if getattr(self._here, "waits", False):
            yield
            return
        with self._change:
            if self._present >= self._most:
                raise StoreBusy(detail=f"{self._present} requests wait for the store already")
            self._present += 1
        self._here.waits = True
        try:
            with blocking():
                yield
        finally:
            self._here.waits = False
            with self._change:
                self._present -= 1

    @contextmanager
    def calling(self) -> Iterator[None]:
        """Hold a place in this block, which calls the store; the thread is parked.

        Waits for a place if there is none. Raises `StoreBusy` if none becomes free in time.
        """
        if getattr(self._here, "calls", False):
            yield
            return
        with self.waiting():
            self._enter()
            self._here.calls = True
            try:
                yield
            finally:
                self._here.calls = False
                self._leave()

    def note_progress(self) -> None:
        """Note that the store has sent a piece of an answer."""
        self._progress_at = self._clock()

    def is_silent(self) -> bool:
        """Return whether calls are under way and none of them has made progress lately."""
        return self._calling > 0 and self._clock() - self._progress_at > self._silence

    def _enter(self) -> None:
        with self._change:
            given_up_at = self._clock() + self._patience
            while self._calling >= self._places:
                left = min(given_up_at, self._progress_at + self._silence) - self._clock()
                if left <= 0:
                    raise StoreBusy(detail=f"the store has not answered any of {self._calling} calls lately")
                self._change.wait(left)
            self._calling += 1
            if self._calling in (1, self._places):  # silence counts from here
                self.note_progress()

    def _leave(self) -> None:
        with self._change:
            self._calling -= 1
            self.note_progress()
            self._change.notify()


class DecodeLimiter:
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
        with blocking():
            if not self._places.acquire(timeout=self._patience if patience is None else patience):
                raise Busy
            try:
                yield
            finally:
                self._places.release()
