"""GIF87a and GIF89a (CompuServe, 1990): a walk over the blocks that leaves out comments and extras."""

from collections.abc import Iterator

from app.core.errors import UndecodableImage
from app.imaging.survey import ByteReader, ImageLimits, PartCount, Survey, bounded

_EXTENSION, _IMAGE, _TRAILER, _STRAY = 0x21, 0x2C, 0x3B, 0x00
_PLAIN_TEXT, _GRAPHIC_CONTROL, _APPLICATION = 0x01, 0xF9, 0xFF
_LOOPS = {b"NETSCAPE2.0", b"ANIMEXTS1.0"}
"""Application extensions that say how often the animation is repeated."""
_ICC = b"ICCRGBG1012"
"""Application extension with a colour profile (ICC.1, annex B.4)."""
_MAX_SIDE = 0xFFFF
"""Pixels of a side of the screen (section 18), which is made as large as all frames together."""
_LARGEST_CODE_SIZE = 8
"""Bits of an index (appendix F). No colour table is large enough for more, and browsers draw nothing then."""
_SMALL = 64
"""Bytes below which a sub-block counts as a part.

Encoders fill sub-blocks, up to 255 bytes, but for the last of each frame: the full ones of a large image may
well be more than any file may have parts.
"""


def survey_gif(data: bytes, limits: ImageLimits) -> Survey:
    """Walk to the trailer or to the file's end, counting frames × pixels on the way.

    Everything that reads GIF shows the frames of a file without trailer. Raises UndecodableImage if a block
    is cut, or if the file ends where a frame was due, and TooManyPixels as soon as the frames so far are over
    the limits.
    """
    walk = _Walk(data, limits)
    for introducer in bounded(iter(walk.introducer, _TRAILER)):
        walk.block(introducer)
    if walk.missing_end and walk.control:
        raise UndecodableImage(detail="the file ends between a graphic control and its frame")
    limits.check((walk.width, walk.height), walk.frames)
    return Survey(walk.clean(), walk.width, walk.height, walk.frames, missing_end=walk.missing_end)


class _Walk:
    """One pass over a GIF; `pieces` collects what is kept."""

    def __init__(self, data: bytes, limits: ImageLimits) -> None:
        self.reader = ByteReader(data)
        self.limits = limits
        self.small = PartCount()
        self.frames = 0
        self.missing_end = b""
        # A graphic control belongs to the next block that draws, and goes with it.
        self.control = b""
        head = self.reader.take(13)
        self.width = int.from_bytes(head[6:8], "little")
        self.height = int.from_bytes(head[8:10], "little")
        self.pieces = [head, self._colour_table(head[10])]
        # Some writers leave the screen empty, and let the frames say how large the image is.
        self.limits.check((max(1, self.width), max(1, self.height)), 1)

    def clean(self) -> bytes:
        """The file that is kept, on a screen as large as all frames together.

        Browsers let the first frame alone enlarge the screen, and cut off what of the others sticks out.
        """
        head, *blocks = self.pieces
        screen = self.width.to_bytes(2, "little") + self.height.to_bytes(2, "little")
        return b"".join([head[:6], screen, head[10:], *blocks, bytes((_TRAILER,))])

    def introducer(self) -> int:
        """The byte that says what kind of block comes; the trailer if the file ends."""
        return self._byte_or(bytes((_TRAILER,)))

    def _byte_or(self, end: bytes) -> int:
        """The next byte, or `end` if the file has ended, which then is missing."""
        if not self.reader.left:
            self.missing_end += end
            return end[0]
        return self.reader.big(1)

    def block(self, introducer: int) -> None:
        """Read the block that starts with this byte; zeros between blocks are passed over."""
        if introducer == _IMAGE:
            self._image()
        elif introducer == _EXTENSION:
            self._extension(self.reader.big(1))
        elif introducer != _STRAY:
            raise UndecodableImage(detail=f"unknown block 0x{introducer:02x}")

    def _colour_table(self, flags: int) -> bytes:
        """The colour table that `flags` announce: 2 to 256 colours of three bytes, or none."""
        return self.reader.take(3 << ((flags & 7) + 1)) if flags & 0x80 else b""

    def _sub_blocks(self) -> bytes:
        """Sub-blocks with their length bytes, up to and without the empty one that ends them."""
        start = end = self.reader.position
        while size := self._byte_or(b"\0"):
            if size < _SMALL:
                self.small.add()
            self.reader.skip(size)
            end = self.reader.position
        return bytes(self.reader.data[start:end])

    def _image(self) -> None:
        descriptor = self.reader.take(9)
        left, top, width, height = (int.from_bytes(descriptor[at : at + 2], "little") for at in (0, 2, 4, 6))
        # Decoders enlarge the canvas for a frame that sticks out of it.
        self.width, self.height = max(self.width, left + width), max(self.height, top + height)
        self.frames += 1
        self.limits.check((self.width, self.height), self.frames)
        if max(self.width, self.height) > _MAX_SIDE:
            raise UndecodableImage(detail=f"a frame that ends at {left + width}, {top + height}")
        table, code_size = self._colour_table(descriptor[8]), self.reader.take(1)
        if code_size[0] > _LARGEST_CODE_SIZE:
            raise UndecodableImage(detail=f"indexes of {code_size[0]} bits")
        self.pieces += [
            self.control,
            bytes((_IMAGE,)),
            descriptor,
            table,
            code_size,
            self._sub_blocks(),
            b"\0",
        ]
        self.control = b""

    def _extension(self, label: int) -> None:
        blocks = self._sub_blocks()
        if label == _GRAPHIC_CONTROL:
            self.control = _extension(label, next(_split(blocks), b""))
        elif label == _PLAIN_TEXT:
            self.control = b""
        elif label == _APPLICATION and blocks:
            self.pieces.append(_application(blocks))


def _extension(label: int, blocks: bytes) -> bytes:
    return bytes((_EXTENSION, label)) + blocks + b"\0"


def _application(blocks: bytes) -> bytes:
    """The application extension if it changes how the image is shown, else nothing."""
    found = _split(blocks)
    first = next(found)
    name = first[1:]
    if name in _LOOPS:
        # Sub-block 1 is the loop count; anything else is for no viewer of today. Without it decoders stumble.
        count = next((block for block in found if block[:2] == b"\x03\x01"), b"")
        return _extension(_APPLICATION, first + count) if count else b""
    return _extension(_APPLICATION, blocks) if name == _ICC else b""


def _split(blocks: bytes) -> Iterator[bytes]:
    """The sub-blocks one by one, with their length bytes."""
    start = 0
    while start < len(blocks):
        end = start + 1 + blocks[start]
        yield blocks[start:end]
        start = end
