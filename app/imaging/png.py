"""PNG and APNG (W3C PNG, third edition): a walk over the chunks that keeps those needed to draw."""

import zlib
from collections.abc import Iterator
from typing import NamedTuple

from app.errors import UndecodableImage
from app.imaging.bytereader import ByteReader
from app.imaging.exif import UPRIGHT, orientation_of
from app.imaging.limits import ImageLimits
from app.imaging.survey import Survey, bounded

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_DRAWING = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"bKGD", b"pHYs", b"acTL", b"fcTL", b"fdAT"}
COLOUR = (b"gAMA", b"cHRM", b"sRGB", b"cICP", b"mDCV", b"cLLI")
_KEPT = _DRAWING | {*COLOUR, b"iCCP", b"sBIT"}
_ANCILLARY = 0x20
"""Bit of a type's first letter: set where a decoder may ignore the chunk (5.4)."""


class Chunk(NamedTuple):
    """One chunk; `raw` is all of it, with length and checksum."""

    kind: bytes
    payload: bytes
    raw: bytes


def chunks(data: bytes) -> Iterator[Chunk]:
    """Every chunk up to and including IEND; raises UndecodableImage where there is none."""
    reader = ByteReader(data, len(SIGNATURE))
    kind = b""
    while kind != b"IEND":
        start = reader.position
        length, kind = reader.big(4), reader.take(4)
        payload = reader.take(length)
        reader.take(4)
        yield Chunk(kind, payload, data[start : reader.position])


def survey_png(data: bytes, limits: ImageLimits) -> Survey:
    """Walk to IEND.

    Raises UndecodableImage where chunks are cut, damaged or in conflict, and TooManyPixels.
    """
    pieces = [SIGNATURE]
    orientation, announced, controls = UPRIGHT, 0, 0
    for chunk in bounded(chunks(data)):
        _check_chunk(chunk, first=len(pieces) == 1, limits=limits)
        if chunk.kind == b"eXIf":
            orientation = orientation_of(chunk.payload)
        elif chunk.kind == b"acTL":
            announced = _announced_frames(chunk, announced)
        controls += chunk.kind == b"fcTL"
        if chunk.kind in _KEPT:
            pieces.append(chunk.raw)
    if controls != announced:
        raise UndecodableImage(detail=f"acTL announces {announced} frames, there are {controls}")
    return Survey(b"".join(pieces), orientation=orientation if announced <= 1 else UPRIGHT)


def _check_chunk(chunk: Chunk, *, first: bool, limits: ImageLimits) -> None:
    """Refuse what decoders take differently: a wrong order, a wrong checksum, an unknown critical chunk."""
    if first != (chunk.kind == b"IHDR"):
        raise UndecodableImage(detail="IHDR is not the first chunk")
    if chunk.kind == b"IHDR":
        _check_header(chunk.payload, limits)
    if chunk.kind not in _KEPT:
        if not chunk.kind[0] & _ANCILLARY:
            raise UndecodableImage(detail=f"unknown critical chunk {chunk.kind!r}")
    elif zlib.crc32(chunk.raw[4:-4]) != int.from_bytes(chunk.raw[-4:], "big"):
        raise UndecodableImage(detail=f"wrong checksum of {chunk.kind!r}")
    if chunk.kind == b"IEND" and chunk.payload:
        raise UndecodableImage(detail="IEND is not empty")


def _check_header(payload: bytes, limits: ImageLimits) -> None:
    if len(payload) != 13:
        raise UndecodableImage(detail=f"IHDR of {len(payload)} bytes")
    reader = ByteReader(payload)
    limits.check((reader.big(4), reader.big(4)), 1)


def _announced_frames(chunk: Chunk, announced: int) -> int:
    frames = int.from_bytes(chunk.payload[:4], "big")
    if announced or not frames or len(chunk.payload) != 8:
        raise UndecodableImage(detail="acTL is wrong or there twice")
    return frames
