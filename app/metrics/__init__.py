"""What Prometheus is told: counters and times of all worker processes together."""

from app.metrics.catalogue import COUNT_UNREAD, Metrics
from app.metrics.generator import MeteredGenerator
from app.metrics.hits import ROUTE, TELL_HITS
from app.metrics.store import MeteredStore

__all__ = ["COUNT_UNREAD", "ROUTE", "TELL_HITS", "MeteredGenerator", "MeteredStore", "Metrics"]
