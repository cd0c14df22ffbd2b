"""Counting cache hits without slowing them down.

Counting and timing a call.

What the cache itself knows: read when Prometheus asks, so that counting it costs no request anything.

Every metric that we count ourselves; those of the cache are read from it, in `app.observability.metrics`.

A store that counts how it is called.

A generator that counts what it draws.

What Prometheus is told: counters and times of all worker processes together.
"""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from app.cache.disk_cache import DiskCache
from app.cache.stats import GET_USD_PER_MILLION
from app.core.errors import AppError
from app.core.objects import Body, ObjectFacts, ObjectPage, PutResult, StoredObject
from app.generators.base import BaseGenerator, GeneratedImage, GenerationRequest, ModelFacts
from app.observability.multiprocess import DIRECTORY
from app.stores.base import BaseStore

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


class CacheCollector(Collector):
    """The counts of all processes since the cache directory was made, and what it holds now."""

    def __init__(self, cache: DiskCache) -> None:
        self._cache = cache

    def collect(self) -> Iterator[Metric]:
        """Nothing of what can't be read right now: a gap says more than a zero."""
        yield GaugeMetricFamily("s3image_cache_max_bytes", "CACHE_MAX_BYTES.", self._cache.max_bytes)
        try:
            yield from (*self._counts(), *self._contents())
        except (OSError, sqlite3.Error):
            return

    def _counts(self) -> Iterator[Metric]:
        counted = self._cache.counts.totals()
        answers = CounterMetricFamily(
            "s3image_cache_answers_total", "Images served, by the cache's result.", labels=["result"]
        )
        answers.add_metric(["hit"], counted.hits)
        answers.add_metric(["miss"], counted.misses)
        for result in ("collapsed", "revalidated", "stale", "bypass"):
            answers.add_metric([result], getattr(counted, result))
        yield answers
        sums = (
            ("served_bytes", "Bytes served that were not asked of the store.", counted.bytes_served),
            ("evictions", "Images that were removed to make room.", counted.evicted),
            ("saved_requests", "Images served without asking the store.", counted.requests_saved),
            (
                "saved_usd",
                "What S3 takes for so many GETs in us-east-1.",
                counted.requests_saved * GET_USD_PER_MILLION / 1_000_000,
            ),
        )
        for name, about, value in sums:
            yield CounterMetricFamily(f"s3image_cache_{name}_total", about, value)

    def _contents(self) -> Iterator[Metric]:
        held = self._cache.totals()
        yield GaugeMetricFamily("s3image_cache_entries", "Images in the cache.", held.entries)
        yield GaugeMetricFamily("s3image_cache_bytes", "Bytes that they take on disk.", held.taken)


UNROUTED = "none"
"""The route of what leads nowhere."""

_CATALOGUE_SECONDS = (0.005, 0.02, 0.1, 0.5, 2, 10, 60)
"""Buckets from a local file to a slow image model; few, since each is a number per label and worker."""


class Metrics:
    """The metrics of one application over `cache`."""

    def __init__(self, cache: DiskCache) -> None:
        self._registry = own = CollectorRegistry()
        self._cache = CacheCollector(cache)
        counter = partial(Counter, registry=own)
        seconds = partial(Histogram, buckets=_CATALOGUE_SECONDS, registry=own)
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


class MeteredStore(BaseStore):
    """`store`, each call of which is counted and timed."""

    def __init__(self, store: BaseStore, metrics: Metrics) -> None:
        self._store = store
        self._metrics = metrics

    def identity(self) -> str:
        """Not counted: no call of the store."""
        return self._store.identity()

    def put(self, key: str, data: bytes, **options: Any) -> PutResult:
        """Counted as `put`."""
        with self._timed("put"):
            return self._store.put(key, data, **options)

    def get(self, key: str, *, if_none_match: str | None = None) -> StoredObject | None:
        """Counted as `get`; a body that breaks off later is counted as a failed `read`."""
        with self._timed("get"):
            stored = self._store.get(key, if_none_match=if_none_match)
        if stored is None or hasattr(stored.body, "fileno"):  # a server sends files without reading them
            return stored
        return StoredObject(stored.facts, _MeteredBody(stored.body, self._metrics))

    def head(self, key: str) -> ObjectFacts:
        """Counted as `head`."""
        with self._timed("head"):
            return self._store.head(key)

    def delete(self, key: str) -> None:
        """Counted as `delete`."""
        with self._timed("delete"):
            self._store.delete(key)

    def list(self, prefix: str = "", *, limit: int = 100, cursor: str | None = None) -> ObjectPage:
        """Counted as `list`."""
        with self._timed("list"):
            return self._store.list(prefix, limit=limit, cursor=cursor)

    def object_url(self, key: str) -> str | None:
        """Not counted: no call of the store."""
        return self._store.object_url(key)

    def signed_url(self, key: str) -> str | None:
        """Not counted: no call of the store."""
        return self._store.signed_url(key)

    def is_public(self, key: str) -> bool:
        """Not counted: the store asks itself, as a browser would, and seldom."""
        return self._store.is_public(key)

    def _timed(self, call: str) -> Any:
        return timed(self._metrics.store_calls, self._metrics.store_seconds, call)


class _MeteredBody:
    """A body; its failures are counted, its reads are not: there are many, and most wait for nothing."""

    def __init__(self, body: Body, metrics: Metrics) -> None:
        self._body = body
        self._metrics = metrics

    def read(self, size: int = -1, /) -> bytes:
        """As the body does."""
        try:
            return self._body.read(size)
        except AppError as exc:
            self._metrics.store_calls.labels("read", exc.code).inc()
            raise

    def close(self) -> None:
        """As the body does."""
        self._body.close()


class MeteredGenerator(BaseGenerator):
    """`generator`, each call of which is counted and timed."""

    def __init__(self, generator: BaseGenerator, metrics: Metrics) -> None:
        self._generator = generator
        self._metrics = metrics

    def model_name(self) -> str:
        """What draws."""
        return self._generator.model_name()

    def describe_model(self) -> ModelFacts | None:
        """Not counted: the operator asks, not a client."""
        return self._generator.describe_model()

    def generate(self, request: GenerationRequest) -> GeneratedImage:
        """Counted under the model that is set: what a generator says afterwards may be anything."""
        with timed(self._metrics.generations, self._metrics.generation_seconds, self.model_name()):
            return self._generator.generate(request)
