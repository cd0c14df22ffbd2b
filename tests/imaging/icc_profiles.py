"""Colour profiles for tests: those that libvips brings, and a minimal one of Adobe RGB (1998)."""

import struct
from typing import Any

import pyvips


def _s15(value: float) -> bytes:
    return struct.pack(">i", round(value * 65_536))


def matrix_profile(primaries: tuple[tuple[float, float, float], ...], gamma: float) -> bytes:
    """Return an RGB profile (ICC.1:2001-04) with these primaries, in XYZ relative to D50, and this gamma."""
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    name = b"test\0"
    parts = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", len(name)) + name + bytes(78 + 1),
        b"cprt": b"text" + bytes(4) + name,
        b"wtpt": b"XYZ " + bytes(4) + _s15(0.9642) + _s15(1) + _s15(0.8249),
        **{
            tag: b"XYZ " + bytes(4) + b"".join(map(_s15, primary))
            for tag, primary in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True)
        },
        **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve),
    }
    offset = 128 + 4 + 12 * len(parts)
    table, body = struct.pack(">I", len(parts)), b""
    for tag, content in parts.items():
        content += bytes(-len(content) % 4)
        table += tag + struct.pack(">II", offset + len(body), len(content))
        body += content
    size = 128 + len(table) + len(body)
    header = struct.pack(">I4sI4s4s4s", size, b"none", 0x02400000, b"mntr", b"RGB ", b"XYZ ")
    header += bytes(12) + b"acsp" + bytes(28) + _s15(0.9642) + _s15(1) + _s15(0.8249)
    return header.ljust(128, b"\0") + table + body


ADOBE_RGB = matrix_profile(
    ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)), 563 / 256
)


def vips_profile(name: str) -> bytes:
    """Return a profile of libvips: `p3`, `cmyk` or `srgb`."""
    pixel: Any = pyvips.Image.black(1, 1, bands=3).copy(interpretation="srgb")
    return bytes(pixel.icc_transform(name, input_profile="srgb").get("icc-profile-data"))
