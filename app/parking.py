"""A worker's threads, of which those that only wait for something slow don't count.

A pool of a fixed size stands still once each of its threads waits a minute for an image model. In this one a
thread that is parked is replaced by another until it comes back, so the quick requests always have all their
threads. For the rest of its task one that comes back works beside them.
"""

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


class ParkingPool(Executor):
    """Runs what is submitted on `size` threads, parked ones not counted.

    Its threads are daemons: a process that is told to stop does not wait for them.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._working = 0  # threads that are not parked

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have `fn` called by the next thread that is free."""
        future: Future[T] = Future()
        self._tasks.put((future, lambda: fn(*args, **kwargs)))
        self._fill()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let the threads end once nothing is left to do; it is not waited for."""
        self._tasks.put(None)

    @contextmanager
    def parked(self) -> Iterator[None]:
        """Another thread does this one's work meanwhile."""
        with self._lock:
            self._working -= 1
        self._fill()
        try:
            yield
        finally:
            with self._lock:
                self._working += 1

    def _fill(self) -> None:
        with self._lock:
            if self._working >= self._size:
                return
            self._working += 1
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        _here.pool = self
        while task := self._tasks.get():
            _run(*task)
            del task  # else the last connection served is kept until the next one
            if self._is_one_too_many():
                return
        self._tasks.put(None)  # for the other threads

    def _is_one_too_many(self) -> bool:
        """Whether this thread must end, since one came back from parking."""
        with self._lock:
            if self._working <= self._size:
                return False
            self._working -= 1
            return True


@contextmanager
def parked() -> Iterator[None]:
    """Wait in this block without holding one of the worker's threads; elsewhere than in a pool, just wait."""
    pool: ParkingPool | None = getattr(_here, "pool", None)
    if pool is None:
        yield
        return
    with pool.parked():
        yield


def _run(future: Future[Any], call: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = call()
    except BaseException as exc:
        future.set_exception(exc)
    else:
        future.set_result(result)
