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


def bounded(parts: Iterable[_Part]) -> Iterator[_Part]:
    """The same parts; raises UndecodableImage at the first one over MAX_PARTS."""
    for index, part in enumerate(parts):
        if index == MAX_PARTS:
            raise UndecodableImage(detail=f"more than {MAX_PARTS} parts")
        yield part
