"""What Prometheus is told: counters and times of all worker processes together."""

from app.metrics.catalogue import COUNT_MALFORMED, Metrics
from app.metrics.generator import MeteredGenerator
from app.metrics.hits import FLUSH_HITS, ROUTE
from app.metrics.store import MeteredStore

__all__ = ["COUNT_MALFORMED", "FLUSH_HITS", "ROUTE", "MeteredGenerator", "MeteredStore", "Metrics"]
