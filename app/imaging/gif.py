"""GIF87a and GIF89a (CompuServe, 1990): parse the blocks, and drop comments and other extras."""

from collections.abc import Iterator

from app.core.errors import UndecodableImage
from app.imaging.survey import ByteReader, ImageLimits, PartCounter, Survey, limit_parts

_EXTENSION, _IMAGE, _TRAILER, _STRAY_ZERO = 0x21, 0x2C, 0x3B, 0x00
_PLAIN_TEXT, _GRAPHIC_CONTROL, _APPLICATION = 0x01, 0xF9, 0xFF
_LOOP_EXTENSIONS = {b"NETSCAPE2.0", b"ANIMEXTS1.0"}
"""Application extensions with the number of times that an animation is repeated."""
_ICC_EXTENSION = b"ICCRGBG1012"
"""Application extension with a colour profile (ICC.1, annex B.4)."""
_MAX_SIDE = 0xFFFF
"""Pixels of a side of the screen (section 18), which is made as large as all frames together."""
_MAX_CODE_SIZE = 8
"""Bits of an index (appendix F). No colour table is large enough for more, and browsers draw nothing then."""
_SMALL_SUB_BLOCK_BYTES = 64
"""Sub-blocks below this size count as parts.

Encoders fill sub-blocks, up to 255 bytes, except the last of each frame: the full ones of a large image may
well be more than any file may have parts.
"""


def survey_gif(data: bytes, limits: ImageLimits) -> Survey:
    """Parse up to the trailer or the end of the file, counting frames × pixels on the way.

    All GIF readers show the frames of a file without trailer. Raises UndecodableImage if a block is truncated
    or if the file ends where a frame is due, and TooManyPixels as soon as the frames exceed the limits.
    """
    parser = _GifParser(data, limits)
    for introducer in limit_parts(iter(parser.next_introducer, _TRAILER)):
        parser.read_block(introducer)
    if parser.missing_end and parser.control:
        raise UndecodableImage(detail="the file ends between a graphic control and its frame")
    limits.check((parser.width, parser.height), parser.frames)
    return Survey(parser.clean(), parser.width, parser.height, parser.frames, missing_end=parser.missing_end)


class _GifParser:
    """Reads a GIF block by block, and collects those that are kept.

    `control` is the graphic control that belongs to the next frame; empty if there is none.
    """

    def __init__(self, data: bytes, limits: ImageLimits) -> None:
        self._reader = ByteReader(data)
        self._limits = limits
        self._small_sub_blocks = PartCounter()
        self.frames = 0
        self.missing_end = b""
        self.control = b""
        head = self._reader.read(13)
        self.width = int.from_bytes(head[6:8], "little")
        self.height = int.from_bytes(head[8:10], "little")
        self._pieces = [head, self._colour_table(head[10])]
        # Some writers leave the screen empty, and let the frames say how large the image is.
        self._limits.check((max(1, self.width), max(1, self.height)), 1)

    def clean(self) -> bytes:
        """Return the file without metadata, on a screen as large as all frames together.

        In browsers only the first frame enlarges the screen, and they cut off the parts of the others
        outside it.
        """
        head, *blocks = self._pieces
        screen = self.width.to_bytes(2, "little") + self.height.to_bytes(2, "little")
        return b"".join([head[:6], screen, head[10:], *blocks, bytes((_TRAILER,))])

    def next_introducer(self) -> int:
        """Return the byte that gives the kind of the next block; the trailer if the file ends."""
        return self._byte_or(bytes((_TRAILER,)))

    def _byte_or(self, end: bytes) -> int:
        """Return the next byte, or `end` if the file has ended; `end` then counts as missing."""
        if not self._reader.remaining:
            self.missing_end += end
            return end[0]
        return self._reader.uint_be(1)

    def read_block(self, introducer: int) -> None:
        """Read the rest of the block with this introducer; zeros between blocks are skipped."""
        if introducer == _IMAGE:
            self._read_image()
        elif introducer == _EXTENSION:
            self._read_extension(self._reader.uint_be(1))
        elif introducer != _STRAY_ZERO:
            raise UndecodableImage(detail=f"unknown block 0x{introducer:02x}")

    def _colour_table(self, flags: int) -> bytes:
        """Read the colour table that `flags` announce: 2 to 256 colours of three bytes, or none."""
        return self._reader.read(3 << ((flags & 7) + 1)) if flags & 0x80 else b""

    def _sub_blocks(self) -> bytes:
        """Read sub-blocks and return them with their length bytes, without the empty one that ends them."""
        start = end = self._reader.position
        while size := self._byte_or(b"\0"):
            if size < _SMALL_SUB_BLOCK_BYTES:
                self._small_sub_blocks.add()
            self._reader.skip(size)
            end = self._reader.position
        return bytes(self._reader.data[start:end])

    def _read_image(self) -> None:
        descriptor = self._reader.read(9)
        left, top, width, height = (int.from_bytes(descriptor[at : at + 2], "little") for at in (0, 2, 4, 6))
        # Decoders enlarge the canvas for a frame that sticks out of it.
        self.width, self.height = max(self.width, left + width), max(self.height, top + height)
        self.frames += 1
        self._limits.check((self.width, self.height), self.frames)
        if max(self.width, self.height) > _MAX_SIDE:
            raise UndecodableImage(detail=f"a frame that ends at {left + width}, {top + height}")
        table, code_size = self._colour_table(descriptor[8]), self._reader.read(1)
        if code_size[0] > _MAX_CODE_SIZE:
            raise UndecodableImage(detail=f"indexes of {code_size[0]} bits")
        pixels = self._sub_blocks()
        self._pieces += [self.control, bytes((_IMAGE,)), descriptor, table, code_size, pixels, b"\0"]
        self.control = b""

    def _read_extension(self, label: int) -> None:
        blocks = self._sub_blocks()
        if label == _GRAPHIC_CONTROL:
            self.control = _extension(label, next(_split(blocks), b""))
        elif label == _PLAIN_TEXT:
            # A graphic control belongs to the next block that draws. Text is one, though no viewer shows it.
            self.control = b""
        elif label == _APPLICATION and blocks:
            self._pieces.append(_kept_application(blocks))


def _extension(label: int, blocks: bytes) -> bytes:
    return bytes((_EXTENSION, label)) + blocks + b"\0"


def _kept_application(blocks: bytes) -> bytes:
    """Return the application extension if it changes how the image is shown, otherwise nothing."""
    found = _split(blocks)
    first = next(found)
    name = first[1:]
    if name in _LOOP_EXTENSIONS:
        # Sub-block 1 is the loop count; viewers ignore others. Decoders fail on an extension without it.
        count = next((block for block in found if block[:2] == b"\x03\x01"), b"")
        return _extension(_APPLICATION, first + count) if count else b""
    return _extension(_APPLICATION, blocks) if name == _ICC_EXTENSION else b""


def _split(blocks: bytes) -> Iterator[bytes]:
    """Yield the sub-blocks one by one, with their length bytes."""
    start = 0
    while start < len(blocks):
        end = start + 1 + blocks[start]
        yield blocks[start:end]
        start = end
