"""The Prometheus metrics, and the wrappers that count calls to the store and the generator.

`Metrics` holds the counters of one application. The cache has its own counters in files that survive a
restart. `CacheCollector` reads these files only when Prometheus scrapes the metrics, so requests are not
slowed down. `MeteredStore` and `MeteredGenerator` wrap a store and a generator, and count each call.
"""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from app.cache.disk_cache import DiskCache
from app.cache.stats import GET_USD_PER_MILLION
from app.core.errors import (
    AppError,
    Busy,
    InvalidVariant,
    SignatureRefused,
    UndecodableImage,
    VariantNotPermitted,
)
from app.core.objects import Body, ObjectFacts, ObjectPage, PutResult, StoredObject
from app.generators.base import BaseGenerator, GeneratedImage, GenerationRequest, ModelFacts
from app.observability.multiprocess import DIRECTORY
from app.stores.base import BaseStore

ROUTE = "images.serve"
"""The `route` label for images. It is Flask's name for the view, even if an image is served without Flask."""

VARIANT_ROUTE = "images.serve_variant"
"""The `route` label for variants, even if a variant is served without Flask."""

_REFUSALS: tuple[type[AppError], ...] = (
    *UndecodableImage.__subclasses__(),
    UndecodableImage,
    Busy,
    InvalidVariant,
    SignatureRefused,
    VariantNotPermitted,
)
VARIANT_REFUSALS = frozenset(error.code for error in _REFUSALS)
"""The error codes that count as refused variants. Other errors, such as those of the store, don't."""

UNROUTED = "none"
"""The `route` label for requests that match no view or that the server could not parse."""

_FLUSH_SECONDS = 1.0
"""Interval at which new hits are added to the counter."""

_BUCKETS_SECONDS = (0.005, 0.02, 0.1, 0.5, 2, 10, 60)
"""The upper bounds of the histogram buckets. They range from the time of reading a local file to that of a
slow image model. There are few buckets, since each worker keeps a number for each combination of bucket and
label."""


class Metrics:
    """The metrics of one application and of its `cache`."""

    def __init__(self, cache: DiskCache) -> None:
        self._registry = registry = CollectorRegistry()
        self._cache = CacheCollector(cache)
        self.requests = Counter(
            "s3image_requests_total",
            "Responses, including cache hits.",
            ["route", "status"],
            registry=registry,
        )
        self.request_seconds = Histogram(
            "s3image_request_duration_seconds",
            "Time from a request to its response, excluding cache hits.",
            ["route"],
            buckets=_BUCKETS_SECONDS,
            registry=registry,
        )
        self.errors = Counter(
            "s3image_errors_total", "Error responses.", ["route", "code"], registry=registry
        )
        self.store_calls = Counter(
            "s3image_store_calls_total", "Calls to the store.", ["call", "outcome"], registry=registry
        )
        self.store_seconds = Histogram(
            "s3image_store_call_duration_seconds",
            "Duration of a call to the store; for a get, until the body begins.",
            ["call"],
            buckets=_BUCKETS_SECONDS,
            registry=registry,
        )
        self.generations = Counter(
            "s3image_generations_total",
            "Images requested from the generator.",
            ["model", "outcome"],
            registry=registry,
        )
        self.generation_seconds = Histogram(
            "s3image_generation_duration_seconds",
            "Duration of a call to the generator.",
            ["model"],
            buckets=_BUCKETS_SECONDS,
            registry=registry,
        )
        self.variants_made = Counter(
            "s3image_variants_made_total", "Variants that were made.", ["format"], registry=registry
        )
        self.variants_made_bytes = Counter(
            "s3image_variants_made_bytes_total",
            "Bytes of the variants that were made.",
            ["format"],
            registry=registry,
        )
        self.variants_seconds = Histogram(
            "s3image_variants_duration_seconds",
            "Time to make a variant, excluding the time in the queue.",
            ["format"],
            buckets=_BUCKETS_SECONDS,
            registry=registry,
        )
        self.variants_hits = Counter(
            "s3image_variants_hits_total", "Variants served from the cache.", registry=registry
        )
        self.variants_refused = Counter(
            "s3image_variants_refused_total", "Refused requests for variants.", ["reason"], registry=registry
        )
        self.variants_waiting = Gauge(
            "s3image_variants_waiting",
            "Requests that wait for a variant now.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.variants_running = Gauge(
            "s3image_variants_running",
            "Variants that are being made now.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.dropped = Counter(
            "s3image_connections_dropped_total",
            "Connections that the server closed before the client was finished.",
            ["reason"],
            registry=registry,
        )
        self.hits = HitTally(self.requests, self.variants_hits)

    def count_refused(self, status: str, code: str) -> None:
        """Count a response that the server sent without the application. `code` is the code in the body."""
        self.requests.labels(UNROUTED, status).inc()
        self.errors.labels(UNROUTED, code).inc()

    def count_error(self, route: str, code: str) -> None:
        """Count an error response by its route and its code."""
        self.errors.labels(route, code).inc()
        if code in VARIANT_REFUSALS and route in (ROUTE, VARIANT_ROUTE):
            self.variants_refused.labels(code).inc()

    def count_variant(self, image_format: str, seconds: float, size: int) -> None:
        """Count a variant that was made in `seconds` and has `size` bytes."""
        self.variants_made.labels(image_format).inc()
        self.variants_made_bytes.labels(image_format).inc(size)
        self.variants_seconds.labels(image_format).observe(seconds)

    def note_variants(self, waiting: int, running: int) -> None:
        """Add to the number of requests that wait for variants, and of variants that are being made."""
        if waiting:
            self.variants_waiting.inc(waiting)
        if running:
            self.variants_running.inc(running)

    def count_dropped(self, reason: str) -> None:
        """Count a connection that the server closed before its request was completed."""
        self.dropped.labels(reason).inc()

    def exposition(self) -> bytes:
        """Return the metrics of all workers in the text format of Prometheus."""
        self.hits.flush(at_once=True)
        registry = CollectorRegistry()
        shared = os.environ.get(DIRECTORY)
        if shared and Path(shared).is_dir():
            MultiProcessCollector(registry, shared)  # type: ignore[no-untyped-call]
        else:
            registry.register(self._registry)
        registry.register(self._cache)
        return generate_latest(registry)


_HIT_STATUSES = ("200 OK", "206 Partial Content", "304 Not Modified")


class HitTally:
    """Counts hits in plain integers, and adds them to the counters about once a second.

    `requests` counts responses by route and status, and `variants` counts variants.

    Each call of a counter acquires a lock, which would slow down hits. No count is lost between threads,
    since CPython switches threads only at calls and backward jumps, and an addition contains neither.
    """

    def __init__(self, requests: Counter, variants: Counter) -> None:
        self._requests = requests
        self._variants = variants
        self._image_statuses = dict.fromkeys(_HIT_STATUSES, 0)
        self._variant_statuses = dict.fromkeys(_HIT_STATUSES, 0)
        self._flushed = {route: dict.fromkeys(_HIT_STATUSES, 0) for route in (ROUTE, VARIANT_ROUTE)}
        self._due = 0.0

    def add(self, status: str) -> None:
        """Count an image that was sent with this status line, whose status must be 200, 206 or 304."""
        self._image_statuses[status] += 1

    def add_variant(self, status: str) -> None:
        """Count a variant that was sent with this status line, whose status must be 200, 206 or 304."""
        self._variant_statuses[status] += 1

    def flush(self, *, at_once: bool = False) -> None:
        """Add new hits to the counters if a second has passed since the last time, or if `at_once` is set."""
        now = time.monotonic()
        if now < self._due and not at_once:
            return
        self._due = now + _FLUSH_SECONDS
        self._flush(ROUTE, self._image_statuses)
        if variants := self._flush(VARIANT_ROUTE, self._variant_statuses):
            self._variants.inc(variants)

    def _flush(self, route: str, counted: dict[str, int]) -> int:
        """Add the new hits of a route to the counter of responses. Return how many there are."""
        total, flushed = 0, self._flushed[route]
        for status, count in counted.items():
            new, flushed[status] = count - flushed[status], count
            if new:
                self._requests.labels(route, status[:3]).inc(new)
                total += new
        return total


class CacheCollector(Collector):
    """Collects the cache's current size and its counters, which cover all processes and survive restarts."""

    def __init__(self, cache: DiskCache) -> None:
        self._cache = cache

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics. Omit metrics that can't be read now, since a gap is clearer than a zero."""
        yield GaugeMetricFamily("s3image_cache_max_bytes", "CACHE_MAX_BYTES.", self._cache.max_bytes)
        try:
            yield from (*self._counts(), *self._contents())
        except (OSError, sqlite3.Error):
            return

    def _counts(self) -> Iterator[Metric]:
        counted = self._cache.counts.totals()
        results = CounterMetricFamily(
            "s3image_cache_answers_total", "Images served, by the cache's result.", labels=["result"]
        )
        results.add_metric(["hit"], counted.hits)
        results.add_metric(["miss"], counted.misses)
        for result in ("collapsed", "revalidated", "stale", "bypass"):
            results.add_metric([result], getattr(counted, result))
        yield results
        saved_usd = counted.requests_saved * GET_USD_PER_MILLION / 1_000_000
        for name, about, value in (
            ("served_bytes", "Bytes served without a request to the store.", counted.bytes_served),
            ("evictions", "Images removed to make room.", counted.evicted),
            ("saved_requests", "Images served without a request to the store.", counted.requests_saved),
            ("saved_usd", "Price of the saved requests, as S3 GETs in us-east-1.", saved_usd),
        ):
            yield CounterMetricFamily(f"s3image_cache_{name}_total", about, value)

    def _contents(self) -> Iterator[Metric]:
        held = self._cache.totals()
        yield GaugeMetricFamily("s3image_cache_entries", "Images in the cache.", held.entries)
        yield GaugeMetricFamily("s3image_cache_bytes", "Disk space that the images use.", held.taken)


@contextmanager
def _timed(calls: Counter, seconds: Histogram, label: str) -> Iterator[None]:
    """Measure the duration of the block. Count it as `ok`, or under the code of the error that it raises."""
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


class MeteredStore(BaseStore):
    """Wraps `store`, counts the calls to it and measures their duration."""

    def __init__(self, store: BaseStore, metrics: Metrics) -> None:
        self._store = store
        self._metrics = metrics

    def identity(self) -> str:
        """Return the identity of the store. This is not counted, since it makes no request."""
        return self._store.identity()

    def put(self, key: str, data: bytes, **options: Any) -> PutResult:
        """Store the object. This is counted as `put`."""
        with self._counted("put"):
            return self._store.put(key, data, **options)

    def get(self, key: str, *, if_none_match: str | None = None) -> StoredObject | None:
        """Return the object. This is counted as `get`. A failure to read the body is counted as `read`."""
        with self._counted("get"):
            stored = self._store.get(key, if_none_match=if_none_match)
        if stored is None or hasattr(stored.body, "fileno"):  # the kernel sends files
            return stored
        return StoredObject(stored.facts, _MeteredBody(stored.body, self._metrics))

    def head(self, key: str) -> ObjectFacts:
        """Return the `ObjectFacts` of the object. This is counted as `head`."""
        with self._counted("head"):
            return self._store.head(key)

    def delete(self, key: str) -> None:
        """Delete the object. This is counted as `delete`."""
        with self._counted("delete"):
            self._store.delete(key)

    def list(self, prefix: str = "", *, limit: int = 100, cursor: str | None = None) -> ObjectPage:
        """Return a page of objects. This is counted as `list`."""
        with self._counted("list"):
            return self._store.list(prefix, limit=limit, cursor=cursor)

    def object_url(self, key: str) -> str | None:
        """Return the public URL of the object. This is not counted, since it makes no request."""
        return self._store.object_url(key)

    def signed_url(self, key: str) -> str | None:
        """Return a presigned URL. This is not counted, since it makes no request."""
        return self._store.signed_url(key)

    def is_public(self, key: str) -> bool:
        """Return whether anyone can read the object. This is not counted, since it is rare."""
        return self._store.is_public(key)

    def _counted(self, call: str) -> AbstractContextManager[None]:
        return _timed(self._metrics.store_calls, self._metrics.store_seconds, call)


class _MeteredBody:
    """Counts failed reads of `body`. Successful reads are not counted, since there are many."""

    def __init__(self, body: Body, metrics: Metrics) -> None:
        self._body = body
        self._metrics = metrics

    def read(self, size: int = -1, /) -> bytes:
        """Read from the body. If this fails, count the error and raise it again."""
        try:
            return self._body.read(size)
        except AppError as exc:
            self._metrics.store_calls.labels("read", exc.code).inc()
            raise

    def close(self) -> None:
        """Close the body."""
        self._body.close()


class MeteredGenerator(BaseGenerator):
    """Wraps `generator`, counts the requested images and measures how long they take."""

    def __init__(self, generator: BaseGenerator, metrics: Metrics) -> None:
        self._generator = generator
        self._metrics = metrics

    def model_name(self) -> str:
        """Return the name of the configured model."""
        return self._generator.model_name()

    def describe_model(self) -> ModelFacts | None:
        """Return the `ModelFacts` of the model. This is not counted, since only operators call it."""
        return self._generator.describe_model()

    def generate(self, request: GenerationRequest) -> GeneratedImage:
        """Generate the image. It is counted under the name of the configured model.

        The generator may report a different model name with each image.
        """
        calls, seconds = self._metrics.generations, self._metrics.generation_seconds
        with _timed(calls, seconds, self.model_name()):
            return self._generator.generate(request)
