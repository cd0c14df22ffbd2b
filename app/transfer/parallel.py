"""Many items, a few at a time."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from app.transfer.tally import Result, Tally

T = TypeVar("T")

_AHEAD = 4
"""How many items per thread are handed out at a time: enough that no thread waits for a slow neighbour."""


def run(
    work: Callable[[T], Result], items: Iterable[T], concurrency: int, tally: Tally
) -> Generator[None, None, None]:
    """Do `work` on each item in `concurrency` threads and count what became of it; yields once for each.

    Where the iteration ends early, closed or interrupted, items under way are finished and counted, and no
    other is begun.
    """
    pool = ThreadPoolExecutor(concurrency)
    pending: deque[Future[None]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(lambda given: tally.add(work(given)), item))
            if len(pending) >= _AHEAD * concurrency:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
