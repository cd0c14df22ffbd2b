"""Creates caches with any number of entries, without filling them one by one.

One object is stored through the cache itself. Its row in the index is the pattern for all other rows.
Objects that are requested or evicted have separate files. All other files only have to exist, so they are
hard links to a few files. The cache accepts these, since it identifies a file by inode, size and mtime.
"""

import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from app.cache.disk_cache import DiskCache
from app.cache.layout import Layout
from app.cache.lookup import stamped_mtime
from bench.objects import facts_of, key_of, proven
from bench.progress import say

SIZE = 20_000
"""The size of each object in bytes."""

OWN_FILES = 45_000
"""Number of objects with separate files: the `EVICTED` least recently used, and the most recently used."""

EVICTED = 1_500
"""Maximum number of objects that a benchmark evicts."""

_LINKS = 50_000
"""Maximum number of hard links to one file. ext4 allows 65,000."""

_ROOMY = 1 << 50

_ACCESS = 1_600_000_000 * 10**9
"""The atime of the first file in nanoseconds.

It is long ago, so that no file counts as used after its access was recorded.
"""

_Row = tuple[str, int, int]
"""The key, the version and the recorded access of an entry."""


@dataclass(frozen=True)
class Population:
    """A cache in `directory`. `keys` are the keys of recently used objects, which have separate files."""

    directory: Path
    entries: int
    keys: list[str]
    max_bytes: int

    @property
    def cache_dir(self) -> Path:
        """The value for CACHE_DIR."""
        return self.directory / "cache"


def populate(directory: Path, entries: int) -> Population:
    """Create a cache with `entries` objects, the oldest first, and return it.

    `max_bytes` of the result has room for only a few more objects.
    """
    cache_dir = directory / "cache"
    cache = DiskCache(cache_dir, _ROOMY)
    data = os.urandom(SIZE)
    pattern = proven(facts_of(key_of(0), SIZE), data)
    cache.store(pattern, data, cache.epoch(pattern.key))
    cache.close()
    own = min(entries, OWN_FILES)
    recent = range(entries - own + min(EVICTED, entries // 2), entries)
    rows = _create_files(cache_dir / "objects", pattern.key, entries, recent)
    say("writing the index")
    taken = _write_rows(cache_dir / "index.sqlite3", pattern.key, rows)
    index = sum(path.stat().st_size for path in cache_dir.glob("index.sqlite3*"))
    os.sync()  # otherwise the measurements would compete with these writes
    # There is room for a few more objects. After that, each fill evicts an object.
    return Population(directory, entries, [key_of(n) for n in recent], taken + index + 512 * 1024)


def _create_files(objects: Path, pattern: str, entries: int, recent: range) -> list[_Row]:
    """Write or link the files of all objects except the first, and return their rows."""
    data = (objects / pattern).read_bytes()
    created = {pattern.rpartition("/")[0]}
    rows: list[_Row] = []
    shared = 0
    for number in range(1, entries):
        key = key_of(number)
        path = f"{objects}/{key}"
        parent = key.rpartition("/")[0]
        if parent not in created:
            created.add(parent)
            (objects / parent).mkdir(parents=True, exist_ok=True)
        own = number < EVICTED or number in recent
        if own or not shared or number - shared > _LINKS:
            _write(path, data, key, number)
            shared = shared if own else number
        else:
            os.link(f"{objects}/{key_of(shared)}", path)
        rows.append((key, _version(key if own else key_of(shared)), _ACCESS + number))
        if number % 250_000 == 0:
            say(f"{number:,} files")
    return rows


def _write(path: str, data: bytes, key: str, number: int) -> None:
    with open(path, "xb") as file:
        file.write(data)
    os.utime(path, ns=(_ACCESS + number, _version(key)))


def _version(key: str) -> int:
    """Return the mtime with which the cache accepts the file."""
    return stamped_mtime(facts_of(key, SIZE))


def _write_rows(index: Path, pattern: str, rows: list[_Row]) -> int:
    """Copy the row of `pattern` for each key. Return the bytes that the files and the directories take."""
    database = sqlite3.connect(index, isolation_level=None)
    database.execute("PRAGMA synchronous = OFF")
    database.execute("PRAGMA cache_size = -500000")
    columns = [column[1] for column in database.execute("PRAGMA table_info(entry)")]
    values = list(database.execute("SELECT * FROM entry WHERE key = ?", (pattern,)).fetchone())
    positions = [columns.index(name) for name in ("key", "version", "accessed_at")]
    database.execute("BEGIN")
    database.executemany(
        f"INSERT INTO entry VALUES ({', '.join('?' * len(columns))})",
        (_replaced(values, positions, row) for row in sorted(rows)),
    )
    database.execute(
        "UPDATE total SET entries = ?, taken = (SELECT sum(taken) FROM entry), directories = ?",
        (len(rows) + 1, Layout(index.parent).directories_bytes()),
    )
    database.execute("COMMIT")
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    taken: int = database.execute("SELECT taken + directories FROM total").fetchone()[0]
    database.close()
    return taken


def _replaced(values: list[object], positions: list[int], row: _Row) -> list[object]:
    for position, value in zip(positions, row, strict=True):
        values[position] = value
    return values
