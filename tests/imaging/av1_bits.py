"""Write AV1 headers bit by bit, and read sizes from headers independently of the parser under test."""

from collections.abc import Iterator
from dataclasses import dataclass

SEQUENCE_HEADER, TEMPORAL_DELIMITER, FRAME_HEADER, PADDING = 1, 2, 3, 15
FRAME, REDUNDANT_FRAME_HEADER, TILE_LIST = 6, 7, 8
KEY, INTER, INTRA_ONLY, SWITCH = range(4)


def number(value: int, width: int) -> str:
    """Return the number as bits."""
    return f"{value:0{width}b}" if width else ""


def packed(bits: str) -> bytes:
    """Return the bits as bytes, padded with zeros."""
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def unpacked(data: bytes) -> str:
    """Return the bytes as bits."""
    return number(int.from_bytes(data, "big"), 8 * len(data))


def unit(kind: int, payload: bytes, *, layers: int | None = None, sized: bool = True) -> bytes:
    """Return an open bitstream unit. `layers` is the byte with its temporal and spatial layer."""
    extended = layers is not None
    head = bytes((kind << 3 | extended << 2 | sized << 1, *([layers] if layers is not None else [])))
    return head + (leb128(len(payload)) if sized else b"") + payload


def leb128(value: int) -> bytes:
    """Return the number in LEB128: groups of seven bits, the lowest first."""
    groups = []
    while value > 0x7F:
        groups.append(0x80 | value & 0x7F)
        value >>= 7
    return bytes((*groups, value))


def units(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the type and the payload of every unit in a bitstream whose units are smaller than 2^14 bytes."""
    while data:
        kind, data = data[0] >> 3, data[1 + (data[0] >> 2 & 1) :]
        wide = data[0] > 0x7F
        length = data[0] & 0x7F | data[1] << 7 if wide else data[0]
        data = data[1 + wide :]
        yield kind, data[:length]
        data = data[length:]


def declared_size(data: bytes) -> tuple[int, int]:
    """Return the width and height in the first sequence header of a bitstream from an image encoder."""
    bits = unpacked(next(payload for kind, payload in units(data) if kind == SEQUENCE_HEADER))
    start = _size_start(bits)
    widths, heights = int(bits[start : start + 4], 2) + 1, int(bits[start + 4 : start + 8], 2) + 1
    start += 8
    return int(bits[start : start + widths], 2) + 1, int(bits[start + widths :][:heights], 2) + 1


def _size_start(bits: str) -> int:
    """Return the position of frame_width_bits_minus_1, with one operating point and no timing."""
    if bits[4] == "1":
        return 10
    assert bits[5:12] == "0" * 7, "timing, delays or several operating points"
    return 29 + (int(bits[24:29], 2) > 7)


def enlarged(data: bytes, declared: tuple[int, int]) -> bytes:
    """Return a key frame whose sequence header declares a different size than its frame header."""
    found = b""
    for kind, payload in units(data):
        bits = unpacked(payload)
        if kind == SEQUENCE_HEADER:
            true, start = declared_size(data), _size_start(bits)
            after = start + 8 + int(bits[start : start + 4], 2) + int(bits[start + 4 : start + 8], 2) + 2
            size = number(15, 4) * 2 + number(declared[0] - 1, 16) + number(declared[1] - 1, 16)
            # The trailing bit and its zeros end a header (5.3.4).
            bits = bits[:start] + size + bits[after:].rstrip("0")
            order_hint_bits = int(bits[start + 8 + 32 + 1 + 3 + 4 + 1 + 2 + 2 :][:3], 2) + 1
        elif kind == FRAME:
            # A shown key frame without screen content tools, followed by frame_size_override_flag.
            assert bits[:7] == "0001000", "another kind of frame"
            at = 7 + order_hint_bits
            bits = bits[:6] + "1" + bits[7:at] + number(true[0] - 1, 16) + number(true[1] - 1, 16) + bits[at:]
        found += unit(kind, packed(bits) if bits else b"")
    return found


@dataclass(frozen=True)
class Sequence:
    """The fields of a sequence header other than the size (5.5.1)."""

    reduced: bool = False
    timing: bool = False
    equal_interval: bool = False
    decoder_model: bool = False
    display_delay: bool = False
    points: tuple[int, ...] = (0,)
    frame_ids: bool = False
    order_hint_bits: int = 7
    screen_tools: int = 2
    integer_mv: int = 2
    size_bits: int = 16

    def unit(self, size: tuple[int, int]) -> bytes:
        """Return the header of a sequence whose frames have at most this size."""
        bits = "000" + "1" * self.reduced + "0" * (not self.reduced) + str(int(self.reduced))
        bits += number(4, 5) if self.reduced else self._timing()
        bits += number(self.size_bits - 1, 4) * 2 + number(size[0] - 1, self.size_bits)
        bits += number(size[1] - 1, self.size_bits)
        if not self.reduced:
            bits += "1" + number(12, 4) + number(0, 3) if self.frame_ids else "0"
        bits += "111"
        if not self.reduced:
            bits += "1111" + ("111" if self.order_hint_bits else "0")
            bits += "1" if self.screen_tools == 2 else "0" + str(self.screen_tools)
            if self.screen_tools:
                bits += "1" if self.integer_mv == 2 else "0" + str(self.integer_mv)
            bits += number(self.order_hint_bits - 1, 3) if self.order_hint_bits else ""
        return unit(SEQUENCE_HEADER, packed(bits + "111" + "1"))

    def _timing(self) -> str:
        bits = "0"
        if self.timing:
            bits = "1" + number(1, 32) + number(1000, 32) + ("1" + "00101" if self.equal_interval else "0")
            bits += (
                "1" + number(9, 5) + number(7, 32) + number(19, 5) + number(4, 5)
                if self.decoder_model
                else "0"
            )
        bits += str(int(self.display_delay)) + number(len(self.points) - 1, 5)
        for layers in self.points:
            bits += number(layers, 12) + number(9, 5) + "1"
            bits += "1" + number(1, 10) + number(2, 10) + "1" if self.decoder_model else ""
            bits += "1" + number(5, 4) if self.display_delay else ""
        return bits


@dataclass(frozen=True)
class Frame:
    """The optional fields of a frame header before the size (5.9.2)."""

    kind: int = KEY
    shown: bool = True
    resilient: bool = False
    short_references: bool = False
    found_reference: int | None = None
    refreshed: int = 0xFF
    layers: int | None = None
    unit_kind: int = FRAME_HEADER

    def unit(self, sequence: Sequence, size: tuple[int, int] | None) -> bytes:
        """Return the header of a frame. If `size` is None, the frame has the size of its sequence."""
        bits = "0" + number(self.kind, 2) + str(int(self.shown))
        if not self.shown:
            bits += "1"
        elif sequence.decoder_model and not sequence.equal_interval:
            bits += number(3, 5)
        refreshes_all = self.kind == SWITCH or (self.kind == KEY and self.shown)
        resilient = refreshes_all or self.resilient
        bits += ("" if refreshes_all else str(int(resilient))) + "0"
        bits += "1" if sequence.screen_tools == 2 else ""
        bits += "0" if sequence.screen_tools and sequence.integer_mv == 2 else ""
        bits += number(77, 15) if sequence.frame_ids else ""
        bits += "" if self.kind == SWITCH else str(int(size is not None))
        intra = self.kind in (KEY, INTRA_ONLY)
        bits += number(1, sequence.order_hint_bits) + ("" if intra or resilient else number(5, 3))
        bits += self._removal_times(sequence) + ("" if refreshes_all else number(self.refreshed, 8))
        if resilient and not (intra and (refreshes_all or self.refreshed == 0xFF)):
            bits += number(1, sequence.order_hint_bits) * 8
        if not intra:
            bits += self._references(sequence, resilient=resilient)
        if self.found_reference is None and size:
            bits += number(size[0] - 1, sequence.size_bits) + number(size[1] - 1, sequence.size_bits)
        return unit(self.unit_kind, packed(bits + "0111" * 3), layers=self.layers)

    def _removal_times(self, sequence: Sequence) -> str:
        if not sequence.decoder_model:
            return ""
        layers = self.layers or 0
        temporal, spatial = layers >> 5, layers >> 3 & 3
        used = [p for p in sequence.points if not p or (p >> temporal & 1 and p >> spatial + 8 & 1)]
        return "1" + number(12345, 20) * len(used)

    def _references(self, sequence: Sequence, *, resilient: bool) -> str:
        bits = str(int(self.short_references)) if sequence.order_hint_bits else ""
        bits += number(9, 6) if self.short_references else ""
        for _ in range(7):
            bits += "" if self.short_references else number(6, 3)
            bits += number(99, 14) if sequence.frame_ids else ""
        if resilient:
            return bits
        return bits + ("0" * 7 if self.found_reference is None else "0" * self.found_reference + "1")
