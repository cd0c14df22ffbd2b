"""What the cache itself knows: read when Prometheus asks, so that counting it costs no request anything."""

import sqlite3
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from app.bucket.savings import saved_usd
from app.cache import DiskCache


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
            ("saved_usd", "What S3 takes for so many GETs in us-east-1.", saved_usd(counted.requests_saved)),
        )
        for name, about, value in sums:
            yield CounterMetricFamily(f"s3image_cache_{name}_total", about, value)

    def _contents(self) -> Iterator[Metric]:
        held = self._cache.totals()
        yield GaugeMetricFamily("s3image_cache_entries", "Images in the cache.", held.entries)
        yield GaugeMetricFamily("s3image_cache_bytes", "Bytes that they take on disk.", held.taken)
