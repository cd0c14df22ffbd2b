"""What every part is given: how long to measure, and where to write."""

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
"""Not /tmp, which may lie in memory."""

SMALL, LARGE = 1_000, 1_000_000
"""Entries of the two caches that are compared."""


@dataclass
class Plan:
    """`rounds` of `seconds` each; `directory` is temporary."""

    rounds: int
    seconds: int
    directory: Path
    _populations: dict[int, Population] = field(default_factory=dict)

    def new_directory(self, name: str) -> Path:
        """An empty directory."""
        path = self.directory / name
        path.mkdir(parents=True)
        return path

    def population(self, entries: int) -> Population:
        """A cache of so many entries; made once, since a million takes its time."""
        if entries not in self._populations:
            say(f"making a cache of {entries:,} entries")
            self._populations[entries] = populate(self.directory / f"entries-{entries}", entries)
        return self._populations[entries]


def rotated(things: Sequence[T], number: int) -> list[T]:
    """The same things, beginning with another one each round: the order shall not matter."""
    start = number % len(things)
    return [*things[start:], *things[:start]]


@contextmanager
def planned(rounds: int, seconds: int) -> Iterator[Plan]:
    """A plan whose directory is removed in the end."""
    directory = Path(tempfile.mkdtemp(prefix="s3-image-server-bench-", dir=_ON_DISK))
    try:
        yield Plan(rounds, seconds, directory)
    finally:
        say("removing temporary files")
        shutil.rmtree(directory, ignore_errors=True)
