"""What a walk through a container finds before any pixel is decoded."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from app.errors import UndecodableImage

MAX_PARTS = 200_000
"""Segments, chunks, blocks or boxes in one file. Real files have far fewer; reading a file
of empty ones would take seconds per megabyte."""

MAX_PROFILE_BYTES = 4 * 2**20
"""Bytes of a colour profile. The largest in use, for printing presses, have two to three million; decoders
copy profiles several times. For PNG, which compresses them, Pillow's limit is 1 MiB."""

_Part = TypeVar("_Part")


@dataclass(frozen=True, slots=True)
class GainMap:
    """The second picture of an HDR photo, which says how much brighter each part is on screens that can.

    `clean` is a JPEG of `size` (width, height in pixels) without metadata. `parameters` and `iso`, of which
    one may be empty, say in XMP and in ISO 21496-1 how to apply it.
    """

    clean: bytes
    size: tuple[int, int]
    parameters: bytes
    iso: bytes


@dataclass(frozen=True, slots=True)
class Survey:
    """One container, walked to its end.

    `clean` is the same image without metadata and without anything after its end. `width` and `height`, in
    pixels, are those of the canvas before it is turned by `orientation`, EXIF's 1…8, and `frames` is how many
    pictures are shown. The image is refused if a decoder finds other values. `missing_end` are the bytes of
    the container's end marker that the file lacks; `clean` has them.
    """

    clean: bytes
    width: int
    height: int
    frames: int = 1
    orientation: int = 1
    missing_end: bytes = b""
    gain_map: GainMap | None = None

    @property
    def pixels(self) -> int:
        """Return how many pixels have to be decoded, in all frames and in the gain map."""
        width, height = self.gain_map.size if self.gain_map else (0, 0)
        return self.width * self.height * self.frames + width * height


class PartCount:
    """How many parts a walk has met; one for all loops that can run within each other.

    Bounds of their own would multiply: many boxes, each with a table of as many entries as are allowed.
    """

    def __init__(self) -> None:
        self._left = MAX_PARTS

    def add(self, parts: int = 1) -> None:
        """Count this many parts; raises UndecodableImage at the first one over MAX_PARTS."""
        self._left -= parts
        if self._left < 0:
            raise UndecodableImage(detail=f"more than {MAX_PARTS} parts")

    def bounded(self, parts: Iterable[_Part]) -> Iterator[_Part]:
        """The same parts, each of them counted."""
        for part in parts:
            self.add()
            yield part


def bounded(parts: Iterable[_Part]) -> Iterator[_Part]:
    """The same parts; raises UndecodableImage at the first one over MAX_PARTS."""
    return PartCount().bounded(parts)


def check_profile(size: int) -> None:
    """Raise UndecodableImage if a colour profile has more than MAX_PROFILE_BYTES."""
    if size > MAX_PROFILE_BYTES:
        raise UndecodableImage(detail=f"a colour profile of {size} bytes")
