"""The animation of an AVIF file: the tracks of its moov box (ISO/IEC 14496-12, 8.3 to 8.7; AV1-ISOBMFF)."""

import struct
from typing import NamedTuple

from app.core.errors import UndecodableImage
from app.imaging.av1 import Av1Walk
from app.imaging.avif_items import (
    MAX_DECODED,
    Box,
    Judged,
    boxes,
    check_apart,
    check_metadata,
    check_units,
    needed,
    only,
    within,
)
from app.imaging.survey import ByteReader, ImageLimits, PartCount, check_profile

_SAMPLE_ENTRY = 78
"""Bytes of a VisualSampleEntry before the boxes in it (12.1.3)."""


def survey_tracks(data: bytes, moov: Box, media: list[Box], limits: ImageLimits, count: PartCount) -> Judged:
    """Check the size of every track, and return size and number of the frames in the colour track.

    Raises UndecodableImage if a bitstream has another size than its track, if the tables contradict
    themselves, or if there is not exactly one colour track, to which other AV1 tracks belong; TooManyPixels.
    """
    children = list(boxes(data, moov.body, moov.end, count))
    if only(children, b"mvex"):
        raise UndecodableImage(detail="an animation in fragments")
    found = [box for box in children if box.kind == b"trak"]
    for trak in found:
        _check_metadata(data, trak, count)
    tracks = [_Track(data, trak, limits, count) for trak in found if _is_drawn(data, trak, count)]
    colour = [track for track in tracks if not track.auxiliary_for]
    if len(colour) != 1 or any(track.auxiliary_for not in (0, colour[0].number) for track in tracks):
        raise UndecodableImage(detail=f"{len(tracks)} tracks, {len(colour)} of them for colour")
    size, frames = colour[0].size, colour[0].frames
    shown, decoded = size[0] * size[1] * frames, sum(track.decoded(media) for track in tracks)
    if decoded > MAX_DECODED * shown:
        raise UndecodableImage(detail=f"{decoded} pixels to decode for {shown}")
    return Judged(size, frames)


def _check_metadata(data: bytes, trak: Box, count: PartCount) -> None:
    meta = only(list(boxes(data, trak.body, trak.end, count)), b"meta")
    if meta is not None:
        check_metadata(list(boxes(data, meta.body + 4, meta.end, count)))


def _is_drawn(data: bytes, trak: Box, count: PartCount) -> bool:
    """Return whether a track has AV1 samples; image decoders ignore others, such as sound."""
    found = [trak]
    for kind in (b"mdia", b"minf", b"stbl", b"stsd"):
        inner = [child for box in found for child in boxes(data, box.body, box.end, count)]
        found = [child for child in inner if child.kind == kind]
    entries = [entry for stsd in found for entry in boxes(data, stsd.body + 8, stsd.end, count)]
    return any(entry.kind == b"av01" for entry in entries)


class _Samples(NamedTuple):
    """Sizes of a track's samples, and the chunks that they fill one after the other."""

    sizes: list[int]
    offsets: list[int]
    per_chunk: list[int]

    def places(self) -> list[tuple[int, int]]:
        """Return the first byte and the end of every sample."""
        sizes, found = iter(self.sizes), []
        for start, samples in zip(self.offsets, self.per_chunk, strict=True):
            for _ in range(samples):
                end = start + next(sizes)
                found.append((start, end))
                start = end
        return found


class _Track:
    """One track (8.3); `auxiliary_for` is the track whose alpha it has, 0 for a colour track."""

    def __init__(self, data: bytes, trak: Box, limits: ImageLimits, count: PartCount) -> None:
        self._data, self._count = data, count
        children = list(boxes(data, trak.body, trak.end, count))
        self.number, self.size = self._header(needed(children, b"tkhd"))
        self.auxiliary_for = self._auxiliary_for(only(children, b"tref"))
        table = self._children(self._child(self._child(needed(children, b"mdia"), b"minf"), b"stbl"))
        self._check_description(needed(table, b"stsd"))
        self._samples = self._read_samples(table)
        self.frames = len(self._samples.sizes)
        limits.check(self.size, self.frames)

    def _children(self, box: Box) -> list[Box]:
        return list(boxes(self._data, box.body, box.end, self._count))

    def _child(self, box: Box, kind: bytes) -> Box:
        return needed(self._children(box), kind)

    def _header(self, tkhd: Box) -> tuple[int, tuple[int, int]]:
        """Return the track's number, and its size in whole pixels (8.3.2)."""
        reader = ByteReader(self._data, tkhd.body, tkhd.end)
        wide = reader.big(1)
        if wide > 1:
            raise UndecodableImage(detail=f"tkhd of version {wide}")
        reader.skip(3 + (16 if wide else 8))
        number = reader.big(4)
        reader.skip(4 + (8 if wide else 4) + 52)
        return number, (reader.big(4) >> 16, reader.big(4) >> 16)

    def _auxiliary_for(self, tref: Box | None) -> int:
        auxl = only(self._children(tref), b"auxl") if tref else None
        return ByteReader(self._data, auxl.body, auxl.end).big(4) if auxl else 0

    def _check_description(self, stsd: Box) -> None:
        """Raise UndecodableImage unless there is one sample description, AV1 of the track's size."""
        reader = ByteReader(self._data, stsd.body + 4, stsd.end)
        announced = reader.big(4)
        entries = list(boxes(self._data, reader.position, stsd.end, self._count))
        entry = needed(entries, b"av01")
        if announced != 1 or len(entries) != 1:
            raise UndecodableImage(detail=f"{announced} or {len(entries)} kinds of samples in a track")
        reader = ByteReader(self._data, entry.body + 24, entry.end)
        size = reader.big(2), reader.big(2)
        if size != self.size:
            raise UndecodableImage(detail=f"samples of {size} in a track of {self.size}")
        reader.skip(_SAMPLE_ENTRY - 28)
        described = list(boxes(self._data, reader.position, entry.end, self._count))
        check_units(self._data, needed(described, b"av1C"), size, self._count)
        for box in described:
            check_profile((box.end - box.start) * (box.kind == b"colr"))

    def _table(self, box: Box, fields: str) -> list[tuple[int, ...]]:
        """Return the rows of a table that begins with its version, which must be 0, and their number."""
        reader = ByteReader(self._data, box.body, box.end)
        version, rows = reader.big(4), reader.big(4)
        if version >> 24:
            raise UndecodableImage(detail=f"{box.kind!r} of version {version >> 24}")
        self._count.add(rows)
        return list(struct.iter_unpack(fields, reader.take(rows * struct.calcsize(fields))))

    def _sizes(self, stsz: Box) -> list[int]:
        """Return the bytes of every sample (8.7.3)."""
        same = ByteReader(self._data, stsz.body + 4, stsz.end).big(4)
        # Without the field for the size that all have, it is a table like the others.
        reader = ByteReader(self._data, stsz.body + 8, stsz.end)
        samples = reader.big(4)
        self._count.add(samples)
        if self._data[stsz.body]:
            raise UndecodableImage(detail="stsz of an unknown version")
        return [same] * samples if same else [reader.big(4) for _ in range(samples)]

    def _read_samples(self, table: list[Box]) -> _Samples:
        """Read how samples lie in chunks (8.7.3 to 8.7.5)."""
        stco = needed(table, b"stco", b"co64")
        offsets = [offset for (offset,) in self._table(stco, ">Q" if stco.kind == b"co64" else ">I")]
        runs = self._table(needed(table, b"stsc"), ">III")
        firsts = [first for first, _, _ in runs]
        ends = [*firsts[1:], len(offsets) + 1]
        if firsts[:1] != [1] or any(first >= end for first, end in zip(firsts, ends, strict=True)):
            raise UndecodableImage(detail="chunks out of order")
        per_chunk = [each for run, end in zip(runs, ends, strict=True) for each in run[1:2] * (end - run[0])]
        sizes = self._sizes(needed(table, b"stsz"))
        # A decoder goes through these tables for each sample.
        times, syncs = self._table(needed(table, b"stts"), ">II"), only(table, b"stss")
        rows = max(len(times), len(self._table(syncs, ">I")) if syncs else 0)
        if sum(per_chunk) != len(sizes) or 0 in per_chunk or rows > len(sizes):
            raise UndecodableImage(detail=f"{len(sizes)} samples, {sum(per_chunk)} in chunks, {rows} rows")
        return _Samples(sizes, offsets, per_chunk)

    def decoded(self, media: list[Box]) -> int:
        """Return the pixels of all frames in the track, hidden ones included.

        Raises UndecodableImage if samples overlap, lie outside of media data, or have another size.
        """
        walk, places = Av1Walk(self._count), self._samples.places()
        check_apart(places)
        for start, end in places:
            if not within(media, start, end - start):
                raise UndecodableImage(detail=f"a sample at {start} lies outside of media data")
            walk.read(self._data, start, end)
        if walk.size != self.size or walk.frames < self.frames:
            raise UndecodableImage(detail=f"{walk.frames} frames of {walk.size} in a track of {self.size}")
        return walk.pixels
