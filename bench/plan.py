"""The plan of a run: how long to measure, and where to write files."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from bench.population import Population, populate
from bench.progress import say

T = TypeVar("T")

_ON_DISK = Path("/var/tmp")
"""The parent of the temporary directory. It is not /tmp, which may be in memory."""

SMALL, LARGE = 1_000, 1_000_000
"""The numbers of entries in the two caches that are compared."""


@dataclass
class Plan:
    """How to measure: in `rounds`, for `seconds` each. `directory` is removed at the end."""

    rounds: int
    seconds: int
    directory: Path
    _populations: dict[int, Population] = field(default_factory=dict)

    def new_directory(self, name: str) -> Path:
        """Create an empty directory in the temporary directory, and return its path."""
        path = self.directory / name
        path.mkdir(parents=True)
        return path

    def population(self, entries: int) -> Population:
        """Return a cache with `entries` entries. It is created only once, since a million take minutes."""
        if entries not in self._populations:
            say(f"creating a cache of {entries:,} entries")
            self._populations[entries] = populate(self.directory / f"entries-{entries}", entries)
        return self._populations[entries]


def rotated(items: Sequence[T], number: int) -> list[T]:
    """Return the items in rotated order, so that each round starts with a different item."""
    start = number % len(items)
    return [*items[start:], *items[:start]]


@contextmanager
def planned(rounds: int, seconds: int) -> Iterator[Plan]:
    """Yield a plan, and remove its directory at the end of the block."""
    directory = Path(tempfile.mkdtemp(prefix="s3-image-server-bench-", dir=_ON_DISK))
    try:
        yield Plan(rounds, seconds, directory)
    finally:
        say("removing temporary files")
        shutil.rmtree(directory, ignore_errors=True)
