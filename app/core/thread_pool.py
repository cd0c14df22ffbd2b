"""A worker's thread pool, which does not count threads that only wait for something slow.

A pool of a fixed size is blocked once all its threads wait for an image model, or for a store that does not
answer. In this pool a thread that waits is parked: another one replaces it, so quick requests always have all
their threads. After the wait the thread finishes its task beside the others.
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


class ElasticThreadPool(Executor):
    """Runs what is submitted on `size` threads, parked ones not counted.

    A thread is started only if a task waits and no thread is idle, so a short wait starts none. Threads
    are daemons: they don't keep a process from exiting.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._working = 0  # threads that are not parked, idle ones among them
        self._idle = 0  # threads that are about to take a task, those just started among them
        self._waiting = 0  # tasks that no thread has taken

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Schedule `fn` to be called by the next free thread."""
        future: Future[T] = Future()
        self._tasks.put((future, lambda: fn(*args, **kwargs)))
        with self._lock:
            self._waiting += 1
            missing = self._take_missing()
        if missing:
            self._start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the threads once all tasks are done, without waiting for that."""
        self._tasks.put(None)

    @contextmanager
    def blocking(self) -> Iterator[None]:
        """Don't count this thread while it is in this block."""
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
        """Return whether to start another thread, and count it already. The caller holds the lock."""
        if self._waiting <= self._idle or self._working >= self._size:
            return False
        self._working += 1
        self._idle += 1
        return True

    def _start(self) -> None:
        """Start a thread. If the system allows no more, tasks wait for the existing ones."""
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
        """Return whether this thread must end because a parked one has come back; otherwise mark it idle."""
        with self._lock:
            if self._working > self._size:
                self._working -= 1
                return True
            self._idle += 1
            return False


@contextmanager
def blocking() -> Iterator[None]:
    """Wait in this block without holding one of the worker's threads.

    In a thread that is parked already, or that belongs to no pool, this does nothing.
    """
    pool: ElasticThreadPool | None = getattr(_here, "pool", None)
    if pool is None:
        yield
        return
    _here.pool = None
    try:
        with pool.blocking():
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
