"""Counting and timing a call."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import Counter, Histogram

from app.errors import AppError


@contextmanager
def timed(calls: Counter, seconds: Histogram, label: str) -> Iterator[None]:
    """Count what happens inside as `ok`, or by the code of the error that it raises."""
    began, outcome = time.perf_counter(), "internal_error"
    try:
        yield
        outcome = "ok"
    except AppError as exc:
        outcome = exc.code
        raise
    finally:
        calls.labels(label, outcome).inc()
        seconds.labels(label).observe(time.perf_counter() - began)
