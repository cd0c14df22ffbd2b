"""Decoding in full, the only proof that bytes are an image.

Pillow's readers of PNG, GIF and JPEG, made to refuse frames of which something is missing.

All three leave the rest of such a frame empty or grey without a word, as browsers do. The decoders of WebP
and AVIF report it.
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
from app.core.objects import ImageFormat
from app.imaging.jpeg_segments import END, SOS, segments
from app.imaging.png import check_rows
from app.imaging.survey import QUARTER_TURNED, orientation_of

_INK = (1, 254, 1, 7)
"""A colour that is rare in the last rows of images."""

_ONES = b"\xff\x00"
"""Eight one bits within a scan: no Huffman code consists of ones alone (T.81, C.2)."""
_READ_AHEAD = 8
"""Bytes that libjpeg reads ahead of the code that it decodes."""
_TALLEST_BLOCKS = 64
"""Rows in which a change of the last block of a JPEG can be seen, subsampled up to four times."""


class WholePng(PngImageFile):
    """A PNG of which each frame has all of its rows.

    Pillow ends without an error where the compressed data does. So the last row gets a colour first. If it
    still has that colour afterwards, or if rows do not come one after the other, they are counted.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._counted = False
        super().__init__(BytesIO(data))

    def load_prepare(self) -> None:
        """Prepare to decode a frame."""
        if self._im is None:
            canvas = Image.new(self.mode, self.size, None)
            canvas.paste(self._ink_row(), self._last_row())
            self.im = canvas.im
        super().load_prepare()

    def load_end(self) -> None:
        """Check the frame that was decoded, and read the chunks that follow."""
        one_by_one = not self.info.get("interlace") and getattr(self, "n_frames", 1) == 1
        if not (one_by_one and self._last_row_is_drawn()) and not self._counted:
            check_rows(self._data)
            self._counted = True
        super().load_end()

    def _last_row_is_drawn(self) -> bool:
        return self.crop(self._last_row()).tobytes() != self._ink_row().tobytes()

    def _ink_row(self) -> Image.Image:
        bands = len(Image.Image.getbands(self))
        return Image.new(self.mode, (self.width, 1), _INK[0] if bands == 1 else _INK[:bands])

    def _last_row(self) -> tuple[int, int, int, int]:
        return 0, self.height - 1, self.width, self.height


class WholeGif(GifImageFile):
    """A GIF of which each frame has all of its pixels.

    Pillow goes on with whatever follows the frame's data; here that data is all that it can read.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._left = 0
        super().__init__(BytesIO(data))

    def load_prepare(self) -> None:
        """Prepare to decode a frame."""
        end = start = self.tile[0].offset
        while self._data[end]:
            end += 1 + self._data[end]
        self._left = end - start
        super().load_prepare()

    def load_read(self, read_bytes: int) -> bytes:
        """Return the next bytes of the frame's data; nothing at its end, which Pillow takes as an error."""
        read_bytes = min(read_bytes, self._left)
        self._left -= read_bytes
        assert self.fp is not None
        return self.fp.read(read_bytes)


class WholeJpeg(JpegImageFile):
    """A JPEG of which each scan has the data for all of its blocks.

    At a marker libjpeg takes the rest of a scan for grey, and only counts a warning. So it gets each scan
    without the marker that follows: then it stops where something is missing, and asks for more. What it
    reads ahead, `padding`, hides the loss of a scan's last block, or two. With `exact` the file ends with its
    last scan, which may not have data that nothing needs.
    """

    def __init__(self, data: bytes, *, exact: bool = False, padding: bytes = _ONES * _READ_AHEAD) -> None:
        self._data = data
        self._exact = exact
        self._padding = padding
        super().__init__(BytesIO(data))

    def load(self) -> Any:
        """Decode the picture, once."""
        if self.tile:
            self.load_prepare()
            tile = self.tile[0]
            decoder = Image._getdecoder(self.mode, tile.codec_name, tile.args, self.decoderconfig)
            try:
                decoder.setimage(self.im, tile.extents)
                _Feed(self._data, decoder.decode).run(self._padding, exact=self._exact)
            finally:
                decoder.cleanup()
            self.tile = []
            self.load_end()
        return super().load()


class _Feed:
    """Gives a JPEG to a decoder.

    `decode` takes bytes, and returns how many it used, or -1 and an error code.
    """

    def __init__(self, data: bytes, decode: Callable[[bytes], tuple[int, int]]) -> None:
        self._data = data
        self._decode = decode
        self._at = 0
        self._done = False

    def run(self, padding: bytes, *, exact: bool) -> None:
        """Decode all scans, with `padding` after each.

        Raises OSError if one is cut, or if `exact` and the last one is too long.
        """
        ends = self._ends_of_scans()
        for end in ends:
            if exact and end == ends[-1] and self._is_complete(end - _READ_AHEAD):
                raise OSError("data behind the last block")
            if not self._is_complete(end, padding):
                raise OSError(f"the scan that ends at {end} is cut")
            if self._done:
                return
        self._give(self._data[self._at :] + END)
        if not self._done:
            raise OSError("the image has no end")

    def _ends_of_scans(self) -> list[int]:
        """Return where scans end that are not there already: a scan that is repeated refines nothing.

        It may even be too short, since it finds more that could be refined than it did before.
        """
        ends: dict[tuple[bytes, bytes], int] = {}
        for segment in segments(self._data):
            if segment.marker == SOS:
                ends.setdefault((segment.payload, segment.scan), segment.end)
        return list(ends.values())

    def _is_complete(self, end: int, padding: bytes = b"") -> bool:
        """Give the bytes up to `end`, and return whether no block of the current scan is missing.

        Between scans libjpeg passes over anything that is not a marker. Within one it keeps a byte only if a
        block ends with it, and to find out it would have to read ahead further.
        """
        left = self._give(self._data[self._at : end] + padding)
        if left and not padding:
            end -= left
        self._at = end
        return self._done or (not left and not self._give(_ONES))

    def _give(self, piece: bytes) -> int:
        """Decode the bytes, and return how many were not used. Raises OSError if they are damaged."""
        if self._done:
            return 0
        used, error = self._decode(piece)
        if error < 0:
            raise OSError(f"a decoder's error, {error}")
        self._done = used < 0
        return 0 if self._done else len(piece) - used


WHOLE: dict[str, Callable[[bytes], ImageFile.ImageFile]] = {
    "png": WholePng,
    "gif": WholeGif,
    "jpeg": WholeJpeg,
}
"""Readers by format, for those formats that need one."""


def check_ends_with_its_scan(data: bytes, size: tuple[int, int]) -> None:
    """Raise UndecodableImage unless a JPEG without end marker has the data of its blocks, and no more.

    A cut picture with something else behind it would pass for a whole one otherwise. To find out whether the
    last block is there, it is decoded more than once: what is read ahead may not be seen. One padding is not
    enough, and nor are zeros and ones: zeros may be the code that ends a block, and ones, which are no code,
    end it as well. Of the others at least one goes on with a block that is cut.
    """
    last_blocks = set()
    for padding in (_ONES * _READ_AHEAD, *(bytes((byte,)) * _READ_AHEAD for byte in (0x00, 0x55, 0xAA))):
        with WholeJpeg(data, exact=True, padding=padding) as image:
            if image.size != size:
                raise UndecodableImage(detail=f"{image.size} decoded, {size} judged")
            last_blocks.add(image.crop((0, max(0, size[1] - _TALLEST_BLOCKS), *size)).tobytes())
    if len(last_blocks) > 1:
        raise UndecodableImage(detail="the last block is cut")


# Our limits are checked before anything is decoded. Pillow's own one would come twice, and between
# once and twice its value it warns instead of refusing.
Image.MAX_IMAGE_PIXELS = None
# Half a picture is no picture: Pillow's default, which other code in the process might have changed.
ImageFile.LOAD_TRUNCATED_IMAGES = False


@contextmanager
def undecodable() -> Iterator[None]:
    """Turn whatever a decoder raises into UndecodableImage.

    Hostile bytes bring out OSError, SyntaxError, ValueError, struct.error, IndexError, KeyError,
    OverflowError, zlib.error, MemoryError, EOFError and more; no list of them would stay complete.
    """
    try:
        yield
    except AppError:
        raise
    except Exception as error:
        raise UndecodableImage(detail=repr(error)) from error


@contextmanager
def opened(data: bytes, format: ImageFormat, size: tuple[int, int]) -> Iterator[ImageFile.ImageFile]:
    """Open the image: its header is read, and no pixel decoded.

    Raises UndecodableImage if the decoder finds another size than `size`, width and height in pixels. A GIF
    may begin smaller and grow with its frames. To load a frame of which something is missing raises.
    """
    reader = WHOLE.get(format.name)
    with reader(data) if reader else Image.open(BytesIO(data), formats=[format.pillow]) as image:
        _check_size(image, size, grows=format.name == "gif")
        yield image


def decode(data: bytes, format: ImageFormat, size: tuple[int, int], frames: int) -> tuple[int, int]:
    """Decode every frame, one at a time, and return (width, height) as seen, in pixels.

    `size` and `frames` are those found in the container. Raises UndecodableImage if a frame is damaged or
    missing, or if the decoder finds another size or number of frames.
    """
    with undecodable(), opened(data, format, size) as image:
        found = int(getattr(image, "n_frames", 1)) if format.name != "jpeg" else 1
        if found != frames:
            raise UndecodableImage(detail=f"{found} frames decoded, {frames} judged")
        for index in range(frames):
            image.seek(index)
            _check_size(image, size, grows=format.name == "gif")
            image.load()
            _check_size(image, size, grows=format.name == "gif" and index < frames - 1)
        return _size_as_seen(image)


def _check_size(image: ImageFile.ImageFile, size: tuple[int, int], *, grows: bool) -> None:
    smaller = grows and image.width <= size[0] and image.height <= size[1]
    if image.size != size and not smaller:
        raise UndecodableImage(detail=f"{image.size} decoded, {size} judged")


def _size_as_seen(image: ImageFile.ImageFile) -> tuple[int, int]:
    """Width and height; Pillow tells of AVIF's own rotation as EXIF and leaves the turning to us."""
    width, height = image.size
    turned = image.format == "AVIF" and orientation_of(image.info.get("exif", b"")) in QUARTER_TURNED
    return (height, width) if turned else (width, height)
