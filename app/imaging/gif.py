"""GIF87a and GIF89a (CompuServe, 1990): parse the blocks, and drop comments and other extras."""

from collections.abc import Iterator

from app.core.errors import UndecodableImage
from app.imaging.survey import ByteReader, ImageLimits, PartCounter, Survey, limit_parts

_EXTENSION, _IMAGE, _TRAILER, _STRAY_ZERO = 0x21, 0x2C, 0x3B, 0x00
_PLAIN_TEXT, _GRAPHIC_CONTROL, _APPLICATION = 0x01, 0xF9, 0xFF
_LOOP_EXTENSIONS = {b"NETSCAPE2.0", b"ANIMEXTS1.0"}
"""Application extensions that say how many times an animation is repeated."""
_ICC_EXTENSION = b"ICCRGBG1012"
"""The application extension for a colour profile (ICC.1, annex B.4)."""
_MAX_SIDE = 0xFFFF
"""Maximum width and height of the logical screen in pixels (section 18). We make the screen large enough for
all frames."""
_MAX_CODE_SIZE = 8
"""Maximum number of bits in a colour index (appendix F). A colour table has at most 256 colours, and browsers
draw nothing if the indexes have more than 8 bits."""
_SMALL_SUB_BLOCK_BYTES = 64
"""Only sub-blocks smaller than this count towards `MAX_PARTS`.

Encoders write full sub-blocks of 255 bytes, except for the last one of each frame. A large image may have
more than `MAX_PARTS` full sub-blocks.
"""


def survey_gif(data: bytes, limits: ImageLimits) -> Survey:
    """Parse the file up to its trailer, counting frames and pixels on the way.

    If the trailer is missing, parse to the end of the file, since all GIF readers show such files. Raises
    UndecodableImage if a block is truncated, or if the file ends where a frame is due. Raises TooManyPixels
    as soon as the frames exceed the limits.
    """
    parser = _GifParser(data, limits)
    for introducer in limit_parts(iter(parser.next_introducer, _TRAILER)):
        parser.read_block(introducer)
    if parser.missing_end and parser.control:
        raise UndecodableImage(detail="the file ends between a graphic control and its frame")
    limits.check((parser.width, parser.height), parser.frames)
    return Survey(parser.clean(), parser.width, parser.height, parser.frames, missing_end=parser.missing_end)


class _GifParser:
    """Reads a GIF block by block, and collects the blocks to keep.

    `control` is the graphic control extension for the next frame. It is empty if there is none.
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
        # Some writers set the size of the screen to zero, so that it depends on the frames.
        self._limits.check((max(1, self.width), max(1, self.height)), 1)

    def clean(self) -> bytes:
        """Return the file without metadata, with a screen that is large enough for all frames.

        In browsers, only the first frame enlarges the screen. Later frames would be cut off at its edges.
        """
        head, *blocks = self._pieces
        screen = self.width.to_bytes(2, "little") + self.height.to_bytes(2, "little")
        return b"".join([head[:6], screen, head[10:], *blocks, bytes((_TRAILER,))])

    def next_introducer(self) -> int:
        """Return the first byte of the next block, which says what kind of block it is.

        If the file has ended, return the trailer.
        """
        return self._byte_or(bytes((_TRAILER,)))

    def _byte_or(self, end: bytes) -> int:
        """Return the next byte. If the file has ended, return the byte `end` and add it to `missing_end`."""
        if not self._reader.remaining:
            self.missing_end += end
            return end[0]
        return self._reader.uint_be(1)

    def read_block(self, introducer: int) -> None:
        """Read the rest of the block that begins with `introducer`. Zeros between blocks are skipped."""
        if introducer == _IMAGE:
            self._read_image()
        elif introducer == _EXTENSION:
            self._read_extension(self._reader.uint_be(1))
        elif introducer != _STRAY_ZERO:
            raise UndecodableImage(detail=f"unknown block 0x{introducer:02x}")

    def _colour_table(self, flags: int) -> bytes:
        """Read the colour table, if `flags` declare one. It has 2 to 256 colours of three bytes each."""
        return self._reader.read(3 << ((flags & 7) + 1)) if flags & 0x80 else b""

    def _sub_blocks(self) -> bytes:
        """Read sub-blocks up to an empty one. Return those before it, including their length bytes."""
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
        # Decoders enlarge the screen for a frame that extends beyond it.
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
            # A graphic control belongs to the next block that is drawn. A plain text block counts as such a
            # block, although no viewer shows it.
            self.control = b""
        elif label == _APPLICATION and blocks:
            self._pieces.append(_kept_application(blocks))


def _extension(label: int, blocks: bytes) -> bytes:
    return bytes((_EXTENSION, label)) + blocks + b"\0"


def _kept_application(blocks: bytes) -> bytes:
    """Return the application extension if it affects how the image is shown, or no bytes if it doesn't."""
    found = _split(blocks)
    first = next(found)
    name = first[1:]
    if name in _LOOP_EXTENSIONS:
        # Sub-block 1 is the loop count. Viewers ignore other sub-blocks, and decoders fail if there is no
        # loop count, so an extension without a loop count is dropped.
        count = next((block for block in found if block[:2] == b"\x03\x01"), b"")
        return _extension(_APPLICATION, first + count) if count else b""
    return _extension(_APPLICATION, blocks) if name == _ICC_EXTENSION else b""


def _split(blocks: bytes) -> Iterator[bytes]:
    """Yield the sub-blocks one by one, each with its length byte."""
    start = 0
    while start < len(blocks):
        end = start + 1 + blocks[start]
        yield blocks[start:end]
        start = end
