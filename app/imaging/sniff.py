"""Detect the format of an image from its first bytes.

Many unsupported formats are also recognized, so that error messages can name them.
"""

import re

from app.core.errors import UnsupportedImage
from app.core.objects import FORMATS, ImageFormat

_SIGNATURES = {
    "png": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "jpeg": re.compile(rb"\xff\xd8\xff"),
    "gif": re.compile(rb"GIF8[79]a"),
    "webp": re.compile(rb"RIFF....WEBPVP8[ LX]", re.DOTALL),
}
"""Signatures at the start of a file. AVIF is not among them, because it is detected by the brands in its
`ftyp` box."""

_UNSUPPORTED_SIGNATURES = {
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

_AVIF_BRANDS = {b"avif", b"avis"}
_SHARED_BRANDS = {b"mif1", b"msf1"}
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"} | _SHARED_BRANDS
"""Brands of HEIC files (ISO/IEC 23008-12, annex B). The shared brands say only that a file contains images,
not with which codec."""

_LABELS = {"webp": "WebP"}
"""Names of formats as they are written in messages. A format that is not listed is written in capitals."""


def sniff_format(data: bytes, allowed: tuple[str, ...]) -> ImageFormat:
    """Return the format whose signature `data` starts with.

    Raises UnsupportedImage unless the name of the format is in `allowed`. The message lists the accepted
    formats, and names the format of the file if it is known.
    """
    name = _format_name(data)
    if name in allowed:
        return FORMATS[name]
    *most, last = [_label(each) for each in allowed]
    accepted = f"{', '.join(most)} or {last}" if most else last
    if name:
        raise UnsupportedImage(f"Unsupported image format: {_label(name)}. Use {accepted}.")
    if _brands(data) & _HEIC_BRANDS:
        raise UnsupportedImage(f"Unsupported image format: HEIC. Convert the image to {accepted}.")
    for other, signature in _UNSUPPORTED_SIGNATURES.items():
        if signature.match(data):
            raise UnsupportedImage(f"Unsupported image format: {other}. Use {accepted}.")
    raise UnsupportedImage(f"Unsupported image format. Use {accepted}.")


def _format_name(data: bytes) -> str:
    """Return the name of the supported format whose signature `data` starts with, or "" if there is none."""
    brands = _brands(data)
    if brands & _AVIF_BRANDS and data[8:12] in _AVIF_BRANDS | _SHARED_BRANDS:
        return "avif"
    return next((name for name, signature in _SIGNATURES.items() if signature.match(data)), "")


def _brands(data: bytes) -> set[bytes]:
    """Return the major brand and the compatible brands of an ISO media file (14496-12, 4.3).

    Return an empty set for other files.
    """
    if data[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(data[:4], "big"), 512)
    return {data[8:12]} | {data[at : at + 4] for at in range(16, end, 4)}


def _label(name: str) -> str:
    return _LABELS.get(name, name.upper())
