"""The bounded disk cache in front of the store, shared by all worker processes of one machine."""

from app.cache.answers import CachedObject, CacheStatus
from app.cache.disk import DiskCache
from app.cache.disorder import OUT_OF_ORDER

__all__ = ["OUT_OF_ORDER", "CacheStatus", "CachedObject", "DiskCache"]
