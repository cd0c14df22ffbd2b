"""The bounded disk cache in front of the store, shared by all worker processes of one machine."""

from app.cache.answers import CachedObject, CacheStatus
from app.cache.disk import DiskCache

__all__ = ["CacheStatus", "CachedObject", "DiskCache"]
