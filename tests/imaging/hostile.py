"""Hostile images, and unusual but valid images, grouped by the expected response."""

import struct
import zlib
from collections.abc import Callable
from functools import cache
from io import BytesIO

from PIL import Image

from tests.imaging.samples import (
    ICC,
    animation,
    bare_gif,
    bare_png,
    box,
    colour_table_end,
    exif,
    gif_extension,
    inserted,
    jpeg_segment,
    picture,
    png_chunk,
    riff,
    sample,
    saved,
)

Make = Callable[[], bytes]


@cache
def _bomb() -> bytes:
    """Return 200 KB that decompress to 200 MiB."""
    return zlib.compress(bytes(200 * 2**20), 9)


def _png(width: int, height: int, depth: int = 8, colour: int = 0, *chunks: bytes) -> bytes:
    """Return a PNG with this header and with all of its pixels, which are zeros."""
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    rows = bytes((1 + (width * samples * depth + 7) // 8) * height)
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    pixels = png_chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + pixels + png_chunk(b"IEND", b"")


def _with_png_chunk(kind: bytes, payload: bytes) -> bytes:
    return inserted(sample("png"), 33, png_chunk(kind, payload))


def _jpeg_of(width: int, height: int) -> bytes:
    """Return a JPEG whose frame header declares this size, which is not its true size."""
    data = sample("jpeg")
    at = data.index(b"\xff\xc0")
    return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]


def _avif_of(width: int, height: int) -> bytes:
    """Return an AVIF whose `ispe` property declares this size, which is not its true size."""
    data = sample("avif")
    at = data.index(b"ispe") + 8
    return data[:at] + struct.pack(">II", width, height) + data[at + 8 :]


def _avif_of_frames(count: int) -> bytes:
    """Return an AVIF animation whose tables declare `count` frames."""
    data = bytearray(sample("avif", True))
    for table, field in ((b"stsz", 12), (b"stts", 8)):
        at = data.index(table) + field
        data[at : at + 4] = struct.pack(">I", count)
    return bytes(data)


def _canvas(width: int, height: int, frames: int = 0) -> bytes:
    """Return a WebP with a canvas of this size, either a still image or with frames of one pixel."""
    flags = b"\x02\0\0\0" if frames else b"\0\0\0\0"
    size = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    pixel = saved(picture(size=(1, 1)), "webp", lossless=True)[12:]
    frame = bytes(12) + struct.pack("<I", 10)[:3] + b"\0" + pixel
    parts = [(b"ANIM", bytes(6)), *[(b"ANMF", frame)] * frames] if frames else [(b"VP8L", pixel[8:])]
    return riff((b"VP8X", flags + size), *parts)


def _gif_frame(left: int, top: int, width: int, height: int) -> bytes:
    data = bytearray(bare_gif(1))
    data[20:28] = struct.pack("<HHHH", left, top, width, height)
    return bytes(data)


def _written(pillow: str) -> bytes:
    buffer = BytesIO()
    picture().save(buffer, pillow)
    return buffer.getvalue()


UNSUPPORTED: dict[str, Make] = {
    "svg": lambda: b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
    "svg after an xml head": lambda: b"<?xml version='1.0'?><!DOCTYPE svg [<!ENTITY a 'b'>]><svg>&a;</svg>",
    "html": lambda: b"<!doctype html><script>alert(1)</script>",
    "mvg": lambda: b"push graphic-context\nimage over 0,0 0,0 'https://127.0.0.1/x'\npop graphic-context",
    "msl": lambda: b"<?xml version='1.0'?><image><read filename='/etc/passwd'/></image>",
    "postscript": lambda: b"%!PS-Adobe-3.0\n(/etc/passwd) (r) file",
    "eps": lambda: _written("EPS"),
    "dos eps": lambda: b"\xc5\xd0\xd3\xc6" + bytes(30),
    "pdf": lambda: b"%PDF-1.7\n1 0 obj<</JS(app.alert(1))>>endobj",
    "tiff": lambda: _written("TIFF"),
    "tiff whose directory is itself": lambda: b"II*\0\x08\0\0\0\0\0\x08\0\0\0",
    "bmp": lambda: _written("BMP"),
    "ico": lambda: _written("ICO"),
    "ico with a png in it": lambda: b"\0\0\1\0\1\0\x30\x20\0\0\1\0\x20\0\0\0\0\0\x16\0\0\0" + sample("png"),
    "jpeg 2000": lambda: _written("JPEG2000"),
    "heic": lambda: box(b"ftyp", b"heic\0\0\0\0mif1heic") + bytes(100),
    "mp4": lambda: box(b"ftyp", b"isom\0\0\0\0isomiso2avc1mp41") + bytes(100),
    "zip": lambda: b"PK\x03\x04" + bytes(100),
    "javascript": lambda: b"GIF/*x*/=1;alert(1)",
    "zip before a png": lambda: b"PK\x03\x04" + bytes(26) + sample("png"),
    "a line before a jpeg": lambda: b"\n" + sample("jpeg"),
    "elf": lambda: b"\x7fELF" + bytes(100),
    "mpo marker alone": lambda: b"\xff\xd8",
}
"""These get 415 unsupported_image, whatever the name of the file."""

UNDECODABLE: dict[str, Make] = {
    "png without width": lambda: _png(0, 1),
    "png without height": lambda: _png(1, 0),
    "png without pixels": lambda: bare_png(100, 100),
    "png of an unknown colour type": lambda: sample("png")[:25] + b"\x05" + sample("png")[26:],
    "png whose profile unpacks to 200 MiB": lambda: _with_png_chunk(b"iCCP", b"icc\0\0" + _bomb()),
    "png whose length is 4 GiB": lambda: sample("png")[:33] + b"\xff\xff\xff\xffIDAT" + sample("png")[41:],
    "png with a palette index and no palette": lambda: _png(2, 2, 8, 3).replace(b"PLTE", b"xLTE")[:60],
    "jpeg without height": lambda: _jpeg_of(48, 0),
    "jpeg without width": lambda: _jpeg_of(0, 32),
    "jpeg of more rows than it has, which decoders fill": lambda: _jpeg_of(48, 9000),
    "jpeg of a segment past the end": lambda: b"\xff\xd8\xff\xe0\xff\xff" + bytes(20),
    "jpeg of 5,000 scans": lambda: _scans(5000),
    "gif without a frame": lambda: bare_gif(0),
    "gif frame without pixels": lambda: _gif_frame(0, 0, 0, 0),
    "gif with a bad code size": lambda: bare_gif(1).replace(b"\0\x02\x02\x44", b"\0\x0f\x02\x44"),
    "webp of a size past the end": lambda: b"RIFF\xff\xff\xff\xffWEBPVP8L" + bytes(30),
    "webp canvas that its picture does not fill": lambda: _canvas(4000, 4000),
    "webp frames that announce more than they have": lambda: _canvas(10, 10, 2)[:-20],
    "avif of another size than its picture, which decoders scale": lambda: _avif_of(400, 300),
    "avif without width": lambda: _avif_of(0, 32),
    "avif that announces 2^31 frames": lambda: _avif_of_frames(2**31),
}
"""These get 422 undecodable_image."""

TOO_LARGE: dict[str, Make] = {
    "png of 30,000 a side": lambda: bare_png(30_000, 30_000),
    "png of 2^31 - 1 a side": lambda: bare_png(2**31 - 1, 2**31 - 1),
    "jpeg of 65,535 a side": lambda: _jpeg_of(65_535, 65_535),
    "gif with a screen of 65,535 a side": lambda: bare_gif(1, (65_535, 65_535)),
    "gif frame far outside": lambda: _gif_frame(65_535, 65_535, 1, 1),
    "gif of 2,000 frames": lambda: bare_gif(2000),
    "gif of 900 frames on a large screen": lambda: bare_gif(900, (1000, 1000)),
    "webp with a canvas of 65,535 a side": lambda: _canvas(65_535, 65_535),
    "webp of 2^24 a side": lambda: _canvas(2**24, 2**24),
    "webp animation of 65,535 a side": lambda: _canvas(65_535, 65_535, 2),
    "webp of 2,000 frames": lambda: _canvas(10, 10, 2000),
    "avif of 2^32 pixels a side": lambda: _avif_of(2**32 - 1, 2**32 - 1),
    "avif of 10,000 a side": lambda: _avif_of(10_000, 10_000),
    "apng that announces 2^31 frames": lambda: _with_png_chunk(b"acTL", struct.pack(">II", 2**31, 0)),
    "apng of 2,000 frames": lambda: _apng_of_frames(2000),
}
"""These get 422 too_many_pixels before any pixels are decoded."""


def _scans(count: int) -> bytes:
    data = saved(picture(), "jpeg", progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + scan * count + data[-2:]


def _apng_of_frames(count: int) -> bytes:
    """Return an APNG of one pixel that declares `count` frames and has a control chunk for each of them."""
    still = _png(1, 1)
    heads = b"".join(
        png_chunk(b"fcTL", struct.pack(">IIIIIHHBB", number, 1, 1, 0, 0, 1, 10, 0, 0))
        for number in range(count)
    )
    return inserted(
        inserted(still, len(still) - 12, heads[38:]),
        33,
        png_chunk(b"acTL", struct.pack(">II", count, 0)) + heads[:38],
    )


def _adobe(transform: int) -> bytes:
    """Return a JPEG with four colour components. Its Adobe segment declares them as CMYK (0) or YCCK (2)."""
    data = bytearray(saved(picture(mode="CMYK"), "jpeg", quality=95))
    data[data.index(b"Adobe") + 11] = transform
    return bytes(data)


def _gps() -> bytes:
    block = Image.Exif()
    block[0x0112] = 6
    block.get_ifd(0x8825).update({1: "N", 2: (48.0, 51.0, 29.6), 3: "E", 4: (2.0, 17.0, 40.2)})
    return block.tobytes()


def _looping_exif(target: int) -> bytes:
    """Return an EXIF block whose directories (next, EXIF, GPS, interoperability) all point to `target`."""
    pointers = [struct.pack("<HHII", tag, 4, 1, target) for tag in (0x8769, 0x8825, 0xA005)]
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 3) + b"".join(pointers) + struct.pack("<I", target)


def _jpeg_with_exif(block: bytes) -> bytes:
    return inserted(sample("jpeg"), 20, jpeg_segment(0xE1, block))


ACCEPTED: dict[str, Make] = {
    "1 × 1": lambda: _png(1, 1),
    "1 × 65,535": lambda: _png(1, 65_535),
    "65,535 × 1": lambda: _png(65_535, 1),
    "jpeg 1 × 65,500": lambda: saved(Image.new("L", (1, 65_500)), "jpeg"),
    "gif 65,535 × 1": lambda: saved(Image.new("L", (65_535, 1)), "gif"),
    "webp 16,383 × 1": lambda: saved(picture(size=(16_383, 1)), "webp"),
    "png 1 bit": lambda: saved(picture(mode="1"), "png"),
    "png grey": lambda: saved(picture(mode="L"), "png"),
    "png grey with alpha": lambda: saved(picture(mode="LA"), "png"),
    "png of 16 bits": lambda: saved(picture().convert("I;16"), "png"),
    "png of 16 bits and three colours": lambda: _png(5, 4, 16, 2),
    "png of 16 bits with alpha": lambda: _png(5, 4, 16, 6),
    "png palette with transparency": lambda: saved(picture(mode="P"), "png", transparency=7),
    "png palette with alpha for each": lambda: saved(
        picture(mode="P"), "png", transparency=bytes(range(256))
    ),
    "png of two bits": lambda: _png(5, 4, 2, 3, png_chunk(b"PLTE", bytes(range(12)))),
    "png interlaced": lambda: _interlaced(),
    "png with a broken profile": lambda: _with_png_chunk(b"iCCP", b"icc\0\0not zlib"),
    "png with a profile of nonsense": lambda: _with_png_chunk(b"iCCP", b"icc\0\0" + zlib.compress(b"x" * 99)),
    "png with a large profile": lambda: saved(picture(), "png", icc_profile=ICC + bytes(900_000)),
    "jpeg cmyk": lambda: _adobe(0),
    "jpeg ycck": lambda: _adobe(2),
    "jpeg progressive": lambda: saved(picture(), "jpeg", progressive=True),
    "jpeg of 80 scans and more": lambda: _scans(80),
    "jpeg with a profile in pieces that don't fit": lambda: inserted(
        sample("jpeg"), 20, jpeg_segment(0xE2, b"ICC_PROFILE\0\x05\x02half of it")
    ),
    "jpeg with orientation 0": lambda: saved(picture(), "jpeg", exif=exif(0)),
    "jpeg with orientation 6": lambda: saved(picture(), "jpeg", exif=exif(6)),
    "jpeg with orientation 9": lambda: saved(picture(), "jpeg", exif=exif(9)),
    "jpeg with orientation 255": lambda: saved(picture(), "jpeg", exif=exif(255)),
    "jpeg with a place": lambda: saved(picture(), "jpeg", exif=_gps()),
    "jpeg with exif that points to itself": lambda: _jpeg_with_exif(_looping_exif(8)),
    "jpeg with exif that points outside": lambda: _jpeg_with_exif(_looping_exif(2**32 - 1)),
    "jpeg with exif of 65,535 entries": lambda: _jpeg_with_exif(
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(60_000)
    ),
    "webp lossless": lambda: saved(picture(mode="RGBA"), "webp", lossless=True),
    "avif with alpha": lambda: saved(picture(mode="RGBA"), "avif"),
    "avif with exif": lambda: saved(picture(), "avif", exif=exif(6)),
    "gif with a screen of nothing": lambda: bare_gif(1, (0, 0)),
    "gif that shows nothing": lambda: inserted(bare_gif(1), 19, gif_extension(0xF9, b"\x01\0\0\0")),
    "gif frame that sticks out": lambda: _gif_frame(3, 2, 1, 1),
    "webp animation": lambda: saved(picture(), "webp", **animation()),
}
"""These get 201. The stored pixels are the pixels that were sent, rotated upright if metadata is stripped."""


def _interlaced() -> bytes:
    """Return an Adam7 PNG of 8 × 8 zeros: seven passes of 1, 1, 2, 4, 8, 16 and 32 pixels."""
    rows = [(1, 1), (1, 1), (1, 2), (2, 2), (2, 4), (4, 4), (4, 8)]
    raw = b"".join(bytes(1 + width) * height for height, width in rows)
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 1))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(raw)) + png_chunk(b"IEND", b"")


TEXT_BOMBS: dict[str, Make] = {
    "zTXt": lambda: _with_png_chunk(b"zTXt", b"a\0\0" + _bomb()),
    "iTXt": lambda: _with_png_chunk(b"iTXt", b"a\0\1\0\0\0" + _bomb()),
    "many": lambda: inserted(
        sample("png"), 33, png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**20))) * 100
    ),
}
"""PNG texts of 100 MiB and more. They are dropped without decompression, or refused if metadata is kept."""

SCRIPT = b"<html><script>alert(document.domain)</script></html>"
ZIP = b"PK\x03\x04" + bytes(26) + b"PK\x01\x02" + bytes(42) + b"PK\x05\x06" + bytes(18)

_PDF = b"%PDF-1.4\n1 0 obj<</OpenAction<</S/JavaScript/JS(app.alert(1))>>>>endobj\n%%EOF"

POLYGLOTS: dict[str, Make] = {
    **{
        f"{kind} after a {name}": lambda tail=tail, name=name: sample(name) + tail  # type: ignore[misc]
        for kind, tail in {"html": SCRIPT, "zip": ZIP, "pdf": _PDF, "js": b"*/=1;alert(1)//"}.items()
        for name in ("png", "jpeg", "gif", "webp", "avif")
    },
    "html in a comment of a jpeg": lambda: inserted(sample("jpeg"), 20, jpeg_segment(0xFE, SCRIPT)),
    "zip in a comment of a jpeg": lambda: inserted(sample("jpeg"), 20, jpeg_segment(0xFE, ZIP)),
    "html in a text of a png": lambda: _with_png_chunk(b"tEXt", b"Comment\0" + SCRIPT),
    "html in a comment of a gif": lambda: inserted(
        sample("gif"), colour_table_end(sample("gif")), gif_extension(0xFE, SCRIPT)
    ),
    "html in xmp of a webp": lambda: saved(picture(), "webp", xmp=SCRIPT),
    "html in xmp of an avif": lambda: saved(picture(), "avif", xmp=SCRIPT),
    "html in exif of a jpeg": lambda: _jpeg_with_exif(b"Exif\0\0" + SCRIPT),
}
"""Images that are also files of a different kind. Only the image remains, or all if metadata is kept."""

PAYLOADS = (SCRIPT, ZIP, _PDF, b"alert(1)")
