"""Which format the bytes begin like, and what to tell people whose image we don't take."""

import re

from app.core.errors import UnsupportedImage
from app.core.objects import FORMATS, ImageFormat

_STARTS = {
    "png": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "jpeg": re.compile(rb"\xff\xd8\xff"),
    "gif": re.compile(rb"GIF8[79]a"),
    "webp": re.compile(rb"RIFF....WEBPVP8[ LX]", re.DOTALL),
}

_OTHERS = {
    "BMP": re.compile(rb"BM.{4}\0{4}", re.DOTALL),
    "TIFF": re.compile(rb"II[*+]\0|MM\0[*+]"),
    "ICO": re.compile(rb"\0\0[\x01\x02]\0.\0", re.DOTALL),
    "Photoshop": re.compile(rb"8BPS\0"),
    "JPEG 2000": re.compile(rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51"),
    "JPEG XL": re.compile(rb"\0\0\0\x0cJXL |\xff\x0a"),
    "PDF": re.compile(rb"%PDF-"),
    "EPS": re.compile(rb"%!PS|\xc5\xd0\xd3\xc6"),
    "DDS": re.compile(rb"DDS "),
    "QOI": re.compile(rb"qoif"),
    "PCX": re.compile(rb"\x0a[\0\x02-\x05]\x01[\x01\x02\x04\x08]"),
    "PNM": re.compile(rb"P[1-7]\s"),
    "SVG": re.compile(rb"(?:\xef\xbb\xbf)?\s{0,100}<(?:svg|[?!][^\0]{0,2000}?<svg)\b"),
}
"""Names that people know for formats that we don't take, with how such files begin."""

_AVIF_BRANDS = {b"avif", b"avis"}
_SHARED_BRANDS = {b"mif1", b"msf1"}
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"} | _SHARED_BRANDS
"""ISO/IEC 23008-12, annex B; the shared brands say only "image" and leave the codec open."""


def sniff_format(data: bytes, allowed: tuple[str, ...]) -> ImageFormat:
    """The format, among the allowed names, that the bytes begin like.

    Raises UnsupportedImage for anything else, with a message that says what it is where that is known.
    """
    name = _known(data)
    if name in allowed:
        return FORMATS[name]
    taken = f"We take {_listed(allowed)}."
    if name:
        raise UnsupportedImage(f"This is a {name} image. {taken}")
    if _brands(data) & _HEIC_BRANDS:
        raise UnsupportedImage(f"This is a HEIC image. Please convert it to JPEG first. {taken}")
    for other, start in _OTHERS.items():
        if start.match(data):
            raise UnsupportedImage(f"This is a file of type {other}. {taken}")
    raise UnsupportedImage(f"This is not an image in a format that we take. {taken}")


def _known(data: bytes) -> str:
    """Name of the format of ours that the bytes begin like, or nothing."""
    brands = _brands(data)
    if brands & _AVIF_BRANDS and data[8:12] in _AVIF_BRANDS | _SHARED_BRANDS:
        return "avif"
    return next((name for name, start in _STARTS.items() if start.match(data)), "")


def _brands(data: bytes) -> set[bytes]:
    """Major and compatible brands of an ISO media file (14496-12, 4.3); none for other files."""
    if data[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(data[:4], "big"), 512)
    return {data[8:12]} | {data[at : at + 4] for at in range(16, end, 4)}


def _listed(names: tuple[str, ...]) -> str:
    *most, last = [name.upper() if name != "webp" else "WebP" for name in names]
    return f"{', '.join(most)} and {last}" if most else last
