"""The animation of an AVIF file: the tracks of its moov box (ISO/IEC 14496-12, 8.3 to 8.7; AV1-ISOBMFF)."""

import struct
from typing import NamedTuple

from app.core.errors import UndecodableImage
from app.imaging.av1 import Av1Parser
from app.imaging.avif_boxes import Box, Canvas, boxes, check_no_overlap, only, required, within
from app.imaging.avif_items import MAX_DECODED_RATIO, check_codec_configuration, check_metadata_tables
from app.imaging.survey import ByteReader, ImageLimits, PartCounter, check_profile_size

_SAMPLE_ENTRY_BYTES = 78
"""Number of bytes in a VisualSampleEntry before its first child box (12.1.3)."""


def survey_tracks(
    data: bytes, moov: Box, media: list[Box], limits: ImageLimits, counter: PartCounter
) -> Canvas:
    """Check the size of every track, and return the size and the number of frames of the colour track.

    Raises TooManyPixels if a track exceeds the limits. Raises UndecodableImage if the size in a bitstream
    differs from the size of its track, or if the tables are inconsistent. Also raises UndecodableImage unless
    there is exactly one colour track, and all other AV1 tracks are auxiliary to it.
    """
    children = list(boxes(data, moov.body, moov.end, counter))
    if only(children, b"mvex"):
        raise UndecodableImage(detail="a fragmented animation")
    found = [box for box in children if box.kind == b"trak"]
    for trak in found:
        _check_track_metadata(data, trak, counter)
    tracks = [_Track(data, trak, limits, counter) for trak in found if _is_drawn(data, trak, counter)]
    colour = [track for track in tracks if not track.auxiliary_for]
    if len(colour) != 1 or any(track.auxiliary_for not in (0, colour[0].number) for track in tracks):
        raise UndecodableImage(detail=f"{len(tracks)} tracks, {len(colour)} of them for colour")
    size, frames = colour[0].size, colour[0].frames
    shown, decoded = size[0] * size[1] * frames, sum(track.decoded_pixels(media) for track in tracks)
    if decoded > MAX_DECODED_RATIO * shown:
        raise UndecodableImage(detail=f"{decoded} pixels to decode for {shown}")
    return Canvas(size, frames)


def _check_track_metadata(data: bytes, trak: Box, counter: PartCounter) -> None:
    meta = only(list(boxes(data, trak.body, trak.end, counter)), b"meta")
    if meta is not None:
        check_metadata_tables(list(boxes(data, meta.body + 4, meta.end, counter)))


def _is_drawn(data: bytes, trak: Box, counter: PartCounter) -> bool:
    """Return whether a track has AV1 samples. Image decoders ignore other tracks, such as audio."""
    found = [trak]
    for kind in (b"mdia", b"minf", b"stbl", b"stsd"):
        inner = [child for box in found for child in boxes(data, box.body, box.end, counter)]
        found = [child for child in inner if child.kind == kind]
    entries = [entry for stsd in found for entry in boxes(data, stsd.body + 8, stsd.end, counter)]
    return any(entry.kind == b"av01" for entry in entries)


class _Samples(NamedTuple):
    """The samples (encoded frames) of a track, which fill the chunks of the track one after the other.

    `sizes` are the sizes of the samples in bytes. `offsets` are the offsets of the chunks in the file, and
    `per_chunk` is the number of samples in each of them.
    """

    sizes: list[int]
    offsets: list[int]
    per_chunk: list[int]

    def ranges(self) -> list[tuple[int, int]]:
        """Return the start and end of every sample, as offsets in the file."""
        sizes, found = iter(self.sizes), []
        for start, samples in zip(self.offsets, self.per_chunk, strict=True):
            for _ in range(samples):
                end = start + next(sizes)
                found.append((start, end))
                start = end
        return found


class _Track:
    """One track (8.3).

    `auxiliary_for` is the number of the track for which this one holds the alpha channel, or 0 if this is a
    colour track.
    """

    def __init__(self, data: bytes, trak: Box, limits: ImageLimits, counter: PartCounter) -> None:
        self._data, self._counter = data, counter
        children = list(boxes(data, trak.body, trak.end, counter))
        self.number, self.size = self._read_header(required(children, b"tkhd"))
        self.auxiliary_for = self._read_auxiliary_for(only(children, b"tref"))
        table = self._children(self._child(self._child(required(children, b"mdia"), b"minf"), b"stbl"))
        self._check_description(required(table, b"stsd"))
        self._samples = self._read_samples(table)
        self.frames = len(self._samples.sizes)
        limits.check(self.size, self.frames)

    def _children(self, box: Box) -> list[Box]:
        return list(boxes(self._data, box.body, box.end, self._counter))

    def _child(self, box: Box, kind: bytes) -> Box:
        return required(self._children(box), kind)

    def _read_header(self, tkhd: Box) -> tuple[int, tuple[int, int]]:
        """Return the number of the track, and its width and height in whole pixels (8.3.2)."""
        reader = ByteReader(self._data, tkhd.body, tkhd.end)
        version = reader.uint_be(1)
        if version > 1:
            raise UndecodableImage(detail=f"tkhd of version {version}")
        reader.skip(3 + (16 if version else 8))
        number = reader.uint_be(4)
        reader.skip(4 + (8 if version else 4) + 52)
        return number, (reader.uint_be(4) >> 16, reader.uint_be(4) >> 16)

    def _read_auxiliary_for(self, tref: Box | None) -> int:
        auxl = only(self._children(tref), b"auxl") if tref else None
        return ByteReader(self._data, auxl.body, auxl.end).uint_be(4) if auxl else 0

    def _check_description(self, stsd: Box) -> None:
        """Refuse a track unless its only sample description is for AV1 samples that have the track's size."""
        reader = ByteReader(self._data, stsd.body + 4, stsd.end)
        announced = reader.uint_be(4)
        entries = list(boxes(self._data, reader.position, stsd.end, self._counter))
        entry = required(entries, b"av01")
        if announced != 1 or len(entries) != 1:
            raise UndecodableImage(detail=f"{announced} or {len(entries)} sample descriptions in a track")
        reader = ByteReader(self._data, entry.body + 24, entry.end)
        size = reader.uint_be(2), reader.uint_be(2)
        if size != self.size:
            raise UndecodableImage(detail=f"samples of {size} in a track of {self.size}")
        reader.skip(_SAMPLE_ENTRY_BYTES - 28)
        described = list(boxes(self._data, reader.position, entry.end, self._counter))
        check_codec_configuration(self._data, required(described, b"av1C"), size, self._counter)
        for box in described:
            if box.kind == b"colr":
                check_profile_size(box.size)

    def _read_table(self, box: Box, fields: str) -> list[tuple[int, ...]]:
        """Return the rows of a table, each as a tuple. `fields` is the format of a row, as in `struct`.

        A table begins with its version, which must be 0, and its number of rows.
        """
        reader = ByteReader(self._data, box.body, box.end)
        version, rows = reader.uint_be(4), reader.uint_be(4)
        if version >> 24:
            raise UndecodableImage(detail=f"{box.kind!r} of version {version >> 24}")
        self._counter.add(rows)
        return list(struct.iter_unpack(fields, reader.read(rows * struct.calcsize(fields))))

    def _read_sizes(self, stsz: Box) -> list[int]:
        """Return the sizes of all samples in bytes (8.7.3)."""
        common_size = ByteReader(self._data, stsz.body + 4, stsz.end).uint_be(4)
        reader = ByteReader(self._data, stsz.body + 8, stsz.end)
        samples = reader.uint_be(4)
        self._counter.add(samples)
        if self._data[stsz.body]:
            raise UndecodableImage(detail="stsz of an unknown version")
        return [common_size] * samples if common_size else [reader.uint_be(4) for _ in range(samples)]

    def _read_samples(self, table: list[Box]) -> _Samples:
        """Read the sizes of the samples and their division into chunks (8.7.3 to 8.7.5)."""
        stco = required(table, b"stco", b"co64")
        offsets = [offset for (offset,) in self._read_table(stco, ">Q" if stco.kind == b"co64" else ">I")]
        runs = self._read_table(required(table, b"stsc"), ">III")
        firsts = [first for first, _, _ in runs]
        ends = [*firsts[1:], len(offsets) + 1]
        if firsts[:1] != [1] or any(first >= end for first, end in zip(firsts, ends, strict=True)):
            raise UndecodableImage(detail="chunks out of order")
        per_chunk = [each for run, end in zip(runs, ends, strict=True) for each in run[1:2] * (end - run[0])]
        sizes = self._read_sizes(required(table, b"stsz"))
        # A decoder searches the tables stts and stss for each sample, so they must not have more rows than
        # there are samples.
        times, syncs = self._read_table(required(table, b"stts"), ">II"), only(table, b"stss")
        rows = max(len(times), len(self._read_table(syncs, ">I")) if syncs else 0)
        if sum(per_chunk) != len(sizes) or 0 in per_chunk or rows > len(sizes):
            raise UndecodableImage(detail=f"{len(sizes)} samples, {sum(per_chunk)} in chunks, {rows} rows")
        return _Samples(sizes, offsets, per_chunk)

    def decoded_pixels(self, media: list[Box]) -> int:
        """Return the number of pixels in all frames of the track, including hidden frames.

        Raises UndecodableImage if samples overlap, lie outside media data, or have a different size than the
        track.
        """
        parser, ranges = Av1Parser(self._counter), self._samples.ranges()
        check_no_overlap(ranges)
        for start, end in ranges:
            if not within(media, start, end - start):
                raise UndecodableImage(detail=f"a sample at {start} lies outside media data")
            parser.read(self._data, start, end)
        if parser.size != self.size or parser.frames < self.frames:
            raise UndecodableImage(
                detail=f"{parser.frames} frames of {parser.size} in a track of {self.size}"
            )
        return parser.pixels
