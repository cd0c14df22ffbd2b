"""Decoding in full, the only proof that bytes are an image."""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

from PIL import Image, ImageFile

from app.errors import AppError, UndecodableImage
from app.formats import ImageFormat
from app.imaging.exif import QUARTER_TURNED, orientation_of
from app.imaging.limits import ImageLimits

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
def opened(data: bytes, format: ImageFormat, limits: ImageLimits) -> Iterator[ImageFile.ImageFile]:
    """The image, its header read and its size within the limits; no pixel is decoded."""
    with Image.open(BytesIO(data), formats=[format.pillow]) as image:
        limits.check(image.size, 1)
        yield image


def decode(
    data: bytes, format: ImageFormat, limits: ImageLimits, frames: int | None
) -> tuple[tuple[int, int], int]:
    """Decode every frame, one at a time; gives (width, height) as seen, in pixels, and the number of frames.

    `frames` None asks the decoder, which is cheap for PNG, WebP and AVIF. A frame that is announced
    and missing is an error. Raises UndecodableImage and TooManyPixels.
    """
    with undecodable(), opened(data, format, limits) as image:
        total = frames or int(getattr(image, "n_frames", 1))
        limits.check(image.size, total)
        for index in range(total):
            image.seek(index)
            # A GIF may grow with any of its frames.
            limits.check(image.size, total)
            image.load()
        return _size_as_seen(image), total


def _size_as_seen(image: ImageFile.ImageFile) -> tuple[int, int]:
    """Width and height; Pillow tells of AVIF's own rotation as EXIF and leaves the turning to us."""
    width, height = image.size
    turned = image.format == "AVIF" and orientation_of(image.info.get("exif", b"")) in QUARTER_TURNED
    return (height, width) if turned else (width, height)
