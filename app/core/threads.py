"""Threads: a pool that does not count blocked threads, and limits on how much slow work runs concurrently.

A pool of a fixed size stops working once all its threads wait for an image model, or for a store that does
not respond. In `ElasticThreadPool`, a thread that is about to block announces this with `blocking`, and
another thread takes its place. So quick requests can always use all of the pool's threads. When the wait
ends, the thread finishes its task, even if the pool exceeds its size until then.

`Bulkhead` limits concurrent calls to the store, so that a store that does not respond stops nothing else. It
is named after the pattern: https://learn.microsoft.com/en-us/azure/architecture/patterns/bulkhead.
`DecodeLimiter` limits how many images are decoded at once, since decoding takes much memory. A thread that
waits because of either limit does so inside `blocking`.

`BackgroundTasks` runs work that no request has to wait for.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

from app.core.errors import Busy, StoreBusy

P = ParamSpec("P")
T = TypeVar("T")

_Task = tuple[Future[Any], Callable[[], Any]]

_log = logging.getLogger(__name__)

_thread = threading.local()
"""Data of each thread. `pool` is the pool that counts the thread, and is absent or None if no pool does."""


@contextmanager
def blocking() -> Iterator[None]:
    """Let the caller wait inside the block without occupying one of the pool's threads.

    Does nothing in a thread that is already inside such a block, or that does not belong to a pool.
    """
    pool: ElasticThreadPool | None = getattr(_thread, "pool", None)
    if pool is None:
        yield
        return
    _thread.pool = None
    pool.leave()
    try:
        yield
    finally:
        pool.come_back()
        _thread.pool = pool


class ElasticThreadPool(Executor):
    """Runs tasks on at most `size` threads, not counting threads inside `blocking`.

    Starts a thread only if a task is waiting and no thread is idle, so a brief `blocking()` section usually
    starts no thread. The threads are daemons, so they don't keep the process from exiting.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._working = 0  # threads that are not blocked, including idle ones
        self._idle = 0  # threads that are ready to take a task, including those just started
        self._waiting = 0  # tasks that no thread has taken yet

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Schedule `fn(*args, **kwargs)` and return the future of its result."""
        future: Future[T] = Future()
        self._tasks.put((future, lambda: fn(*args, **kwargs)))
        with self._lock:
            self._waiting += 1
            must_start = self._reserve_thread()
        if must_start:
            self._start_thread()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let the threads end once all tasks are done. Returns at once and ignores the arguments."""
        self._tasks.put(None)

    def leave(self) -> None:
        """Stop counting the calling thread. Start another thread if tasks are waiting for one."""
        with self._lock:
            self._working -= 1
            must_start = self._reserve_thread()
        if must_start:
            self._start_thread()

    def come_back(self) -> None:
        """Count the calling thread again, even if the pool then exceeds its size until a task ends."""
        with self._lock:
            self._working += 1

    def _reserve_thread(self) -> bool:
        """Return whether the caller must start a thread. If so, the new thread has already been counted.

        The caller holds the lock.
        """
        if self._waiting <= self._idle or self._working >= self._size:
            return False
        self._working += 1
        self._idle += 1
        return True

    def _start_thread(self) -> None:
        """Start a thread. If the system allows no more threads, tasks wait for the existing ones."""
        try:
            threading.Thread(target=self._work, daemon=True).start()
        except RuntimeError as exc:
            with self._lock:
                self._working -= 1
                self._idle -= 1
            _log.error("Could not start another thread: %s", exc)

    def _work(self) -> None:
        _thread.pool = self
        while task := self._tasks.get():
            with self._lock:
                self._idle -= 1
                self._waiting -= 1
            _run(*task)
            del task  # while this thread waits, the task must not keep the served connection open
            with self._lock:
                if self._working > self._size:  # a thread has come back from blocking
                    self._working -= 1
                    return
                self._idle += 1
        self._tasks.put(None)  # so that the other threads end as well


def _run(future: Future[Any], call: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = call()
    except BaseException as exc:
        future.set_exception(exc)
    else:
        future.set_result(result)


STORE_CALLS_PER_THREAD = 4
"""Maximum number of concurrent calls to the store for each of the `THREADS`. A call mostly just waits."""

_MAX_WAITING = 256
"""Default maximum number of threads that wait for a slot, or for the result of another thread's call."""

_SILENCE_SECONDS = 1.0
_SLOT_TIMEOUT_SECONDS = 20.0


class Bulkhead:
    """Lets up to `slots` threads call the store at once, while up to `max_waiting` more threads wait.

    A thread waits for a slot for at most `slot_timeout` seconds, and only while the store makes progress. If
    no call has ended and no part of a body has arrived for `silence` seconds, the store counts as silent, and
    threads stop waiting for a slot. Nested blocks in one thread share one slot. `clock` returns seconds.
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
        self._present = 0  # threads that are calling the store or waiting for it
        self._calling = 0
        self._progress_at = 0.0
        self._changed = threading.Condition()
        self._thread = threading.local()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the caller as waiting for the store, or for another thread's call to it, during the block.

        Raises `StoreBusy` if the maximum number of threads is already calling the store or waiting for it.
        """
        if getattr(self._thread, "is_waiting", False):
            yield
            return
        with self._changed:
            if self._present >= self._max_present:
                raise StoreBusy(detail=f"{self._present} requests are already waiting for the store")
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
        """Hold a slot for a call to the store during the block.

        Waits for a slot if none is free. Raises `StoreBusy` if no slot becomes free in time, or if too many
        threads are already waiting.
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
        """Record that the store has just sent part of a response."""
        self._progress_at = self._clock()

    def is_silent(self) -> bool:
        """Return whether calls are in progress but the store has sent nothing for `silence` seconds."""
        return self._calling > 0 and self._clock() - self._progress_at > self._silence

    def _acquire_slot(self) -> None:
        with self._changed:
            deadline = self._clock() + self._slot_timeout
            while self._calling >= self._slots:
                left = min(deadline, self._progress_at + self._silence) - self._clock()
                if left <= 0:
                    raise StoreBusy(detail=f"none of {self._calling} calls has made progress recently")
                self._changed.wait(left)
            self._calling += 1
            if self._calling in (1, self._slots):  # measure the store's silence from now on
                self.note_progress()


class DecodeLimiter:
    """Lets up to `slots` threads decode images at once. Other threads wait for at most `timeout` seconds.

    A thread that holds a slot does not occupy the worker's pool, since another process does the decoding.
    """

    def __init__(self, slots: int, timeout: float) -> None:
        self._slots = threading.BoundedSemaphore(slots)
        self._timeout = timeout

    @contextmanager
    def slot(self, timeout: float | None = None) -> Iterator[None]:
        """Hold a slot during the block. Raises `Busy` if no slot becomes free within `timeout` seconds.

        The default for `timeout` is the limiter's own timeout.
        """
        with blocking():
            if not self._slots.acquire(timeout=self._timeout if timeout is None else timeout):
                raise Busy
            try:
                yield
            finally:
                self._slots.release()


_MIN_TASK_BYTES = 64 * 1024


class BackgroundTasks:
    """Runs tasks in up to `threads` threads, in the order in which they were submitted.

    All tasks together may hold `max_bytes` of memory, until they are done. Each counts as at least 64 KiB, so
    their number is limited as well. The threads are daemons. When the process ends, the tasks that are not
    done are lost.
    """

    def __init__(self, threads: int, max_bytes: int) -> None:
        self._max_threads = threads
        self._max_bytes = max_bytes
        self._tasks: deque[tuple[Callable[[], object], int]] = deque()
        self._threads = 0
        self._bytes = 0
        self._changed = threading.Condition()

    def submit(self, task: Callable[[], object], size: int = 0) -> bool:
        """Schedule a task that holds `size` bytes. Return False if there is no room for it."""
        size = max(size, _MIN_TASK_BYTES)
        with self._changed:
            if self._bytes + size > self._max_bytes:
                return False
            self._tasks.append((task, size))
            self._bytes += size
            if self._threads < self._max_threads:
                self._start_thread()
        return True

    def wait(self, timeout: float) -> bool:
        """Wait until all tasks are done, for at most `timeout` seconds. Return whether they are."""
        with self._changed:
            return self._changed.wait_for(lambda: self._bytes == 0, timeout)

    def _start_thread(self) -> None:
        """Start a thread. If the system allows no more threads, the next task tries again."""
        try:
            threading.Thread(target=self._work, daemon=True).start()
            self._threads += 1
        except RuntimeError as exc:
            _log.error("Could not start a thread for background tasks: %s", exc)

    def _work(self) -> None:
        while True:
            with self._changed:
                if not self._tasks:
                    self._threads -= 1
                    return
                task, size = self._tasks.popleft()
            try:
                task()
            except Exception:
                _log.exception("A background task failed.")
            del task  # it holds memory, which counts as free from now on
            with self._changed:
                self._bytes -= size
                self._changed.notify_all()
