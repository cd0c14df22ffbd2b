"""What the cache answers, and how it asks the store."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from app.objects import Body, ObjectFacts, StoredObject

Load = Callable[[str | None], StoredObject | None]
"""Asks the store for the object; given an entity tag, None says that it still has it."""


class CacheStatus(Enum):
    """The cache's result for a request (RFC 9211 has the words)."""

    HIT = "hit"
    MISS = "miss"
    COLLAPSED = "collapsed"
    REVALIDATED = "revalidated"
    STALE = "stale"
    BYPASS = "bypass"


@dataclass(frozen=True, slots=True)
class CachedObject:
    """An object to send: its facts, its body open at the first byte, and the cache's result.

    The body is a file but for BYPASS, when it comes straight from the store. The reader closes it.
    """

    facts: ObjectFacts
    body: Body
    status: CacheStatus
