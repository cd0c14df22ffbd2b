"""What an immutable object's file says of itself, so that a hit needs no index.

Its modification time is Last-Modified in whole seconds, for front servers, and below the second a checksum of
key, time and size. A file that was cut, written over or moved there by hand has another time or size, and so
does not fit its stamp. Only files whose bytes were compared with their digest get one. The stamp of older
versions, another checksum, was given to whatever had a key of the right shape.
"""

import os
import zlib
from datetime import UTC, datetime

from app.formats import CONTENT_TYPES
from app.objects import ObjectFacts, version_tag

_SECOND = 10**9

_PROVEN = "proven "


def stamped_time(facts: ObjectFacts) -> int:
    """The modification time, in nanoseconds, for the file of an immutable object."""
    seconds = int(facts.last_modified.timestamp())
    return seconds * _SECOND + _stamp(_PROVEN + facts.key, seconds, facts.size)


def facts_of(key: str, stat: os.stat_result) -> ObjectFacts | None:
    """The facts of the immutable object `key` from its file; None where the file does not fit its stamp."""
    return _facts(key, stat, _PROVEN)


def facts_of_unproven(key: str, stat: os.stat_result) -> ObjectFacts | None:
    """The same from a file that an older version has stamped: whole, but its bytes were not compared."""
    return _facts(key, stat, "")


def _facts(key: str, stat: os.stat_result, salt: str) -> ObjectFacts | None:
    seconds, stamp = divmod(stat.st_mtime_ns, _SECOND)
    if stamp != _stamp(salt + key, seconds, stat.st_size):
        return None
    modified = datetime.fromtimestamp(seconds, UTC)
    content_type = CONTENT_TYPES[key.rpartition(".")[2]]
    etag = version_tag(modified, stat.st_size)
    return ObjectFacts(key, stat.st_size, content_type, etag, modified, is_immutable=True)


def _stamp(text: str, seconds: int, size: int) -> int:
    return zlib.crc32(f"{text} {seconds} {size}".encode()) % _SECOND
