"""What Prometheus is told: counters and times of all worker processes together."""

from app.metrics.catalogue import Metrics
from app.metrics.generator import MeteredGenerator
from app.metrics.hits import ROUTE
from app.metrics.store import MeteredStore

__all__ = ["ROUTE", "MeteredGenerator", "MeteredStore", "Metrics"]
