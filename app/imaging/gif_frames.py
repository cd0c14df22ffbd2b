"""Compose the frames of an animated GIF as browsers do.

Pillow composes frames, too, but it keeps the canvas opaque if the first frame is, it fills areas that are to
be cleared with a background colour that browsers ignore, and it repeats the disposal of the previous frame if
a frame has none. So each frame is decoded as a GIF of its own, and put on the canvas here.
"""

from collections.abc import Iterator
from typing import NamedTuple

from PIL import Image

from app.core.objects import FORMATS
from app.imaging.decode import open_image
from app.imaging.survey import ByteReader

_EXTENSION, _IMAGE, _TRAILER = 0x21, 0x2C, 0x3B
_GRAPHIC_CONTROL = 0xF9
_TO_BACKGROUND, _TO_PREVIOUS = 2, 3
"""Disposal methods (section 23). All others leave the frame on the canvas."""
_CLEAR = (0, 0, 0, 0)


class GifFrame(NamedTuple):
    """A frame: its place on the canvas, how it is disposed of, and for how many milliseconds it is shown.

    `data` is a GIF that contains only this frame.
    """

    left: int
    top: int
    size: tuple[int, int]
    disposal: int
    duration: int
    data: bytes

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Return the left, top, right and bottom edge on the canvas."""
        return self.left, self.top, self.left + self.size[0], self.top + self.size[1]


class GifCanvas:
    """The canvas of an animated GIF without metadata, and with a screen that is large enough for all frames.

    `duration` is for how many milliseconds the frame that was drawn last is shown.
    """

    def __init__(self, data: bytes, size: tuple[int, int]) -> None:
        self._data = data
        self._size = size
        self._drawn = -1
        self.duration = 0

    @property
    def can_become_clear(self) -> bool:
        """Whether a part of the canvas may be transparent after all parts of the first frame were opaque."""
        first, *others = [(frame.box, frame.disposal) for frame in gif_frames(self._data)]
        clears = first[1] == _TO_PREVIOUS or any(each[1] == _TO_BACKGROUND for each in (first, *others))
        return clears or first[0] != (0, 0, *self._size)

    def draw(self, index: int) -> Image.Image:
        """Return the canvas with this frame, in RGBA. Frames must be drawn in their order.

        The picture may be changed when the next frame is drawn.
        """
        if index < self._drawn or self._drawn < 0:
            self._frames = gif_frames(self._data)
            self._drawn = -1
            self._next = Image.new("RGBA", self._size, _CLEAR)
        while self._drawn < index:
            self._draw(next(self._frames))
            self._drawn += 1
        return self._shown

    def _draw(self, frame: GifFrame) -> None:
        canvas = self._next
        before = canvas.crop(frame.box) if frame.disposal == _TO_PREVIOUS else None
        with open_image(frame.data, FORMATS["gif"], frame.size) as image:
            picture = image.convert("RGBA")
        canvas.paste(picture, frame.box, picture)
        self._shown = self._next = canvas
        self.duration = frame.duration
        if before is not None:
            self._next = canvas.copy()
            self._next.paste(before, frame.box)
        elif frame.disposal == _TO_BACKGROUND:
            self._next = canvas.copy()
            self._next.paste(_CLEAR, frame.box)


def gif_frames(data: bytes) -> Iterator[GifFrame]:
    """Yield the frames of a GIF that was surveyed."""
    reader = ByteReader(data)
    head = reader.read(13)
    table = _colour_table(reader, head[10])
    control = bytes(4)
    while (introducer := reader.uint_be(1)) != _TRAILER:
        if introducer == _EXTENSION:
            label = reader.uint_be(1)
            blocks = _sub_blocks(reader)
            if label == _GRAPHIC_CONTROL:
                control = blocks[1:5]
        elif introducer == _IMAGE:
            yield _frame(reader, head, table, control)
            control = bytes(4)


def _frame(reader: ByteReader, head: bytes, table: bytes, control: bytes) -> GifFrame:
    left, top = reader.uint_le(2), reader.uint_le(2)
    size = reader.read(4)
    flags = reader.read(1)
    local_table = _colour_table(reader, flags[0])
    picture = reader.read(1) + _sub_blocks(reader)
    extension = bytes((_EXTENSION, _GRAPHIC_CONTROL, 4, control[0] & 1)) + control[1:] + b"\0"
    descriptor = bytes((_IMAGE, 0, 0, 0, 0)) + size + flags
    pieces = (head[:6], size, head[10:], table, extension, descriptor, local_table, picture)
    return GifFrame(
        left,
        top,
        (int.from_bytes(size[:2], "little"), int.from_bytes(size[2:], "little")),
        control[0] >> 2 & 7,
        10 * int.from_bytes(control[1:3], "little"),
        b"".join((*pieces, bytes((_TRAILER,)))),
    )


def _colour_table(reader: ByteReader, flags: int) -> bytes:
    return reader.read(3 << (flags & 7) + 1) if flags & 0x80 else b""


def _sub_blocks(reader: ByteReader) -> bytes:
    """Return the sub-blocks at the cursor, including their sizes and the terminator."""
    start = reader.position
    while size := reader.uint_be(1):
        reader.skip(size)
    return bytes(reader.data[start : reader.position])
