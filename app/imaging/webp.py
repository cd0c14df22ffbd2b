"""WebP (RFC 9649): parse the RIFF chunks, and keep those that are needed to draw the picture."""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from app.core.errors import UndecodableImage
from app.imaging.survey import (
    UPRIGHT,
    ByteReader,
    ImageLimits,
    PartCounter,
    Survey,
    check_profile_size,
    exif_orientation,
    limit_parts,
)

_PICTURE_CHUNKS = {b"ALPH", b"VP8 ", b"VP8L"}
_KEPT = _PICTURE_CHUNKS | {b"VP8X", b"ICCP", b"ANIM", b"ANMF"}
_FILE_HEADER_BYTES = 12
_FRAME_HEADER_BYTES = 16
_EXIF_FLAG, _XMP_FLAG, _ANIMATION_FLAG = 0x08, 0x04, 0x02
_LOSSY_START_CODE = b"\x9d\x01\x2a"
_LOSSLESS_SIGNATURE = 0x2F


class _Chunk(NamedTuple):
    kind: bytes
    payload: bytes
    padding: bytes

    def encoded(self) -> bytes:
        return self.kind + len(self.payload).to_bytes(4, "little") + self.payload + self.padding


def survey_webp(data: bytes, limits: ImageLimits) -> Survey:
    """Parse the chunks up to the end given by the RIFF header.

    Raises TooManyPixels if the canvas exceeds the limits. Raises UndecodableImage if a chunk is truncated, or
    if the size of a picture differs from the size of its frame or canvas. The canvas is checked here, before
    a decoder is created, because a decoder allocates the canvas immediately.
    """
    chunks = list(limit_parts(_chunks(data, _FILE_HEADER_BYTES, _file_end(data))))
    frames = sum(chunk.kind == b"ANMF" for chunk in chunks)
    canvas = _dimensions(chunks[0])
    limits.check(canvas, max(1, frames))
    orientations = [exif_orientation(chunk.payload) for chunk in chunks if chunk.kind == b"EXIF"]
    # Without VP8X, the first chunk is the whole image, and whatever follows is ignored.
    chunks = chunks if chunks[0].kind == b"VP8X" else chunks[:1]
    counter = PartCounter()
    _check_pictures(chunks, canvas, counter)
    kept = (chunk for chunk in chunks if chunk.kind in _KEPT)
    body = b"WEBP" + b"".join(_without_metadata(chunk, counter).encoded() for chunk in kept)
    return Survey(
        b"RIFF" + len(body).to_bytes(4, "little") + body,
        *canvas,
        frames=max(1, frames),
        orientation=orientations[0] if orientations and not frames else UPRIGHT,
    )


def is_lossless(data: bytes) -> bool:
    """Return whether the pixels of a still image are compressed without loss.

    The alpha channel does not matter, since it is compressed without loss even in lossy images.
    """
    return any(chunk.kind == b"VP8L" for chunk in _chunks(data, _FILE_HEADER_BYTES, _file_end(data)))


def _file_end(data: bytes) -> int:
    end = 8 + int.from_bytes(data[4:8], "little")
    if not _FILE_HEADER_BYTES < end <= len(data):
        raise UndecodableImage(detail=f"the RIFF header says {end} bytes, there are {len(data)}")
    return end


def _chunks(data: bytes, start: int, end: int) -> Iterator[_Chunk]:
    reader = ByteReader(data, start, end)
    while reader.remaining:
        kind, length = reader.read(4), reader.uint_le(4)
        payload = reader.read(length)
        # Some writers omit the padding byte of the last chunk.
        yield _Chunk(kind, payload, reader.read(min(length % 2, reader.remaining)))


def _dimensions(chunk: _Chunk) -> tuple[int, int]:
    """Return the width and height in pixels from the header of an image or a frame (RFC 9649, 2.5 to 2.7)."""
    reader = ByteReader(chunk.payload)
    if chunk.kind == b"VP8X":
        reader.skip(4)
        return reader.uint_le(3) + 1, reader.uint_le(3) + 1
    if chunk.kind == b"VP8 ":
        reader.skip(3)
        valid = reader.read(3) == _LOSSY_START_CODE
        width, height = reader.uint_le(2) & 0x3FFF, reader.uint_le(2) & 0x3FFF
    else:
        signature, bits = reader.uint_be(1), reader.uint_le(4)
        valid = chunk.kind == b"VP8L" and signature == _LOSSLESS_SIGNATURE
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if not valid:
        raise UndecodableImage(detail="a chunk that is not an image header")
    return width, height


def _check_pictures(chunks: list[_Chunk], canvas: tuple[int, int], counter: PartCounter) -> None:
    """Refuse pictures whose size differs from the size of their frame or canvas.

    Also refuse combinations of chunks that decoders handle differently. `counter` counts the chunks within
    frames.
    """
    kinds = Counter(chunk.kind for chunk in chunks)
    animated = chunks[0].kind == b"VP8X" and bool(chunks[0].payload[0] & _ANIMATION_FLAG)
    if max(kinds[b"VP8X"], kinds[b"ICCP"], kinds[b"ANIM"]) > 1 or bool(kinds[b"ANMF"]) != animated:
        raise UndecodableImage(detail=f"chunks {dict(kinds)}")
    for chunk in chunks:
        if chunk.kind == b"ICCP":
            check_profile_size(len(chunk.payload))
        elif chunk.kind == b"ANMF":
            reader = ByteReader(chunk.payload)
            left, top = 2 * reader.uint_le(3), 2 * reader.uint_le(3)
            size = reader.uint_le(3) + 1, reader.uint_le(3) + 1
            if left + size[0] > canvas[0] or top + size[1] > canvas[1]:
                raise UndecodableImage(detail=f"a frame of {size} at {left}, {top} on {canvas}")
            _check_picture(_frame_chunks(chunk, counter), size)
    if not animated:
        _check_picture(chunks, canvas)
    elif kinds.keys() & _PICTURE_CHUNKS:
        raise UndecodableImage(detail="a still image in an animation")


def _frame_chunks(frame: _Chunk, counter: PartCounter) -> list[_Chunk]:
    return list(counter.counted(_chunks(frame.payload, _FRAME_HEADER_BYTES, len(frame.payload))))


def _check_picture(chunks: list[_Chunk], size: tuple[int, int]) -> None:
    """Refuse anything but one picture of this size, which an alpha channel may precede (RFC 9649, 2.7)."""
    drawn = [chunk for chunk in chunks if chunk.kind in _PICTURE_CHUNKS]
    pictures = [chunk for chunk in drawn if chunk.kind != b"ALPH"]
    last_is_picture = len(pictures) == 1 and drawn[-1] is pictures[0]
    if not last_is_picture or len(drawn) > 2 or _dimensions(pictures[0]) != size:
        raise UndecodableImage(detail=f"pictures {[chunk.kind for chunk in drawn]} not of {size}")


def _without_metadata(chunk: _Chunk, counter: PartCounter) -> _Chunk:
    """Return the chunk without metadata.

    The flags for EXIF and XMP are cleared in VP8X. In a frame, only the chunks that are drawn are kept.
    """
    if chunk.kind == b"VP8X":
        flags = chunk.payload[0] & ~(_EXIF_FLAG | _XMP_FLAG)
        return chunk._replace(payload=bytes((flags,)) + chunk.payload[1:10])
    if chunk.kind == b"ANMF":
        chunks = _frame_chunks(chunk, counter)
        drawn = b"".join(part.encoded() for part in chunks if part.kind in _PICTURE_CHUNKS)
        return _Chunk(chunk.kind, chunk.payload[:_FRAME_HEADER_BYTES] + drawn, b"\0" * (len(drawn) % 2))
    return chunk
