"""Generated images in every format, and pieces of files with which tests insert metadata."""

import struct
import zlib
from dataclasses import replace
from functools import cache
from io import BytesIO
from typing import Any

from PIL import Image, ImageCms, ImageSequence

from app.core.objects import FORMATS
from app.imaging.check import CheckedImage, check_image
from app.imaging.survey import ImageLimits

NAMES = tuple(FORMATS)
ANIMATED = ("png", "gif", "webp", "avif")
KINDS = [*((name, False) for name in NAMES), *((name, True) for name in ANIMATED)]
LIMITS = ImageLimits(formats=NAMES, max_pixels=1_000_000, max_frames=50, strip_metadata=True)
RAW_LIMITS = replace(LIMITS, strip_metadata=False)
MARKER = b"SECRET-PLACE"
SIZE = (48, 32)
ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def picture(variant: int = 0, mode: str = "RGB", size: tuple[int, int] = SIZE) -> Image.Image:
    """Return a picture without symmetry. Each `variant` is a different picture."""
    red = Image.linear_gradient("L").resize(size)
    green = Image.radial_gradient("L").resize(size).rotate(20 * variant, translate=(7, 3))
    blue = Image.linear_gradient("L").rotate(90).resize(size)
    blue = blue.point(lambda value: (value + 60 * variant) % 256)
    return Image.merge("RGB", (red, green, blue)).convert(mode)


def saved(image: Image.Image, name: str, **options: Any) -> bytes:
    """Return the image as a file encoded by Pillow."""
    buffer = BytesIO()
    image.save(buffer, FORMATS[name].pillow, **options)
    return buffer.getvalue()


@cache
def sample(name: str, animated: bool = False) -> bytes:
    """Return a still image, or an animation with three frames of 80, 120 and 200 ms that is played twice."""
    return saved(picture(), name, **(animation() if animated else {}))


def animation() -> dict[str, Any]:
    """Return the options with which Pillow encodes an animation with three frames."""
    more = [picture(1), picture(2)]
    return {"save_all": True, "append_images": more, "duration": [80, 120, 200], "loop": 2}


def check(data: bytes, limits: ImageLimits = LIMITS) -> CheckedImage:
    """Call `check_image`, by default with limits for these samples."""
    return check_image(data, limits)


def shown(data: bytes) -> list[tuple[bytes, Any]]:
    """Return what a viewer shows: the pixels and the duration of every frame."""
    with Image.open(BytesIO(data)) as image:
        return [
            (frame.convert("RGBA").tobytes(), frame.info.get("duration"))
            for frame in ImageSequence.Iterator(image)
        ]


def info(data: bytes) -> dict[Any, Any]:
    """Return everything that Pillow reads other than the pixels."""
    with Image.open(BytesIO(data)) as image:
        image.load()
        return dict(image.info)


def exif(orientation: int = 1) -> bytes:
    """Return an EXIF block with a description and an orientation."""
    block = Image.Exif()
    block[0x010E] = MARKER.decode()
    block[0x0112] = orientation
    return block.tobytes()


def jpeg_segment(marker: int, payload: bytes) -> bytes:
    """Return a JPEG segment, including its length."""
    return bytes((0xFF, marker)) + struct.pack(">H", len(payload) + 2) + payload


def png_chunk(kind: bytes, payload: bytes) -> bytes:
    """Return a PNG chunk, including its length and checksum."""
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


def gif_extension(label: int, *blocks: bytes) -> bytes:
    """Return a GIF extension with these sub-blocks."""
    return bytes((0x21, label)) + b"".join(bytes((len(block),)) + block for block in blocks) + b"\0"


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    """Return a WebP file with these chunks."""
    body = b"WEBP" + b"".join(riff_chunk(kind, payload) for kind, payload in chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def riff_chunk(kind: bytes, payload: bytes) -> bytes:
    """Return a RIFF chunk, including its padding."""
    return kind + struct.pack("<I", len(payload)) + payload + b"\0" * (len(payload) % 2)


def box(kind: bytes, payload: bytes) -> bytes:
    """Return a box of an ISO media file."""
    return struct.pack(">I", len(payload) + 8) + kind + payload


def inserted(data: bytes, at: int, piece: bytes) -> bytes:
    """Return `data` with `piece` inserted at this offset."""
    return data[:at] + piece + data[at:]


def colour_table_end(gif: bytes) -> int:
    """Return the offset at which the blocks of a GIF begin."""
    return 13 + (3 << ((gif[10] & 7) + 1) if gif[10] & 0x80 else 0)


def bare_gif(frames: int, size: tuple[int, int] = (1, 1)) -> bytes:
    """Return a valid GIF with equal frames of one pixel each, on a canvas of `size`."""
    head = b"GIF89a" + struct.pack("<HH", *size) + b"\x80\0\0" + b"\0\0\0\xff\xff\xff"
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\0"
    return head + frame * frames + b"\x3b"


def bare_png(width: int, height: int) -> bytes:
    """Return a PNG that declares this size but has almost no pixels."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + png_chunk(b"IDAT", zlib.compress(b"\0" * 100))
        + png_chunk(b"IEND", b"")
    )
