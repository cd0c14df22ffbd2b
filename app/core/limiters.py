"""Limits on how many threads of a process do the same slow thing at once.

`Bulkhead` limits calls to the store, so that a store that does not respond stops nothing else. The pattern
has this name: https://learn.microsoft.com/en-us/azure/architecture/patterns/bulkhead. `DecodeLimiter` limits
how many images are decoded, each of which takes memory. Threads wait inside `app.core.thread_pool.blocking`:
meanwhile quick requests have all of a worker's threads.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from app.core.errors import Busy, StoreBusy
from app.core.thread_pool import blocking

STORE_CALLS_PER_THREAD = 4
"""Concurrent calls to the store for each of `THREADS`: a call spends most of its time waiting."""

_MAX_WAITING = 256
"""Threads that may wait for a slot, or for another thread's call."""

_SILENCE_SECONDS = 1.0
_SLOT_TIMEOUT_SECONDS = 20.0


class Bulkhead:
    """Lets `slots` threads call the store at once, while up to `max_waiting` more wait for them.

    A thread waits for a slot for `slot_timeout` seconds at most, and only while the store makes progress. The
    store is silent, and waiting is pointless, if for `silence` seconds no call has ended and no piece of a
    body has arrived. Nested blocks of one thread share one slot. `clock` returns seconds.
    """

    def __init__(
        self,
        slots: int = 8 * STORE_CALLS_PER_THREAD,
        *,
        max_waiting: int = _MAX_WAITING,
        silence: float = _SILENCE_SECONDS,
        slot_timeout: float = _SLOT_TIMEOUT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._slots = slots
        self._max_present = slots + max_waiting
        self._silence = silence
        self._slot_timeout = slot_timeout
        self._clock = clock
        self._present = 0  # threads that call or wait
        self._calling = 0
        self._progress_at = 0.0
        self._changed = threading.Condition()
        self._thread = threading.local()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Wait inside the block for something from the store, such as the result of another thread's call.

        Raises `StoreBusy` if as many threads as allowed call the store or wait for it already.
        """
        if getattr(self._thread, "is_waiting", False):
            yield
            return
        with self._changed:
            if self._present >= self._max_present:
                raise StoreBusy(detail=f"{self._present} requests wait for the store already")
            self._present += 1
        self._thread.is_waiting = True
        try:
            with blocking():
                yield
        finally:
            self._thread.is_waiting = False
            with self._changed:
                self._present -= 1

    @contextmanager
    def calling(self) -> Iterator[None]:
        """Hold a slot inside the block, which calls the store.

        Waits for a slot if none is free. Raises `StoreBusy` if none becomes free in time, and as `waiting`.
        """
        if getattr(self._thread, "is_calling", False):
            yield
            return
        with self.waiting():
            self._acquire_slot()
            self._thread.is_calling = True
            try:
                yield
            finally:
                self._thread.is_calling = False
                with self._changed:
                    self._calling -= 1
                    self.note_progress()
                    self._changed.notify()

    def note_progress(self) -> None:
        """Note that the store has just sent a piece of a response."""
        self._progress_at = self._clock()

    def is_silent(self) -> bool:
        """Return whether calls are in progress and the store has sent nothing for a while."""
        return self._calling > 0 and self._clock() - self._progress_at > self._silence

    def _acquire_slot(self) -> None:
        with self._changed:
            deadline = self._clock() + self._slot_timeout
            while self._calling >= self._slots:
                left = min(deadline, self._progress_at + self._silence) - self._clock()
                if left <= 0:
                    raise StoreBusy(detail=f"the store has answered none of {self._calling} calls lately")
                self._changed.wait(left)
            self._calling += 1
            if self._calling in (1, self._slots):  # start of the time in which the store may be silent
                self.note_progress()


class DecodeLimiter:
    """Lets `slots` threads decode images at once; the others wait for `timeout` seconds at most.

    No thread inside occupies the worker's pool, since another process does the decoding.
    """

    def __init__(self, slots: int, timeout: float) -> None:
        self._slots = threading.BoundedSemaphore(slots)
        self._timeout = timeout

    @contextmanager
    def slot(self, timeout: float | None = None) -> Iterator[None]:
        """Hold a slot inside the block. Raises `Busy` if none becomes free within the timeout, in seconds.

        `timeout` defaults to the limiter's.
        """
        with blocking():
            if not self._slots.acquire(timeout=self._timeout if timeout is None else timeout):
                raise Busy
            try:
                yield
            finally:
                self._slots.release()
