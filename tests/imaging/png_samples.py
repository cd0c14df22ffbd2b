"""Write PNG files of every kind from samples, and read samples from PNG files (W3C PNG, 7 to 9)."""

import random
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from .samples import png_chunk

CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
PASSES = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
KINDS = [
    *((bits, 0) for bits in (1, 2, 4, 8, 16)),
    *((bits, 3) for bits in (1, 2, 4, 8)),
    *((bits, colour) for colour in (2, 4, 6) for bits in (8, 16)),
]
"""All combinations of bit depth and colour type."""

Rows = list[list[tuple[int, ...]]]


class Png(NamedTuple):
    """The header fields, the chunks other than pixels, and the rows. Each pixel is a tuple of samples."""

    size: tuple[int, int]
    bits: int
    colour: int
    chunks: list[tuple[bytes, bytes]]
    rows: Rows


def noise(bits: int, colour: int, size: tuple[int, int]) -> Rows:
    """Return rows of random samples. The result is the same each time."""
    values = random.Random(bits * colour)
    width, height = size
    row = range(width * CHANNELS[colour])
    flat = [iter([values.randrange(1 << bits) for _ in row]) for _ in range(height)]
    return [list(zip(*[samples] * CHANNELS[colour], strict=True)) for samples in flat]


def made(
    rows: Rows, bits: int, colour: int, *chunks: bytes, interlaced: bool = False, lack: int = 0
) -> bytes:
    """Return a PNG with these rows, but without their last `lack` bytes. The row filters alternate."""
    width, height = len(rows[0]), len(rows)
    raw = bytearray()
    for part in _parts(rows) if interlaced else [rows]:
        previous = b""
        for number, row in enumerate(part):
            packed = _packed(row, bits)
            kind = number % 5
            raw += bytes((kind,)) + _filtered(kind, packed, previous, max(1, bits * CHANNELS[colour] // 8))
            previous = packed
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced)
    palette = png_chunk(b"PLTE", (bytes(range(256)) * 3)[: 3 << bits]) if colour == 3 else b""
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            png_chunk(b"IHDR", header),
            palette,
            *chunks,
            png_chunk(b"IDAT", zlib.compress(bytes(raw[: len(raw) - lack]))),
            png_chunk(b"IEND", b""),
        ]
    )


def read(data: bytes) -> Png:
    """Read a PNG that is not interlaced."""
    chunks, at = [], 8
    while at < len(data):
        length = struct.unpack_from(">I", data, at)[0]
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        assert data[at : at + 12 + length] == png_chunk(*chunks[-1])
        at += 12 + length
    width, height, bits, colour, _, _, interlaced = struct.unpack(">IIBBBBB", chunks[0][1])
    assert not interlaced
    raw = zlib.decompress(b"".join(payload for kind, payload in chunks if kind == b"IDAT"))
    stride = (width * bits * CHANNELS[colour] + 7) // 8
    assert len(raw) == height * (1 + stride)
    rows, previous = [], bytes(stride)
    for top in range(0, len(raw), 1 + stride):
        pixel = max(1, bits * CHANNELS[colour] // 8)
        previous = _unfiltered(raw[top], raw[top + 1 : top + 1 + stride], previous, pixel)
        rows.append(list(_unpacked(previous, width, bits, CHANNELS[colour])))
    others = [chunk for chunk in chunks if chunk[0] not in (b"IHDR", b"IDAT", b"IEND")]
    return Png((width, height), bits, colour, others, rows)


def _parts(rows: Rows) -> Iterator[Rows]:
    for left, top, across, down in PASSES:
        part = [row[left::across] for row in rows[top::down]]
        if part and part[0]:
            yield part


def _packed(row: list[tuple[int, ...]], bits: int) -> bytes:
    samples = [sample for pixel in row for sample in pixel]
    if bits == 16:
        return struct.pack(f">{len(samples)}H", *samples)
    text = "".join(f"{sample:0{bits}b}" for sample in samples)
    text += "0" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big")


def _unpacked(row: bytes, width: int, bits: int, channels: int) -> Iterator[tuple[int, ...]]:
    text = "".join(f"{byte:08b}" for byte in row)
    for at in range(0, width * bits * channels, bits * channels):
        yield tuple(int(text[at + bits * each : at + bits * (each + 1)], 2) for each in range(channels))


def _predicted(kind: int, left: int, above: int, corner: int) -> int:
    if kind < 4:
        return (0, left, above, (left + above) // 2)[kind]
    estimate = left + above - corner
    return min((left, above, corner), key=lambda each: abs(estimate - each))


def _filtered(kind: int, row: bytes, previous: bytes, pixel: int) -> bytes:
    above, left = previous or bytes(len(row)), bytes(pixel) + row
    corner = bytes(pixel) + above
    return bytes(
        (byte - _predicted(kind, left[at], above[at], corner[at])) % 256 for at, byte in enumerate(row)
    )


def _unfiltered(kind: int, row: bytes, above: bytes, pixel: int) -> bytes:
    found, corner = bytearray(pixel), bytes(pixel) + above
    for at, byte in enumerate(row):
        found.append((byte + _predicted(kind, found[at], above[at], corner[at])) % 256)
    return bytes(found[pixel:])
