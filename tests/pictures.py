"""Images for tests."""

import io
import random
import struct
import zlib

from PIL import Image, ImageChops


def picture(
    image_format: str = "PNG", size: tuple[int, int] = (8, 6), colour: str = "red", **options: object
) -> bytes:
    """Return an encoded image of one colour; `options` go to Pillow's encoder."""
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, image_format, **options)
    return buffer.getvalue()


def noise(seed: int, size: tuple[int, int] = (64, 64)) -> bytes:
    """Return a PNG of noise, different for each seed. Its size is about 3 bytes per pixel."""
    raw = b"".join(
        zlib.crc32(struct.pack(">II", seed, i)).to_bytes(4, "big") for i in range(size[0] * size[1])
    )
    buffer = io.BytesIO()
    Image.frombytes("RGB", size, raw[: size[0] * size[1] * 3]).save(buffer, "PNG")
    return buffer.getvalue()


def photo(seed: int, size: tuple[int, int] = (4032, 3024)) -> bytes:
    """Return a JPEG with as much detail as a phone's photo, different for each seed: 3 MB for 12 megapixels.

    As in nature, structures of all sizes have the same contrast. Only the finest are blurred, as by a lens.
    """
    source = random.Random(seed)
    colours = Image.frombytes("RGB", (8, 6), source.randbytes(8 * 6 * 3))
    image = colours.point([64 + i // 2 for i in range(256)] * 3)
    for halvings, contrast in [(step, 0.2) for step in range(8, 2, -1)] + [(2, 0.18), (1, 0.12), (0, 0.05)]:
        shape = size[0] >> halvings, size[1] >> halvings
        noise = Image.frombytes("L", shape, source.randbytes(shape[0] * shape[1]))
        details = noise.point([round(128 + (i - 128) * contrast) for i in range(256)]).convert("RGB")
        image = ImageChops.add(image.resize(shape, Image.Resampling.BICUBIC), details, 1, -128)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def long_png(seed: int, edge: int = 2000) -> bytes:
    """Return a square PNG with 3 bytes per pixel, different for each seed: 12 MB for an edge of 2000."""
    buffer = io.BytesIO()
    pixels = random.Random(seed).randbytes(edge * edge * 3)
    Image.frombytes("RGB", (edge, edge), pixels).save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()


def png_claiming(width: int, height: int) -> bytes:
    """Return a tiny PNG file whose header declares this size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def animation(frames: int, image_format: str = "GIF", size: tuple[int, int] = (4, 4)) -> bytes:
    """Return an animation; all its frames differ, so that no encoder merges them."""
    pictures = [Image.new("RGB", size, (i % 256, i // 256 % 256, 128)) for i in range(frames)]
    buffer = io.BytesIO()
    pictures[0].save(buffer, image_format, save_all=True, append_images=pictures[1:], duration=20, loop=0)
    return buffer.getvalue()
