"""What a walk through a container finds before any pixel is decoded."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from app.errors import UndecodableImage

MAX_PARTS = 200_000
"""Segments, chunks, blocks or boxes in one file. Real files have far fewer; a file made of empty
ones would keep the walk busy for seconds per megabyte."""

_Part = TypeVar("_Part")


@dataclass(frozen=True, slots=True)
class Survey:
    """One container, walked to its end.

    `clean` is the same image without metadata and without anything after its end.
    `orientation` is EXIF's 1…8. `frames` is None where the decoder knows it better and cheaply.
    """

    clean: bytes
    frames: int | None = None
    orientation: int = 1


class PartCount:
    """How many parts a walk has met; one for all loops that can run within each other.

    Bounds of their own would multiply: many boxes, each with a table of as many entries as are allowed.
    """

    def __init__(self) -> None:
        self._left = MAX_PARTS

    def add(self) -> None:
        """Count one; raises UndecodableImage at the first one over MAX_PARTS."""
        if not self._left:
            raise UndecodableImage(detail=f"more than {MAX_PARTS} parts")
        self._left -= 1

    def bounded(self, parts: Iterable[_Part]) -> Iterator[_Part]:
        """The same parts, each of them counted."""
        for part in parts:
            self.add()
            yield part


def bounded(parts: Iterable[_Part]) -> Iterator[_Part]:
    """The same parts; raises UndecodableImage at the first one over MAX_PARTS."""
    return PartCount().bounded(parts)
