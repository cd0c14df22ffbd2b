"""What a walk through a container finds before any pixel is decoded.

How large an image may be, and the refusal of larger ones.

Reading a container front to back without ever leaving it.

The one EXIF tag that changes how an image looks: its orientation.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self, TypeVar

from app.core.errors import TooManyPixels, UndecodableImage

if TYPE_CHECKING:
    from app.config.settings import Config


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What uploads are held to.

    `formats` are names in `app.core.objects.FORMATS`; `max_pixels` bounds width × height × frames;
    with `strip_metadata` only what is needed to draw the image is stored.
    """

    formats: tuple[str, ...]
    max_pixels: int
    max_frames: int
    strip_metadata: bool

    @classmethod
    def from_config(cls, config: "Config") -> Self:
        """What the settings say."""
        return cls(
            config.allowed_formats, config.max_image_pixels, config.max_image_frames, config.strip_metadata
        )

    def check(self, size: tuple[int, int], frames: int) -> None:
        """Let `frames` frames of `size` (width, height in pixels) pass, or raise TooManyPixels.

        Raises UndecodableImage if nothing could be seen.
        """
        width, height = size
        if not (width and height and frames):
            raise UndecodableImage(detail=f"{frames} frames of {width} × {height}")
        pixels = width * height * frames
        if frames > self.max_frames:
            raise TooManyPixels(
                f"The animation has more frames than the {self.max_frames:,} that are allowed."
            )
        if pixels > self.max_pixels:
            times = f" × {frames:,} frames" if frames > 1 else ""
            raise TooManyPixels(
                f"The image has too many pixels: {width:,} × {height:,}{times} = {pixels:,};"
                f" the limit is {self.max_pixels:,}."
            )


class ByteReader:
    """A cursor over `data[start:end]` that raises UndecodableImage instead of reading short."""

    def __init__(self, data: bytes | bytearray, start: int = 0, end: int | None = None) -> None:
        self.data = data
        self.position = start
        self.end = len(data) if end is None else min(end, len(data))

    @property
    def left(self) -> int:
        """Bytes that have not been read."""
        return self.end - self.position

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        self.skip(count)
        return bytes(self.data[self.position - count : self.position])

    def skip(self, count: int) -> None:
        """Pass over the next `count` bytes."""
        if not 0 <= count <= self.left:
            raise UndecodableImage(detail=f"{count} bytes wanted at {self.position}, {self.left} left")
        self.position += count

    def big(self, count: int) -> int:
        """The next `count` bytes as an unsigned big-endian number."""
        return int.from_bytes(self.take(count), "big")

    def little(self, count: int) -> int:
        """The next `count` bytes as an unsigned little-endian number."""
        return int.from_bytes(self.take(count), "little")


UPRIGHT = 1
QUARTER_TURNED = {5, 6, 7, 8}
"""Orientations that swap width and height."""
_PREFIX = b"Exif\0\0"
_BYTE_ORDERS: dict[bytes, Literal["little", "big"]] = {b"II*\0": "little", b"MM\0*": "big"}
_ORIENTATION_TAG = 0x0112
_SHORT = 3


def orientation_of(exif: bytes) -> int:
    """Orientation 1…8 in a block of EXIF (CIPA DC-008, 4.6.4 A); 1 where it has none or is damaged.

    Cameras write broken EXIF often enough that it is no reason to refuse their pictures.
    """
    try:
        found = _orientation_entry(exif.removeprefix(_PREFIX))
    except UndecodableImage:
        return UPRIGHT
    return found if 1 <= found <= 8 else UPRIGHT


def _orientation_entry(tiff: bytes) -> int:
    order = _BYTE_ORDERS.get(tiff[:4])
    if order is None:
        return UPRIGHT
    directory = ByteReader(tiff, int.from_bytes(tiff[4:8], order))
    for _ in range(int.from_bytes(directory.take(2), order)):
        entry = directory.take(12)
        tag, kind = int.from_bytes(entry[:2], order), int.from_bytes(entry[2:4], order)
        if (tag, kind) == (_ORIENTATION_TAG, _SHORT):
            return int.from_bytes(entry[8:10], order)
    return UPRIGHT


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
