"""Decode images completely with Pillow. Only complete decoding proves that a file is a complete image.

If data is missing at the end of a frame, Pillow's PNG, GIF and JPEG readers leave the rest of the frame empty
or grey, as browsers do, and raise no error. The subclasses below reject such frames. The decoders of WebP and
AVIF report missing data themselves.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

from PIL import Image, ImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from app.core.errors import AppError, UndecodableImage
from app.core.object_metadata import ImageInfo
from app.core.objects import ImageFormat
from app.imaging.jpeg_segments import END, SOS, segments
from app.imaging.pixels import has_transparency
from app.imaging.png import check_rows
from app.imaging.survey import SIDEWAYS_ORIENTATIONS, UPRIGHT, exif_orientation
from app.imaging.thumbhash import thumbhash

# Our limits are checked before anything is decoded, so Pillow's own limit is not needed. Besides, Pillow only
# warns about images up to twice its limit.
Image.MAX_IMAGE_PIXELS = None
# Truncated images must fail. This is Pillow's default, but other code in the process might have changed it.
ImageFile.LOAD_TRUNCATED_IMAGES = False

_MARK_COLOUR = (1, 254, 1, 7)
"""A colour that rarely occurs in the last row of an image."""

_ONES = b"\xff\x00"
"""Eight one bits within a JPEG scan. No Huffman code consists only of ones (T.81, C.2)."""
_READ_AHEAD_BYTES = 8
"""How many bytes libjpeg reads beyond the Huffman code that it is decoding."""
_LAST_BLOCK_ROWS = 64
"""Maximum number of rows at the lower edge of a JPEG that a change of its last block can affect, if colours
are subsampled by a factor of at most four."""


@contextmanager
def decoder_errors() -> Iterator[None]:
    """Raise UndecodableImage for every exception that a decoder raises.

    Hostile bytes cause OSError, SyntaxError, ValueError, struct.error, IndexError, KeyError, OverflowError,
    zlib.error, MemoryError, EOFError and other exceptions. A list of them could never be complete. An
    AppError is passed on unchanged.
    """
    try:
        yield
    except AppError:
        raise
    except Exception as error:
        raise UndecodableImage(detail=repr(error)) from error


@contextmanager
def open_image(data: bytes, format: ImageFormat, size: tuple[int, int]) -> Iterator[ImageFile.ImageFile]:
    """Open an image: read its header without decoding pixels. If a frame is incomplete, loading it fails.

    Raises UndecodableImage if the decoder finds a size other than `size`, the width and height in pixels. A
    GIF is allowed to start smaller and grow with its frames.
    """
    reader = _READERS.get(format.name)
    with reader(data) if reader else Image.open(BytesIO(data), formats=[format.pillow]) as image:
        _check_size(image, size, grows=format.name == "gif")
        yield image


def decode(data: bytes, format: ImageFormat, size: tuple[int, int], frames: int) -> ImageInfo:
    """Decode all frames, one at a time, and return the facts about the image. Its size is as viewers show it.

    `size` and `frames` are the values found in the container. Raises UndecodableImage if a frame is damaged
    or missing, or if the decoder finds a different size or number of frames.
    """
    with decoder_errors(), open_image(data, format, size) as image:
        found = int(getattr(image, "n_frames", 1)) if format.name != "jpeg" else 1
        if found != frames:
            raise UndecodableImage(detail=f"{found} frames decoded, {frames} in the container")
        shown_first = first_frame(image)
        orientation = shown_orientation(image)
        has_alpha, placeholder = False, ""
        for index in range(frames):
            image.seek(index)
            _check_size(image, size, grows=format.name == "gif")
            image.load()
            _check_size(image, size, grows=format.name == "gif" and index < frames - 1)
            if index == shown_first:
                has_alpha, placeholder = has_transparency(image), thumbhash(image, orientation)
        width, height = image.size[::-1] if orientation in SIDEWAYS_ORIENTATIONS else image.size
        return ImageInfo(width, height, frames, has_alpha, placeholder)


def first_frame(image: ImageFile.ImageFile) -> int:
    """Return the index of the first frame that viewers show.

    In an animated PNG, the picture before it is only for viewers without animation.
    """
    return int(bool(image.info.get("default_image")))


def shown_orientation(image: ImageFile.ImageFile) -> int:
    """Return the EXIF orientation that viewers apply to an image without metadata.

    Pillow reports the rotation properties of an AVIF as EXIF, and does not rotate the image itself.
    """
    return exif_orientation(image.info.get("exif", b"")) if image.format == "AVIF" else UPRIGHT


def check_jpeg_without_end_marker(data: bytes, size: tuple[int, int]) -> None:
    """Raise UndecodableImage unless a JPEG without an end marker has exactly the data that its blocks need.

    Without this check, a truncated image followed by other bytes would be accepted as complete. To find out
    whether the last block is complete, the image is decoded several times, each time with different padding
    after its end. A complete block is decoded to the same pixels each time.

    An all-ones padding is never a valid code, so the decoder ends the block there. An all-zeros padding may
    be the end-of-block code. Both can give the same result for a truncated block, so two more paddings are
    tried; at least one of them gives a different result.
    """
    last_blocks = set()
    ones, *others = (_ONES, b"\x00", b"\x55", b"\xaa")
    for padding in (ones * _READ_AHEAD_BYTES, *(byte * _READ_AHEAD_BYTES for byte in others)):
        with CompleteJpeg(data, exact=True, padding=padding) as image:
            if image.size != size:
                raise UndecodableImage(detail=f"{image.size} decoded, {size} in the container")
            last_blocks.add(image.crop((0, max(0, size[1] - _LAST_BLOCK_ROWS), *size)).tobytes())
    if len(last_blocks) > 1:
        raise UndecodableImage(detail="the last block is truncated")


def _check_size(image: ImageFile.ImageFile, size: tuple[int, int], *, grows: bool) -> None:
    smaller = grows and image.width <= size[0] and image.height <= size[1]
    if image.size != size and not smaller:
        raise UndecodableImage(detail=f"{image.size} decoded, {size} in the container")


class CompletePng(PngImageFile):
    """A PNG reader that raises an error on loading if rows of a frame are missing.

    Pillow stops without an error where the compressed data ends. Therefore, the last row is filled with a
    rare colour before decoding. If the row still has that colour after decoding, the rows in the file are
    counted. In interlaced images and animations, the last row is not necessarily decoded last, so their rows
    are always counted.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._counted = False
        super().__init__(BytesIO(data))

    def load_prepare(self) -> None:
        """Prepare to decode a frame."""
        if self._im is None:
            canvas = Image.new(self.mode, self.size, None)
            canvas.paste(self._marked_row(), self._last_row())
            self.im = canvas.im
        super().load_prepare()

    def load_end(self) -> None:
        """Check the frame that was decoded, and read the chunks that follow."""
        in_order = not self.info.get("interlace") and getattr(self, "n_frames", 1) == 1
        last_row_drawn = in_order and self.crop(self._last_row()).tobytes() != self._marked_row().tobytes()
        if not last_row_drawn and not self._counted:
            check_rows(self._data)
            self._counted = True
        super().load_end()

    def _marked_row(self) -> Image.Image:
        bands = len(Image.Image.getbands(self))
        return Image.new(self.mode, (self.width, 1), _MARK_COLOUR[0] if bands == 1 else _MARK_COLOUR[:bands])

    def _last_row(self) -> tuple[int, int, int, int]:
        return 0, self.height - 1, self.width, self.height


class CompleteGif(GifImageFile):
    """A GIF reader that raises an error on loading if pixels of a frame are missing.

    Pillow would read beyond the end of the frame's data and decode whatever follows. This class stops Pillow
    at the end of the data.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._remaining = 0
        super().__init__(BytesIO(data))

    def load_prepare(self) -> None:
        """Find the end of the frame's data, and prepare to decode it."""
        end = start = self.tile[0].offset
        while self._data[end]:
            end += 1 + self._data[end]
        self._remaining = end - start
        super().load_prepare()

    def load_read(self, read_bytes: int) -> bytes:
        """Return the next bytes of the frame's data.

        At the end of the data, return no bytes. Pillow raises an error if it needs more.
        """
        read_bytes = min(read_bytes, self._remaining)
        self._remaining -= read_bytes
        assert self.fp is not None
        return self.fp.read(read_bytes)


class CompleteJpeg(JpegImageFile):
    """A JPEG reader that raises an error on loading if the data of a block is missing in a scan.

    When libjpeg meets a marker, it fills the rest of the scan with grey and only counts a warning. Therefore,
    this class gives it each scan without the marker that follows. If data is missing, libjpeg stops and
    requests more.

    libjpeg also reads ahead, so it is given `padding` after each scan. Because of the padding, this class
    does not notice if only the last one or two blocks of a scan are missing. If `exact` is true, the file
    must end with its last scan, and that scan must not have more data than its blocks need.
    """

    def __init__(
        self, data: bytes, *, exact: bool = False, padding: bytes = _ONES * _READ_AHEAD_BYTES
    ) -> None:
        self._data = data
        self._exact = exact
        self._padding = padding
        super().__init__(BytesIO(data))

    def load(self) -> Any:
        """Decode the picture if it has not been decoded yet."""
        if self.tile:
            self.load_prepare()
            tile = self.tile[0]
            decoder = Image._getdecoder(self.mode, tile.codec_name, tile.args, self.decoderconfig)
            try:
                decoder.setimage(self.im, tile.extents)
                _ScanFeeder(self._data, decoder.decode).run(self._padding, exact=self._exact)
            finally:
                decoder.cleanup()
            self.tile = []
            self.load_end()
        return super().load()


class _ScanFeeder:
    """Feeds a JPEG to a decoder, scan by scan.

    `decode` takes bytes and returns a pair: the number of bytes that it used (-1 once the image is finished),
    and an error code (negative after an error).
    """

    def __init__(self, data: bytes, decode: Callable[[bytes | memoryview], tuple[int, int]]) -> None:
        self._data = data
        self._decode = decode
        self._position = 0
        self._done = False

    def run(self, padding: bytes, *, exact: bool) -> None:
        """Decode all scans, with `padding` after each of them.

        Raises OSError if a scan is truncated, or if `exact` is true and the last scan is too long.
        """
        ends = self._scan_ends()
        for end in ends:
            if exact and end == ends[-1] and self._is_complete(end - _READ_AHEAD_BYTES):
                raise OSError("data after the last block")
            if not self._is_complete(end, padding):
                raise OSError(f"the scan that ends at {end} is truncated")
            if self._done:
                return
        self._feed(self._data[self._position :] + END)
        if not self._done:
            raise OSError("the image has no end")

    def _scan_ends(self) -> list[int]:
        """Return the offsets at which the scans end. Repeated scans are left out, since they refine nothing.

        A repeated scan may even seem too short: when it is decoded for the second time, it has more to refine
        than the first time.
        """
        scans: dict[bytes, list[memoryview]] = {}
        ends = []
        for segment in segments(self._data):
            if segment.marker == SOS:
                same_header = scans.setdefault(segment.payload, [])
                if segment.scan not in same_header:
                    same_header.append(segment.scan)
                    ends.append(segment.end)
        return ends

    def _is_complete(self, end: int, padding: bytes = b"") -> bool:
        """Feed the decoder the bytes up to `end`, and return whether the current scan has all of its blocks.

        Between scans, libjpeg skips anything that is not a marker, so it uses all bytes. Within a scan, it
        uses a byte only if a block ends with that byte, and to find the end of a block, it needs to read
        further ahead. So if libjpeg uses all bytes and one more byte of padding, the scan has ended.
        """
        unused = self._feed(memoryview(self._data)[self._position : end])
        if padding:
            unused = self._feed(self._data[end - unused : end] + padding)
        if unused and not padding:
            end -= unused
        self._position = end
        return self._done or (not unused and not self._feed(_ONES))

    def _feed(self, piece: bytes | memoryview) -> int:
        """Decode the bytes, and return how many of them were not used. Raises OSError if they are damaged."""
        if self._done:
            return 0
        used, error = self._decode(piece)
        if error < 0:
            raise OSError(f"decoder error {error}")
        self._done = used < 0
        return 0 if self._done else len(piece) - used


_READERS: dict[str, Callable[[bytes], ImageFile.ImageFile]] = {
    "png": CompletePng,
    "gif": CompleteGif,
    "jpeg": CompleteJpeg,
}
"""Our readers, keyed by format. They replace the readers of Pillow that accept incomplete frames."""
