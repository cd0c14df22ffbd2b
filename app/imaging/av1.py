"""Find the size of every frame in an AV1 bitstream (AV1 specification, 5.3 to 5.9).

A decoder allocates memory for the sizes in the sequence header and the frame headers, whatever the container
says. This module parses both headers as far as the size of a frame.
"""

from dataclasses import dataclass
from typing import NamedTuple

from app.core.errors import UndecodableImage
from app.imaging.survey import ByteReader, PartCounter

_SEQUENCE_HEADER, _FRAME_HEADER, _FRAME, _REDUNDANT_FRAME_HEADER, _TILE_LIST = 1, 3, 6, 7, 8
_FRAME_HEADERS = {_FRAME_HEADER, _FRAME, _REDUNDANT_FRAME_HEADER}
_KEY_FRAME, _INTRA_ONLY_FRAME, _SWITCH_FRAME = 0, 2, 3
_PER_FRAME = 2
"""The value of SELECT_SCREEN_CONTENT_TOOLS and SELECT_INTEGER_MV (6.4.1). If a sequence header has this
value, each frame header sets its own."""
_REFERENCE_FRAMES, _REFERENCES_PER_FRAME = 8, 7
_MAX_HEADER_BYTES = 1024
"""Maximum number of bytes that are parsed in each unit. The longest header takes 460 bytes: 32 operating
points of 14 bytes each, and a few more fields."""
_MAX_LEB128_BYTES = 8


class _Obu(NamedTuple):
    """One OBU (open bitstream unit): its type, its layers, and the first bytes of its payload."""

    kind: int
    temporal_layer: int
    spatial_layer: int
    payload: bytes


class _BitReader:
    """A cursor over bits, most significant first. Raises UndecodableImage instead of reading past the end."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "big")
        self._remaining = 8 * len(data)

    def read(self, count: int) -> int:
        """Return the next `count` bits as an unsigned number: f(n) in the specification (4.10.2)."""
        self._remaining -= count
        if self._remaining < 0:
            raise UndecodableImage(detail="a truncated AV1 header")
        return self._value >> self._remaining & (1 << count) - 1

    def flag(self) -> bool:
        """Return whether the next bit is set."""
        return bool(self.read(1))

    def skip_uvlc(self) -> None:
        """Skip a number in variable-length coding: uvlc() in the specification (4.10.3)."""
        zeros = 0
        while not self.flag():
            zeros += 1
        if zeros < 32:
            self.read(zeros)


@dataclass(frozen=True, slots=True)
class _OperatingPoint:
    """An operating point of a sequence (6.4.1).

    `layers` is a bit mask of the layers that belong to it, or 0 if all layers do.
    """

    layers: int
    has_decoder_model: bool


class _Sequence:
    """The fields of a sequence header (5.5.1) that are needed to parse frame headers and frame sizes."""

    def __init__(self, bits: _BitReader) -> None:
        bits.read(4)  # seq_profile, still_picture
        self.reduced = bits.flag()
        self.has_decoder_model = self.equal_picture_interval = False
        self.removal_time_bits = self.presentation_time_bits = 0
        self.operating_points: list[_OperatingPoint] = []
        if self.reduced:
            bits.read(5)  # seq_level_idx
        else:
            self._read_timing(bits)
        widths, heights = bits.read(4) + 1, bits.read(4) + 1
        self.size_bits = widths, heights
        self.size = bits.read(widths) + 1, bits.read(heights) + 1
        self.frame_id_bits = self.delta_frame_id_bits = 0
        if not self.reduced and bits.flag():
            self.delta_frame_id_bits = bits.read(4) + 2
            self.frame_id_bits = bits.read(3) + self.delta_frame_id_bits + 1
        bits.read(3)  # use_128x128_superblock, enable_filter_intra, enable_intra_edge_filter
        self.screen_content_tools = self.integer_motion_vectors = _PER_FRAME
        self.order_hint_bits = 0
        if not self.reduced:
            self._read_tools(bits)

    def _read_timing(self, bits: _BitReader) -> None:
        delay_bits = 0
        if bits.flag():
            bits.read(64)  # num_units_in_display_tick, time_scale
            self.equal_picture_interval = bits.flag()
            if self.equal_picture_interval:
                bits.skip_uvlc()
            self.has_decoder_model = bits.flag()
            if self.has_decoder_model:
                delay_bits = bits.read(5) + 1
                bits.read(32)  # num_units_in_decoding_tick
                self.removal_time_bits = bits.read(5) + 1
                self.presentation_time_bits = bits.read(5) + 1
        has_display_delay = bits.flag()
        for _ in range(bits.read(5) + 1):
            self.operating_points.append(self._operating_point(bits, delay_bits, has_display_delay))

    def _operating_point(self, bits: _BitReader, delay_bits: int, has_display_delay: bool) -> _OperatingPoint:
        layers = bits.read(12)
        if bits.read(5) > 7:
            bits.read(1)  # seq_tier
        described = self.has_decoder_model and bits.flag()
        if described:
            bits.read(2 * delay_bits + 1)
        if has_display_delay and bits.flag():
            bits.read(4)
        return _OperatingPoint(layers, described)

    def _read_tools(self, bits: _BitReader) -> None:
        bits.read(4)  # enable_interintra_compound to enable_dual_filter
        enable_order_hint = bits.flag()
        if enable_order_hint:
            bits.read(2)  # enable_jnt_comp, enable_ref_frame_mvs
        self.screen_content_tools = _PER_FRAME if bits.flag() else bits.read(1)
        if self.screen_content_tools:
            self.integer_motion_vectors = _PER_FRAME if bits.flag() else bits.read(1)
        if enable_order_hint:
            self.order_hint_bits = bits.read(3) + 1


class Av1Parser:
    """Reads the bitstream of one item or track, piece by piece.

    `frames` counts the frames that a decoder decodes or shows again, including hidden frames. `pixels` is the
    total number of pixels of these frames. `size` is the width and height in pixels in all sequence headers;
    no frame is larger. It is None before the first sequence header. If a frame takes its size from another
    frame, the size in the sequence header is counted instead.
    """

    def __init__(self, counter: PartCounter) -> None:
        self.size: tuple[int, int] | None = None
        self.frames = 0
        self.pixels = 0
        self._counter = counter
        self._sequence: _Sequence | None = None

    def read(self, data: bytes | bytearray, start: int, end: int) -> None:
        """Parse the units that fill `data[start:end]`.

        Raises UndecodableImage if a unit is truncated, if sequence headers give different sizes, if a frame
        is larger than the size in the sequence header, or if a frame precedes the first sequence header.
        """
        reader = ByteReader(data, start, end)
        while reader.remaining:
            self._counter.add()
            obu = _next_obu(reader)
            if obu.kind == _SEQUENCE_HEADER:
                self._start_sequence(_Sequence(_BitReader(obu.payload)))
            elif obu.kind in _FRAME_HEADERS:
                self._add_frame(obu)
            elif obu.kind == _TILE_LIST:
                raise UndecodableImage(detail="an AV1 tile list")

    def _start_sequence(self, sequence: _Sequence) -> None:
        if self.size not in (None, sequence.size):
            raise UndecodableImage(detail=f"AV1 sequence headers with sizes {self.size} and {sequence.size}")
        self._sequence, self.size = sequence, sequence.size

    def _add_frame(self, obu: _Obu) -> None:
        if self._sequence is None:
            raise UndecodableImage(detail="an AV1 frame before the sequence header")
        width, height = _frame_size(_BitReader(obu.payload), self._sequence, obu)
        if width > self._sequence.size[0] or height > self._sequence.size[1]:
            raise UndecodableImage(
                detail=f"an AV1 frame of {width} × {height} in a sequence of {self._sequence.size}"
            )
        self.frames += 1
        self.pixels += width * height


def _next_obu(reader: ByteReader) -> _Obu:
    """Return the next unit (5.3.1). A unit without a size field extends to the end of the data."""
    head = reader.uint_be(1)
    if head & 0x80:
        raise UndecodableImage(detail="not an AV1 unit")
    layers = reader.uint_be(1) if head & 4 else 0
    length = _leb128(reader) if head & 2 else reader.remaining
    payload = reader.position
    reader.skip(length)
    beginning = bytes(reader.data[payload : min(payload + _MAX_HEADER_BYTES, reader.position)])
    return _Obu(head >> 3, layers >> 5, layers >> 3 & 3, beginning)


def _leb128(reader: ByteReader) -> int:
    """Read a number in LEB128, a variable-length code (4.10.5)."""
    value = 0
    for at in range(_MAX_LEB128_BYTES):
        byte = reader.uint_be(1)
        value |= (byte & 0x7F) << 7 * at
        if not byte & 0x80:
            return value
    raise UndecodableImage(detail="an AV1 unit whose size field does not end")


def _frame_size(bits: _BitReader, sequence: _Sequence, obu: _Obu) -> tuple[int, int]:
    """Return the width and height in pixels from a frame header (5.9.2).

    If the frame header has no size, return the size in the sequence header.
    """
    if sequence.reduced or bits.flag():  # show_existing_frame
        return sequence.size
    kind = bits.read(2)
    shown = bits.flag()
    if not shown:
        bits.read(1)  # showable_frame
    elif sequence.has_decoder_model and not sequence.equal_picture_interval:
        bits.read(sequence.presentation_time_bits)
    refreshes_all = kind == _SWITCH_FRAME or (kind == _KEY_FRAME and shown)
    resilient = refreshes_all or bits.flag()
    if not _read_override_flag(bits, sequence, kind):
        return sequence.size
    intra = kind in (_KEY_FRAME, _INTRA_ONLY_FRAME)
    bits.read(sequence.order_hint_bits)
    if not (intra or resilient):
        bits.read(3)  # primary_ref_frame
    _skip_removal_times(bits, sequence, obu)
    all_refreshed = refreshes_all or bits.read(8) == 0xFF
    if resilient and not (intra and all_refreshed):
        bits.read(_REFERENCE_FRAMES * sequence.order_hint_bits)
    if not intra and _uses_reference_size(bits, sequence, resilient=resilient):
        return sequence.size
    width_bits, height_bits = sequence.size_bits
    return bits.read(width_bits) + 1, bits.read(height_bits) + 1


def _read_override_flag(bits: _BitReader, sequence: _Sequence, kind: int) -> bool:
    """Read the fields from disable_cdf_update to frame_size_override_flag, and return the last of them."""
    bits.read(1)  # disable_cdf_update
    tools = bits.read(1) if sequence.screen_content_tools == _PER_FRAME else sequence.screen_content_tools
    if tools and sequence.integer_motion_vectors == _PER_FRAME:
        bits.read(1)  # force_integer_mv
    bits.read(sequence.frame_id_bits)
    return kind == _SWITCH_FRAME or bits.flag()


def _skip_removal_times(bits: _BitReader, sequence: _Sequence, obu: _Obu) -> None:
    """Skip the removal times of the operating points that the frame belongs to, if the header has any."""
    if not (sequence.has_decoder_model and bits.flag()):
        return
    for point in sequence.operating_points:
        in_layers = point.layers >> obu.temporal_layer & 1 and point.layers >> obu.spatial_layer + 8 & 1
        if point.has_decoder_model and (not point.layers or in_layers):
            bits.read(sequence.removal_time_bits)


def _uses_reference_size(bits: _BitReader, sequence: _Sequence, *, resilient: bool) -> bool:
    """Read the fields that precede the size of a predicted frame (5.9.7).

    Return whether the frame takes its size from a reference frame.
    """
    short = sequence.order_hint_bits > 0 and bits.flag()
    if short:
        bits.read(6)  # last_frame_idx, gold_frame_idx
    for _ in range(_REFERENCES_PER_FRAME):
        if not short:
            bits.read(3)
        if sequence.frame_id_bits:
            bits.read(sequence.delta_frame_id_bits)
    return not resilient and any(bits.flag() for _ in range(_REFERENCES_PER_FRAME))
