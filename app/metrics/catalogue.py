"""Every metric that we count ourselves; those of the cache are read from it, in `app.metrics.cache`."""

import os
from functools import partial
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from app.cache import DiskCache
from app.metrics.cache import CacheCollector
from app.metrics.hits import HitTally
from app.metrics.workers import DIRECTORY

UNROUTED = "none"
"""The route of what leads nowhere."""

_SECONDS = (0.005, 0.02, 0.1, 0.5, 2, 10, 60)
"""Buckets from a local file to a slow image model; few, since each is a number per label and worker."""


class Metrics:
    """The metrics of one application over `cache`."""

    def __init__(self, cache: DiskCache) -> None:
        self._registry = own = CollectorRegistry()
        self._cache = CacheCollector(cache)
        counter = partial(Counter, registry=own)
        seconds = partial(Histogram, buckets=_SECONDS, registry=own)
        self.requests = counter(
            "s3image_requests_total", "Answers, cache hits among them.", ["route", "status"]
        )
        self.request_seconds = seconds(
            "s3image_request_duration_seconds",
            "Time from a request to its answer, but for cache hits.",
            ["route"],
        )
        self.errors = counter("s3image_errors_total", "Answers that are errors.", ["route", "code"])
        self.store_calls = counter("s3image_store_calls_total", "Calls of the store.", ["call", "outcome"])
        self.store_seconds = seconds(
            "s3image_store_call_duration_seconds",
            "Time of a call of the store, for get that to the body's first byte.",
            ["call"],
        )
        self.generations = counter(
            "s3image_generations_total", "Images asked of the generator.", ["model", "outcome"]
        )
        self.generation_seconds = seconds(
            "s3image_generation_duration_seconds", "Time that the generator took.", ["model"]
        )
        self.dropped = counter(
            "s3image_connections_dropped_total", "Connections that the server closed on a client.", ["reason"]
        )
        self.hits = HitTally(self.requests)

    def count_refused(self, status: str, code: str) -> None:
        """Count an answer that the server gave without the application; `code` is that in its body."""
        self.requests.labels(UNROUTED, status).inc()
        self.errors.labels(UNROUTED, code).inc()

    def count_dropped(self, reason: str) -> None:
        """Count a connection that the server closed on its client, and why."""
        self.dropped.labels(reason).inc()

    def exposition(self) -> bytes:
        """All metrics of all workers, in Prometheus' text format."""
        self.hits.flush(at_once=True)
        registry = CollectorRegistry()
        shared = os.environ.get(DIRECTORY)
        if shared and Path(shared).is_dir():
            MultiProcessCollector(registry, shared)  # type: ignore[no-untyped-call]
        else:
            registry.register(self._registry)
        registry.register(self._cache)
        return generate_latest(registry)
