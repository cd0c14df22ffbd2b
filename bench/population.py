"""Caches of any number of entries, made without filling them one by one.

One object is stored through the cache itself; its row in the index is the pattern for all others. Objects
that are asked for or evicted have files of their own. The rest, which only has to be there, are hard links
to a few files: to the cache each is a file like any other, since it tells files by inode, size and time.
"""

import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from app.cache import DiskCache
from bench.objects import facts_of, key_of
from bench.progress import say

SIZE = 20_000
"""Bytes of each object."""

OWN_FILES = 20_000
"""Objects with a file of their own: the first `EVICTED` and the last ones in the order of their use."""

EVICTED = 1_500

_LINKS = 50_000
"""Names given to one inode; ext4 allows 65,000."""

_ROOMY = 1 << 50


@dataclass(frozen=True)
class Population:
    """A cache directory below `directory`; `asked` are keys with files of their own, none of them old."""

    directory: Path
    entries: int
    asked: list[str]
    max_bytes: int

    @property
    def cache_dir(self) -> Path:
        """What CACHE_DIR is to be."""
        return self.directory / "cache"


def populate(directory: Path, entries: int) -> Population:
    """A cache of `entries` objects, the smaller their number the older; `max_bytes` has no room for more."""
    cache_dir = directory / "cache"
    cache = DiskCache(cache_dir, _ROOMY)
    first = facts_of(key_of(0), SIZE)
    cache.store(first, os.urandom(SIZE), cache.epoch(first.key))
    cache.close()
    own = min(entries, OWN_FILES)
    asked = range(entries - own + min(EVICTED, entries // 2), entries)
    directories = _lay_files(cache_dir, first.key, entries, asked)
    _write_rows(cache_dir, first.key, entries, directories)
    used = sum(path.stat().st_size for path in cache_dir.glob("index.sqlite3*"))
    taken = _totals(cache_dir)
    # One object's worth of room: it is gone after the first fills, of which each then evicts one.
    return Population(directory, entries, [key_of(n) for n in asked], taken + used + 256 * 1024)


def _lay_files(cache_dir: Path, pattern: str, entries: int, asked: range) -> int:
    """Write or link every object's file; how many directories that made."""
    objects = cache_dir / "objects"
    data = (objects / pattern).read_bytes()
    made = {pattern.rpartition("/")[0]}
    source = ""
    for number in range(1, entries):
        key = key_of(number)
        parent = key.rpartition("/")[0]
        if parent not in made:
            made.add(parent)
            (objects / parent).mkdir(exist_ok=True)
        path = f"{objects}/{key}"
        if number < EVICTED or number in asked or number % _LINKS == 0 or not source:
            with open(path, "xb") as file:
                file.write(data)
            os.utime(path, ns=_times(number, pattern=number))
            source = "" if number < EVICTED or number in asked else path
        else:
            os.link(source, path)
        if number % 250_000 == 0:
            say(f"{number:,} files")
    return len(made)


def _times(number: int, pattern: int) -> tuple[int, int]:
    """A file's access and modification time: long past, so that nothing counts as used since."""
    return 1_600_000_000 * 10**9 + number, 1_700_000_000 * 10**9 + pattern


def _rows(cache_dir: Path, entries: int) -> Iterator[tuple[str, int, int]]:
    """Key, version and access of each object but the first."""
    for number in range(1, entries):
        key = key_of(number)
        version = (cache_dir / "objects" / key).stat().st_mtime_ns
        yield key, version, _times(number, number)[0]


def _write_rows(cache_dir: Path, pattern: str, entries: int, directories: int) -> None:
    """Copy the pattern's row for every key."""
    database = sqlite3.connect(cache_dir / "index.sqlite3", isolation_level=None)
    columns = [column[1] for column in database.execute("PRAGMA table_info(entry)")]
    exchanged = {"key": "?", "version": "?", "accessed_at": "?"}
    row = ", ".join(exchanged.get(column, column) for column in columns)
    order = [column for column in columns if column in exchanged]
    positions = [("key", "version", "accessed_at").index(column) for column in order]
    statement = f"INSERT INTO entry SELECT {row} FROM entry WHERE key = '{pattern}'"
    database.execute("BEGIN")
    database.executemany(
        statement, (tuple(r[p] for p in positions) for r in sorted(_rows(cache_dir, entries)))
    )
    database.execute(
        "UPDATE total SET entries = ?, taken = (SELECT sum(taken) FROM entry) + ?",
        (entries, (directories + 1) * 4096),
    )
    database.execute("COMMIT")
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()


def _totals(cache_dir: Path) -> int:
    cache = DiskCache(cache_dir, _ROOMY)
    try:
        return cache.totals().taken
    finally:
        cache.close()
