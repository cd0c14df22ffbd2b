"""What an immutable object's file says of itself, so that a hit needs no index.

Its modification time is Last-Modified in whole seconds, for front servers, and below the second a checksum of
key, time and size. A file that was cut, written over or moved there by hand has another time or size, and so
does not fit its stamp.
"""

import os
import zlib
from datetime import UTC, datetime

from app.formats import CONTENT_TYPES
from app.objects import ObjectFacts, version_tag

_SECOND = 10**9


def stamped_time(facts: ObjectFacts) -> int:
    """The modification time, in nanoseconds, for the file of an immutable object."""
    seconds = int(facts.last_modified.timestamp())
    return seconds * _SECOND + _stamp(facts.key, seconds, facts.size)


def facts_of(key: str, stat: os.stat_result) -> ObjectFacts | None:
    """The facts of the immutable object `key` from its file; None where the file does not fit its stamp."""
    seconds, stamp = divmod(stat.st_mtime_ns, _SECOND)
    if stamp != _stamp(key, seconds, stat.st_size):
        return None
    modified = datetime.fromtimestamp(seconds, UTC)
    content_type = CONTENT_TYPES[key.rpartition(".")[2]]
    return ObjectFacts(key, stat.st_size, content_type, version_tag(modified, stat.st_size), modified)


def _stamp(key: str, seconds: int, size: int) -> int:
    return zlib.crc32(f"{key} {seconds} {size}".encode()) % _SECOND
