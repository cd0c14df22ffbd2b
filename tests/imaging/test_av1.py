"""The AV1 parser finds the size of every frame, whatever other fields are in the headers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import UndecodableImage
from app.imaging import survey
from app.imaging.av1 import Av1Parser
from app.imaging.survey import PartCounter

from .av1_bits import (
    FRAME,
    FRAME_HEADER,
    INTER,
    INTRA_ONLY,
    KEY,
    PADDING,
    REDUNDANT_FRAME_HEADER,
    SEQUENCE_HEADER,
    SWITCH,
    TEMPORAL_DELIMITER,
    TILE_LIST,
    Frame,
    Sequence,
    declared_size,
    enlarged,
    unit,
)
from .avif_files import av1, av1_frames

LARGEST = (1000, 800)


def _parse(*pieces: bytes) -> Av1Parser:
    parser = Av1Parser(PartCounter())
    for piece in pieces:
        parser.read(piece, 0, len(piece))
    return parser


SEQUENCES = st.builds(
    Sequence,
    timing=st.booleans(),
    equal_interval=st.booleans(),
    decoder_model=st.booleans(),
    display_delay=st.booleans(),
    points=st.lists(st.sampled_from([0, 0x101, 0x103, 0x301, 0xF0F]), min_size=1, max_size=32).map(tuple),
    frame_ids=st.booleans(),
    order_hint_bits=st.integers(0, 8),
    screen_tools=st.integers(0, 2),
    integer_mv=st.integers(0, 2),
    size_bits=st.integers(10, 16),
).filter(lambda sequence: sequence.timing or not (sequence.equal_interval or sequence.decoder_model))
FRAMES = st.builds(
    Frame,
    kind=st.sampled_from([KEY, INTER, INTRA_ONLY, SWITCH]),
    shown=st.booleans(),
    resilient=st.booleans(),
    refreshed=st.integers(0, 0xFF),
    layers=st.none() | st.integers(0, 31).map(lambda layers: layers << 3),
    unit_kind=st.sampled_from([FRAME, FRAME_HEADER, REDUNDANT_FRAME_HEADER]),
)


@given(sequence=SEQUENCES, frame=FRAMES, width=st.integers(1, 1000), height=st.integers(1, 800))
def test_a_frame_counts_with_its_declared_size(
    sequence: Sequence, frame: Frame, width: int, height: int
) -> None:
    parsed = _parse(sequence.unit(LARGEST), frame.unit(sequence, (width, height)))
    assert (parsed.size, parsed.frames, parsed.pixels) == (LARGEST, 1, width * height)


@given(sequence=SEQUENCES, frame=FRAMES.filter(lambda frame: frame.kind != SWITCH))
def test_a_frame_without_a_size_counts_with_the_size_of_its_sequence(
    sequence: Sequence, frame: Frame
) -> None:
    parsed = _parse(sequence.unit(LARGEST), frame.unit(sequence, None))
    assert (parsed.frames, parsed.pixels) == (1, 800_000)


@pytest.mark.parametrize("short", [False, True])
@pytest.mark.parametrize("reference", [None, 0, 3, 6])
def test_a_frame_with_the_size_of_another_counts_with_the_size_of_its_sequence(
    reference: int | None, short: bool
) -> None:
    sequence, frame = Sequence(), Frame(INTER, short_references=short, found_reference=reference)
    parsed = _parse(sequence.unit(LARGEST), frame.unit(sequence, (30, 20)))
    assert parsed.pixels == (600 if reference is None else 800_000)


@pytest.mark.parametrize("frame", [Frame(), Frame(INTER), Frame(SWITCH), Frame(KEY, shown=False)])
@pytest.mark.parametrize("size", [(1001, 800), (1000, 801), (16_384, 16_384)])
def test_a_frame_larger_than_its_sequence_is_refused(frame: Frame, size: tuple[int, int]) -> None:
    sequence = Sequence()
    with pytest.raises(UndecodableImage, match="an AV1 frame of"):
        _parse(sequence.unit(LARGEST), frame.unit(sequence, size))


def test_hidden_and_repeated_frames_count() -> None:
    sequence = Sequence()
    hidden, again = Frame(shown=False).unit(sequence, (10, 10)), unit(FRAME_HEADER, b"\x80")
    parsed = _parse(unit(TEMPORAL_DELIMITER, b"") + sequence.unit(LARGEST) + hidden * 3 + again, hidden)
    assert (parsed.frames, parsed.pixels) == (5, 400 + 800_000)


def test_the_last_unit_may_have_no_size() -> None:
    sequence = Sequence(reduced=True)
    parsed = _parse(sequence.unit(LARGEST) + unit(FRAME, b"\x10" * 50, sized=False))
    assert (parsed.size, parsed.frames) == (LARGEST, 1)


def test_sequences_of_different_sizes_are_refused() -> None:
    again = Sequence(reduced=True).unit(LARGEST) + Sequence(timing=True).unit(LARGEST)
    assert _parse(again).size == LARGEST
    with pytest.raises(UndecodableImage, match="AV1 sequence headers with sizes"):
        _parse(again, Sequence().unit((1000, 801)))


def test_the_longest_sequence_header_is_parsed() -> None:
    longest = Sequence(
        timing=True, decoder_model=True, display_delay=True, points=tuple(range(0x100, 0x120)), frame_ids=True
    )
    frame = Frame(INTER, layers=0xF8)
    assert _parse(longest.unit(LARGEST), frame.unit(longest, (9, 7))).pixels == 63


@pytest.mark.parametrize(
    "data",
    [
        Frame().unit(Sequence(), (9, 7)),
        unit(SEQUENCE_HEADER, b""),
        unit(SEQUENCE_HEADER, b"\0" * 5),
        Sequence().unit(LARGEST)[:-1],
        Sequence().unit(LARGEST) + unit(FRAME, b""),
        unit(TILE_LIST, b"\0" * 8),
        b"\x8a\x01\x00",
        b"\x7a" + b"\x80" * 8 + b"\0",
        b"\x7a\x05\0",
    ],
    ids=[
        "no sequence",
        "empty",
        "short",
        "cut",
        "frame",
        "tiles",
        "forbidden bit",
        "endless size",
        "too large",
    ],
)
def test_invalid_bitstreams_are_refused(data: bytes) -> None:
    with pytest.raises(UndecodableImage):
        _parse(data)


def test_units_count_as_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey, "MAX_PARTS", 100)
    assert _parse(unit(PADDING, b"") * 100).frames == 0
    with pytest.raises(UndecodableImage, match="more than 100 parts"):
        _parse(unit(PADDING, b"") * 101)


@pytest.mark.parametrize("size", [(1, 1), (33, 77), (2048, 1500)])
def test_bitstreams_written_by_pillow_are_parsed(size: tuple[int, int]) -> None:
    still = _parse(av1(size))
    assert (still.size, still.frames) == (size, 1) == (declared_size(av1(size)), 1)
    moving = _parse(*av1_frames(size, 3))
    assert (moving.size, moving.pixels) == (size, moving.frames * size[0] * size[1])
    assert 3 <= moving.frames <= 6
    with pytest.raises(UndecodableImage, match="an AV1 frame of 2048 × 1500"):
        _parse(enlarged(av1_frames((2048, 1500), 3)[0], (64, 64)))
