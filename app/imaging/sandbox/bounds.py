"""How much CPU time and memory one image may take, before and after its size is known."""

from dataclasses import dataclass

_MIB = 1 << 20

_SURVEY_CPU = 6
"""Seconds for walking through the container, in which no decoder runs."""

_SURVEY_MEMORY = 32 * _MIB
_SURVEY_COPIES = 6
"""Times the file's size that the walk may take besides: copies, and what is kept of each part."""

_DECODING_CPU = 6
_CPU_PER_MEGAPIXEL = 1.5
"""The slowest honest images take a quarter of that here: PNG and lossy WebP to be turned upright."""

_BYTES_PER_PIXEL = 30
_DECODING_COPIES = 20
"""Of the worst honest images that we know, WebP to be turned upright; see docs/limits.md. What an encoder
keeps in mind of noise grows with the file, what it keeps of all else with the pixels."""

_WALL = 20.0
_WALL_PER_CPU = 3.0
"""A process that waits instead of computing is stopped by the clock; a busy machine is no reason for that."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """CPU time and time by the clock in seconds; `memory` in bytes of address space, above the host's own."""

    cpu: int
    memory: int

    @property
    def wall(self) -> float:
        """Seconds from the start."""
        return _WALL + _WALL_PER_CPU * self.cpu


def survey_bounds(file_size: int) -> Bounds:
    """The bounds while nothing is known but the number of bytes in the file."""
    return Bounds(_SURVEY_CPU, _SURVEY_MEMORY + _SURVEY_COPIES * file_size)


def decoding_bounds(file_size: int, pixels: int) -> Bounds:
    """The bounds for all that is done with an image of so many pixels, in all frames together."""
    survey = survey_bounds(file_size)
    return Bounds(
        survey.cpu + _DECODING_CPU + round(pixels / 1e6 * _CPU_PER_MEGAPIXEL),
        _SURVEY_MEMORY + _BYTES_PER_PIXEL * pixels + _DECODING_COPIES * file_size,
    )
