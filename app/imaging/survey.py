"""What the container parsers share: the limits, a bounds-checked reader, and the type of the result.

A parser (`survey_png`, `survey_jpeg`, …) reads a container from front to back without decoding any pixels. It
refuses files that exceed the limits, and returns what it found as a `Survey`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self, TypeVar

from app.core.errors import TooManyPixels, UndecodableImage

if TYPE_CHECKING:
    from app.config.settings import Config

MAX_PARTS = 200_000
"""Maximum number of segments, chunks, blocks or boxes in a file. Real files have far fewer. Without
this limit, parsing a file full of empty parts would take seconds per megabyte."""

MAX_PROFILE_BYTES = 4 * 2**20
"""Maximum size of a colour profile in bytes. Decoders copy profiles several times. The largest profiles in
use, those for printing presses, have two to three million bytes. In PNG files, profiles are compressed, and
Pillow refuses those that decompress to more than 1 MiB."""

UPRIGHT = 1
SIDEWAYS_ORIENTATIONS = {5, 6, 7, 8}
"""The EXIF orientations in which width and height are swapped."""

_Part = TypeVar("_Part")


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """The limits for every image.

    `formats` are the allowed formats, by their names in `app.core.objects.FORMATS`. `max_pixels` limits width
    × height × frames. If `strip_metadata` is true, only the data that is needed to draw the image is stored.
    """

    formats: tuple[str, ...]
    max_pixels: int
    max_frames: int
    strip_metadata: bool

    @classmethod
    def from_config(cls, config: "Config") -> Self:
        """Return the limits given by the settings."""
        return cls(
            config.allowed_formats, config.max_image_pixels, config.max_image_frames, config.strip_metadata
        )

    def check(self, size: tuple[int, int], frames: int) -> None:
        """Raise TooManyPixels if `frames` frames of `size` (width and height in pixels) exceed the limits.

        Raises UndecodableImage if the width, the height or the number of frames is 0.
        """
        width, height = size
        if not (width and height and frames):
            raise UndecodableImage(detail=f"{frames} frames of {width} × {height}")
        pixels = width * height * frames
        if frames > self.max_frames:
            raise TooManyPixels(
                f"The animation has too many frames; the limit is {self.max_frames:,}. Upload a shorter one."
            )
        if pixels > self.max_pixels:
            times = f" × {frames:,} frames" if frames > 1 else ""
            raise TooManyPixels(
                f"The image has too many pixels: {width:,} × {height:,}{times} = {pixels:,};"
                f" the limit is {self.max_pixels:,}."
            )


@dataclass(frozen=True, slots=True)
class GainMap:
    """The second picture of an HDR photo. It says how much brighter each part of it is on an HDR screen.

    `clean` is the gain map as a JPEG without metadata, and `size` is its width and height in pixels. `xmp`
    and `iso` say how to apply the gain map: `xmp` as XMP, and `iso` in the form of ISO 21496-1. One of the
    two may be empty.
    """

    clean: bytes
    size: tuple[int, int]
    xmp: bytes
    iso: bytes


@dataclass(frozen=True, slots=True)
class Survey:
    """What a parser found in a container. If the decoder finds different values, the image is refused.

    `clean` is the image without metadata and without bytes after its end. It may be incomplete if the limits
    don't say that metadata is to be stripped. `width` and `height` are the size
    of the canvas in pixels, before it is rotated according to `orientation`, the EXIF orientation 1…8.
    `frames` is the number of frames shown. `missing_end` is the part of the end marker that is missing in the
    file; in `clean`, the end marker is complete.
    """

    clean: bytes
    width: int
    height: int
    frames: int = 1
    orientation: int = UPRIGHT
    missing_end: bytes = b""
    gain_map: GainMap | None = None

    @property
    def pixels(self) -> int:
        """Return the number of pixels to decode, in all frames and in the gain map."""
        width, height = self.gain_map.size if self.gain_map else (0, 0)
        return self.width * self.height * self.frames + width * height


class ByteReader:
    """A cursor over `data[start:end]`. Raises UndecodableImage instead of reading past the end."""

    def __init__(self, data: bytes | bytearray, start: int = 0, end: int | None = None) -> None:
        self.data = data
        self.position = start
        self.end = len(data) if end is None else min(end, len(data))

    @property
    def remaining(self) -> int:
        """Return the number of unread bytes."""
        return self.end - self.position

    def read(self, count: int) -> bytes:
        """Return the next `count` bytes."""
        self.skip(count)
        return bytes(self.data[self.position - count : self.position])

    def skip(self, count: int) -> None:
        """Move forward by `count` bytes."""
        if not 0 <= count <= self.remaining:
            raise UndecodableImage(detail=f"{count} bytes wanted at {self.position}, {self.remaining} left")
        self.position += count

    def uint_be(self, count: int) -> int:
        """Return the next `count` bytes as an unsigned big-endian number."""
        return int.from_bytes(self.read(count), "big")

    def uint_le(self, count: int) -> int:
        """Return the next `count` bytes as an unsigned little-endian number."""
        return int.from_bytes(self.read(count), "little")


class PartCounter:
    """Counts the parts of a file, up to MAX_PARTS. All loops of a parser share one counter.

    With a separate limit for each loop, the limits would multiply: a file could have many boxes, each of them
    with a table of the maximum length.
    """

    def __init__(self) -> None:
        self._remaining = MAX_PARTS

    def add(self, parts: int = 1) -> None:
        """Count `parts` more parts. Raises UndecodableImage if the total exceeds MAX_PARTS."""
        self._remaining -= parts
        if self._remaining < 0:
            raise UndecodableImage(detail=f"more than {MAX_PARTS} parts")

    def counted(self, parts: Iterable[_Part]) -> Iterator[_Part]:
        """Yield the parts, and count each of them."""
        for part in parts:
            self.add()
            yield part


def limit_parts(parts: Iterable[_Part]) -> Iterator[_Part]:
    """Yield the parts. Raises UndecodableImage if there are more than MAX_PARTS."""
    return PartCounter().counted(parts)


def check_profile_size(size: int) -> None:
    """Raise UndecodableImage if a colour profile has more than MAX_PROFILE_BYTES."""
    if size > MAX_PROFILE_BYTES:
        raise UndecodableImage(detail=f"a colour profile of {size} bytes")


_EXIF_PREFIX = b"Exif\0\0"
_BYTE_ORDERS: dict[bytes, Literal["little", "big"]] = {b"II*\0": "little", b"MM\0*": "big"}
_ORIENTATION_TAG = 0x0112
_SHORT = 3


def exif_orientation(exif: bytes) -> int:
    """Return the orientation, 1…8, in a block of EXIF data (CIPA DC-008, 4.6.4 A).

    Return 1 if the block has no orientation or is damaged. Images with damaged EXIF data are not refused,
    because many cameras write such data.
    """
    try:
        found = _orientation_entry(exif.removeprefix(_EXIF_PREFIX))
    except UndecodableImage:
        return UPRIGHT
    return found if 1 <= found <= 8 else UPRIGHT


def _orientation_entry(tiff: bytes) -> int:
    order = _BYTE_ORDERS.get(tiff[:4])
    if order is None:
        return UPRIGHT
    directory = ByteReader(tiff, int.from_bytes(tiff[4:8], order))
    for _ in range(int.from_bytes(directory.read(2), order)):
        entry = directory.read(12)
        tag, kind = int.from_bytes(entry[:2], order), int.from_bytes(entry[2:4], order)
        if (tag, kind) == (_ORIENTATION_TAG, _SHORT):
            return int.from_bytes(entry[8:10], order)
    return UPRIGHT
