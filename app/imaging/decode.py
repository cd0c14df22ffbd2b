"""Decoding in full, the only proof that bytes are an image."""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

from PIL import Image, ImageFile

from app.errors import AppError, UndecodableImage
from app.formats import ImageFormat
from app.imaging.exif import QUARTER_TURNED, orientation_of
from app.imaging.whole import WHOLE

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
