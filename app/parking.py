"""A worker's threads, of which those that only wait for something slow don't count.

A pool of a fixed size stands still once each of its threads waits a minute for an image model, or for a store
that is silent. In this one a thread that is parked is replaced by another until it comes back, so the quick
requests always have all their threads. For the rest of its task one that comes back works beside them.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_Task = tuple[Future[Any], Callable[[], Any]]

_here = threading.local()

_log = logging.getLogger(__name__)


class ParkingPool(Executor):
    """Runs what is submitted on `size` threads, parked ones not counted.

    A thread is started when a task waits and no thread is idle: parking for a moment costs none. Threads are
    daemons: a process that is told to stop does not wait for them.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._working = 0  # threads that are not parked, idle ones among them
        self._idle = 0  # threads that are about to take a task, those just started among them
        self._waiting = 0  # tasks that no thread has taken

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have `fn` called by the next thread that is free."""
        future: Future[T] = Future()
        self._tasks.put((future, lambda: fn(*args, **kwargs)))
        with self._lock:
            self._waiting += 1
            missing = self._take_missing()
        if missing:
            self._start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let the threads end once nothing is left to do; it is not waited for."""
        self._tasks.put(None)

    @contextmanager
    def parked(self) -> Iterator[None]:
        """Another thread does this one's work meanwhile."""
        with self._lock:
            self._working -= 1
            missing = self._take_missing()
        if missing:
            self._start()
        try:
            yield
        finally:
            with self._lock:
                self._working += 1

    def _take_missing(self) -> bool:
        """Whether one more thread is to be started, which then counts already; under the lock."""
        if self._waiting <= self._idle or self._working >= self._size:
            return False
        self._working += 1
        self._idle += 1
        return True

    def _start(self) -> None:
        """Start a thread; if the system has no more of them, tasks wait for those that there are."""
        try:
            threading.Thread(target=self._work, daemon=True).start()
        except RuntimeError as exc:
            with self._lock:
                self._working -= 1
                self._idle -= 1
            _log.error("No thread can be started: %s", exc)

    def _work(self) -> None:
        _here.pool = self
        while task := self._tasks.get():
            with self._lock:
                self._idle -= 1
                self._waiting -= 1
            _run(*task)
            del task  # else the last connection served is kept until the next one
            if self._is_one_too_many():
                return
        self._tasks.put(None)  # for the other threads

    def _is_one_too_many(self) -> bool:
        """Whether this thread must end, since one came back from parking; else it is idle."""
        with self._lock:
            if self._working > self._size:
                self._working -= 1
                return True
            self._idle += 1
            return False


@contextmanager
def parked() -> Iterator[None]:
    """Wait in this block without holding one of the worker's threads.

    In a thread that is parked already, or that belongs to no pool, this does nothing.
    """
    pool: ParkingPool | None = getattr(_here, "pool", None)
    if pool is None:
        yield
        return
    _here.pool = None
    try:
        with pool.parked():
            yield
    finally:
        _here.pool = pool


def _run(future: Future[Any], call: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = call()
    except BaseException as exc:
        future.set_exception(exc)
    else:
        future.set_result(result)
