"""How much CPU time and memory one image may take, before and after its size is known."""

from dataclasses import dataclass

_MIB = 1 << 20

_SURVEY_CPU = 6
"""Seconds for reading the container, before a decoder runs."""

_SURVEY_MEMORY = 32 * _MIB
_SURVEY_COPIES = 6
"""Times the file's size, in addition, for reading it: copies, and what is kept of each part."""

_DECODING_CPU = 6
_CPU_PER_MEGAPIXEL = 1.5
"""Seconds: four times what the slowest valid images take, PNG and lossy WebP that are turned upright."""

_BYTES_PER_PIXEL = 30
_DECODING_COPIES = 20
"""Of the worst valid images known, WebP that is turned upright; see docs/limits.md. What an encoder needs for
noise grows with the file, what it needs otherwise with the pixels."""

_WALL = 20.0
_WALL_PER_CPU = 3.0
"""Wall-clock limits stop a process that waits instead of computing; they leave room for a busy machine."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits of a child: `cpu` in seconds, `memory` in bytes of address space above the host's own."""

    cpu: int
    memory: int

    @property
    def wall(self) -> float:
        """Return the wall-clock limit in seconds."""
        return _WALL + _WALL_PER_CPU * self.cpu


def survey_bounds(file_size: int) -> Bounds:
    """Return the bounds while only the file's size in bytes is known."""
    return Bounds(_SURVEY_CPU, _SURVEY_MEMORY + _SURVEY_COPIES * file_size)


def decoding_bounds(file_size: int, pixels: int) -> Bounds:
    """Return the bounds for everything done with an image of `pixels` pixels, in all frames together."""
    survey = survey_bounds(file_size)
    return Bounds(
        survey.cpu + _DECODING_CPU + round(pixels / 1e6 * _CPU_PER_MEGAPIXEL),
        _SURVEY_MEMORY + _BYTES_PER_PIXEL * pixels + _DECODING_COPIES * file_size,
    )
