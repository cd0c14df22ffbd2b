"""Counting cache hits without slowing them down."""

import time

from prometheus_client import Counter

ROUTE = "images.serve"
"""Flask's name for what answers images: fronts and it are the same to whoever asks."""

_SECONDS = 1.0


class HitTally:
    """Adds hits up in the process's memory and passes sums on to `counter`, which takes a lock for each call.

    Threads lose none: the interpreter changes threads at calls and jumps, and an addition has neither.
    """

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._counted = {"200 OK": 0, "206 Partial Content": 0, "304 Not Modified": 0}
        self._flushed = dict.fromkeys(self._counted, 0)
        self._due = 0.0

    def add(self, status: str) -> None:
        """Count an answer with this status line."""
        self._counted[status] += 1

    def flush(self, *, at_once: bool = False) -> None:
        """Pass on what is new, once a second at the most."""
        now = time.monotonic()
        if now < self._due and not at_once:
            return
        self._due = now + _SECONDS
        for status, count in self._counted.items():
            new, self._flushed[status] = count - self._flushed[status], count
            if new:
                self._counter.labels(ROUTE, status[:3]).inc(new)
