"""A worker's thread pool that does not count threads blocked on something slow.

A pool of a fixed size stops once all its threads wait for an image model, or for a store that does not
respond. In this pool, a thread that is about to block says so (`blocking`), and another thread takes its
place: quick requests always have all the pool's threads. When the wait ends, the thread finishes its task
beside the others.
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

_log = logging.getLogger(__name__)

_thread = threading.local()
"""`pool` is the pool that counts this thread: absent or None if none does."""


@contextmanager
def blocking() -> Iterator[None]:
    """Wait inside the block without occupying one of the pool's threads.

    Does nothing in a thread that is inside such a block already, or that belongs to no pool.
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

    Starts a thread only if a task waits and no thread is idle, so a short wait starts none. Threads are
    daemons: they don't keep the process from exiting.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._working = 0  # threads that are not blocked, idle ones included
        self._idle = 0  # threads that are about to take a task, those just started included
        self._waiting = 0  # tasks that no thread has taken

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
        """Let the threads end once all tasks are done. Returns at once, whatever the arguments."""
        self._tasks.put(None)

    def leave(self) -> None:
        """Stop counting the calling thread; start another one if tasks wait for it."""
        with self._lock:
            self._working -= 1
            must_start = self._reserve_thread()
        if must_start:
            self._start_thread()

    def come_back(self) -> None:
        """Count the calling thread again, even if that makes one too many until a task ends."""
        with self._lock:
            self._working += 1

    def _reserve_thread(self) -> bool:
        """Return whether the caller, who holds the lock, has to start a thread; it is counted already."""
        if self._waiting <= self._idle or self._working >= self._size:
            return False
        self._working += 1
        self._idle += 1
        return True

    def _start_thread(self) -> None:
        """Start a thread. If the system allows no more, tasks wait for the existing ones."""
        try:
            threading.Thread(target=self._work, daemon=True).start()
        except RuntimeError as exc:
            with self._lock:
                self._working -= 1
                self._idle -= 1
            _log.error("The system refuses to start another thread: %s", exc)

    def _work(self) -> None:
        _thread.pool = self
        while task := self._tasks.get():
            with self._lock:
                self._idle -= 1
                self._waiting -= 1
            _run(*task)
            del task  # else the last connection served is kept alive until the next one
            with self._lock:
                if self._working > self._size:  # a thread has come back from blocking
                    self._working -= 1
                    return
                self._idle += 1
        self._tasks.put(None)  # for the other threads


def _run(future: Future[Any], call: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = call()
    except BaseException as exc:
        future.set_exception(exc)
    else:
        future.set_result(result)
