"""Finds the size of every frame in an AV1 bitstream (AV1 specification, 5.3 to 5.9).

A decoder allocates memory by the sequence header and the frame headers, whatever the file around them says.
Both are read here, up to the size of a frame.
"""

from dataclasses import dataclass
from typing import NamedTuple

from app.core.errors import UndecodableImage
from app.imaging.survey import ByteReader, PartCount

_SEQUENCE_HEADER, _FRAME_HEADER, _FRAME, _REDUNDANT_FRAME_HEADER, _TILE_LIST = 1, 3, 6, 7, 8
_FRAME_HEADERS = {_FRAME_HEADER, _FRAME, _REDUNDANT_FRAME_HEADER}
_KEY_FRAME, _INTRA_ONLY_FRAME, _SWITCH_FRAME = 0, 2, 3
_SELECT = 2
"""SELECT_SCREEN_CONTENT_TOOLS and SELECT_INTEGER_MV: each frame header has its own value (6.4.1)."""
_REFERENCES, _REFERENCES_PER_FRAME = 8, 7
_LONGEST_HEADER = 1024
"""Bytes of a unit that are read. The longest header has 32 operating points of 14 bytes, 460 bytes in all."""
_LONGEST_LEB128 = 8


class Bits:
    """A cursor over bits, the highest one first; raises UndecodableImage instead of reading short."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "big")
        self._left = 8 * len(data)

    def take(self, count: int) -> int:
        """Return the next `count` bits as an unsigned number: f(n) in the specification (4.10.2)."""
        self._left -= count
        if self._left < 0:
            raise UndecodableImage(detail="an AV1 header is cut")
        return self._value >> self._left & (1 << count) - 1

    def flag(self) -> bool:
        """Return the next bit."""
        return bool(self.take(1))

    def skip_uvlc(self) -> None:
        """Pass over a number of variable length: uvlc() in the specification (4.10.3)."""
        zeros = 0
        while not self.flag():
            zeros += 1
        if zeros < 32:
            self.take(zeros)


class _Obu(NamedTuple):
    """One open bitstream unit: its type, its layers, and the beginning of its payload."""

    kind: int
    temporal_layer: int
    spatial_layer: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class _OperatingPoint:
    """One operating point of a sequence (6.4.1): its layers, and whether it has a decoder model."""

    layers: int
    has_decoder_model: bool


class _Sequence:
    """The fields of a sequence header (5.5.1) that frame sizes and frame headers depend on."""

    def __init__(self, bits: Bits) -> None:
        bits.take(4)  # seq_profile, still_picture
        self.reduced = bits.flag()
        self.has_decoder_model = self.equal_picture_interval = False
        self.removal_time_bits = self.presentation_time_bits = 0
        self.operating_points: list[_OperatingPoint] = []
        if self.reduced:
            bits.take(5)  # seq_level_idx
        else:
            self._read_timing(bits)
        widths, heights = bits.take(4) + 1, bits.take(4) + 1
        self.size_bits = widths, heights
        self.size = bits.take(widths) + 1, bits.take(heights) + 1
        self.frame_id_bits = self.delta_frame_id_bits = 0
        if not self.reduced and bits.flag():
            self.delta_frame_id_bits = bits.take(4) + 2
            self.frame_id_bits = bits.take(3) + self.delta_frame_id_bits + 1
        bits.take(3)  # use_128x128_superblock, enable_filter_intra, enable_intra_edge_filter
        self.screen_content_tools = self.integer_motion_vectors = _SELECT
        self.order_hint_bits = 0
        if not self.reduced:
            self._read_tools(bits)

    def _read_timing(self, bits: Bits) -> None:
        delay_bits = 0
        if bits.flag():
            bits.take(64)  # num_units_in_display_tick, time_scale
            self.equal_picture_interval = bits.flag()
            if self.equal_picture_interval:
                bits.skip_uvlc()
            self.has_decoder_model = bits.flag()
            if self.has_decoder_model:
                delay_bits = bits.take(5) + 1
                bits.take(32)  # num_units_in_decoding_tick
                self.removal_time_bits = bits.take(5) + 1
                self.presentation_time_bits = bits.take(5) + 1
        has_display_delay = bits.flag()
        for _ in range(bits.take(5) + 1):
            self.operating_points.append(self._operating_point(bits, delay_bits, has_display_delay))

    def _operating_point(self, bits: Bits, delay_bits: int, has_display_delay: bool) -> _OperatingPoint:
        layers = bits.take(12)
        if bits.take(5) > 7:
            bits.take(1)  # seq_tier
        described = self.has_decoder_model and bits.flag()
        if described:
            bits.take(2 * delay_bits + 1)
        if has_display_delay and bits.flag():
            bits.take(4)
        return _OperatingPoint(layers, described)

    def _read_tools(self, bits: Bits) -> None:
        bits.take(4)  # enable_interintra_compound to enable_dual_filter
        enable_order_hint = bits.flag()
        if enable_order_hint:
            bits.take(2)  # enable_jnt_comp, enable_ref_frame_mvs
        self.screen_content_tools = _SELECT if bits.flag() else bits.take(1)
        if self.screen_content_tools:
            self.integer_motion_vectors = _SELECT if bits.flag() else bits.take(1)
        if enable_order_hint:
            self.order_hint_bits = bits.take(3) + 1


class Av1Walk:
    """Reads the bitstream of one item or track, piece by piece.

    `frames` counts the frames that a decoder decodes or shows again, hidden ones included, and `pixels` is
    the sum of their sizes. No frame is larger than `size`, width and height in pixels, which all sequence
    headers give; None before the first one. A frame that takes its size from another one counts as the
    largest.
    """

    def __init__(self, count: PartCount) -> None:
        self.size: tuple[int, int] | None = None
        self.frames = 0
        self.pixels = 0
        self._count = count
        self._sequence: _Sequence | None = None

    def read(self, data: bytes | bytearray, start: int, end: int) -> None:
        """Read the units that fill `data[start:end]`.

        Raises UndecodableImage if one is cut, if sequence headers differ in size, if a frame is larger than
        the size they give, or if a frame precedes the first of them.
        """
        reader = ByteReader(data, start, end)
        while reader.left:
            self._count.add()
            obu = _next_obu(reader)
            if obu.kind == _SEQUENCE_HEADER:
                self._start_sequence(_Sequence(Bits(obu.payload)))
            elif obu.kind in _FRAME_HEADERS:
                self._add_frame(obu)
            elif obu.kind == _TILE_LIST:
                raise UndecodableImage(detail="an AV1 tile list")

    def _start_sequence(self, sequence: _Sequence) -> None:
        if self.size not in (None, sequence.size):
            raise UndecodableImage(detail=f"AV1 sequences of {self.size} and {sequence.size}")
        self._sequence, self.size = sequence, sequence.size

    def _add_frame(self, obu: _Obu) -> None:
        if self._sequence is None:
            raise UndecodableImage(detail="an AV1 frame before the sequence header")
        width, height = _frame_size(Bits(obu.payload), self._sequence, obu)
        if width > self._sequence.size[0] or height > self._sequence.size[1]:
            raise UndecodableImage(detail=f"an AV1 frame of {width} × {height} in {self._sequence.size}")
        self.frames += 1
        self.pixels += width * height


def _next_obu(reader: ByteReader) -> _Obu:
    """Return the next unit (5.3.1). Without a size it reaches to the end of the data, as for decoders."""
    head = reader.big(1)
    if head & 0x80:
        raise UndecodableImage(detail="not an AV1 unit")
    layers = reader.big(1) if head & 4 else 0
    length = _leb128(reader) if head & 2 else reader.left
    payload = reader.position
    reader.skip(length)
    beginning = bytes(reader.data[payload : min(payload + _LONGEST_HEADER, reader.position)])
    return _Obu(head >> 3, layers >> 5, layers >> 3 & 3, beginning)


def _leb128(reader: ByteReader) -> int:
    """Read a number of variable length (4.10.5)."""
    value = 0
    for at in range(_LONGEST_LEB128):
        byte = reader.big(1)
        value |= (byte & 0x7F) << 7 * at
        if not byte & 0x80:
            return value
    raise UndecodableImage(detail="an AV1 unit whose size has no end")


def _frame_size(bits: Bits, sequence: _Sequence, obu: _Obu) -> tuple[int, int]:
    """Return width and height from a frame header (5.9.2); those of the sequence if it has none."""
    if sequence.reduced or bits.flag():  # show_existing_frame
        return sequence.size
    kind = bits.take(2)
    shown = bits.flag()
    if not shown:
        bits.take(1)  # showable_frame
    elif sequence.has_decoder_model and not sequence.equal_picture_interval:
        bits.take(sequence.presentation_time_bits)
    refreshes_all = kind == _SWITCH_FRAME or (kind == _KEY_FRAME and shown)
    resilient = refreshes_all or bits.flag()
    if not _overrides_size(bits, sequence, kind):
        return sequence.size
    intra = kind in (_KEY_FRAME, _INTRA_ONLY_FRAME)
    bits.take(sequence.order_hint_bits)
    if not (intra or resilient):
        bits.take(3)  # primary_ref_frame
    _skip_removal_times(bits, sequence, obu)
    all_refreshed = refreshes_all or bits.take(8) == 0xFF
    if resilient and not (intra and all_refreshed):
        bits.take(_REFERENCES * sequence.order_hint_bits)
    if not intra and _size_of_another(bits, sequence, resilient=resilient):
        return sequence.size
    width_bits, height_bits = sequence.size_bits
    return bits.take(width_bits) + 1, bits.take(height_bits) + 1


def _overrides_size(bits: Bits, sequence: _Sequence, kind: int) -> bool:
    """Read from disable_cdf_update to frame_size_override_flag, and return that flag."""
    bits.take(1)  # disable_cdf_update
    tools = bits.take(1) if sequence.screen_content_tools == _SELECT else sequence.screen_content_tools
    if tools and sequence.integer_motion_vectors == _SELECT:
        bits.take(1)  # force_integer_mv
    bits.take(sequence.frame_id_bits)
    return kind == _SWITCH_FRAME or bits.flag()


def _skip_removal_times(bits: Bits, sequence: _Sequence, obu: _Obu) -> None:
    """Skip the removal times, if there are any, of the operating points that the frame belongs to."""
    if not (sequence.has_decoder_model and bits.flag()):
        return
    for point in sequence.operating_points:
        in_layers = point.layers >> obu.temporal_layer & 1 and point.layers >> obu.spatial_layer + 8 & 1
        if point.has_decoder_model and (not point.layers or in_layers):
            bits.take(sequence.removal_time_bits)


def _size_of_another(bits: Bits, sequence: _Sequence, *, resilient: bool) -> bool:
    """Read up to a predicted frame's size; return whether it is that of a reference frame (5.9.7)."""
    short = sequence.order_hint_bits > 0 and bits.flag()
    if short:
        bits.take(6)  # last_frame_idx, gold_frame_idx
    for _ in range(_REFERENCES_PER_FRAME):
        if not short:
            bits.take(3)
        if sequence.frame_id_bits:
            bits.take(sequence.delta_frame_id_bits)
    return not resilient and any(bits.flag() for _ in range(_REFERENCES_PER_FRAME))
