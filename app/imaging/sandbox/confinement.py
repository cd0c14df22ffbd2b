"""How a child process gives up its rights before it reads an image, by means that need no privileges.

How much CPU time and memory one image may take, before and after its size is known.
"""

import ctypes
import os
import resource
import signal
import struct
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

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


_LINUX = sys.platform == "linux"

_MOST_DESCRIPTORS = 8
_HIGHEST_DESCRIPTOR = 1 << 16

_PR_SET_PDEATHSIG = 1  # prctl(2)
_PR_SET_NO_NEW_PRIVS = 38
_LANDLOCK_CREATE_RULESET = 444  # landlock(7); the numbers of these calls are the same on all architectures
_LANDLOCK_ADD_RULE = 445
_LANDLOCK_RESTRICT_SELF = 446
_LANDLOCK_CREATE_RULESET_VERSION = 1
_LANDLOCK_RULE_PATH_BENEATH = 1
_READ_FILE, _READ_DIRECTORY = 1 << 2, 1 << 3
_RIGHTS_ON_FILES = {1: 13, 2: 14, 3: 15, 4: 15}
"""How many rights each version of Landlock knows; 16 from version 5 on."""

_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when `parent` ends, or end it now if that has happened already."""
    if _LINUX:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


class Enclosure:
    """Limits a process to what it has open, and to reading files below `readable`.

    It can no longer open other files, connect, or signal or inspect other processes. A kernel without
    Landlock, or with an older version of it, takes away less.
    """

    def __init__(self, readable: Iterable[Path]) -> None:
        self._rules = _ruleset() if _LINUX else -1
        if self._rules >= 0:
            for directory in readable:
                self._let_read(directory)

    def shut_in(self) -> None:
        """Give up all other rights of this process, irrevocably."""
        if self._rules >= 0:
            _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            _libc.syscall(_LANDLOCK_RESTRICT_SELF, self._rules, 0)
            os.close(self._rules)

    def fileno(self) -> int:
        """Return the descriptor of the rules, -1 if there are none."""
        return self._rules

    def _let_read(self, directory: Path) -> None:
        descriptor = os.open(directory, os.O_PATH | os.O_CLOEXEC)
        rule = struct.pack("=Qi", _READ_FILE | _READ_DIRECTORY, descriptor)
        _libc.syscall(_LANDLOCK_ADD_RULE, self._rules, _LANDLOCK_RULE_PATH_BENEATH, rule, 0)
        os.close(descriptor)


def _ruleset() -> int:
    """Return the descriptor of a ruleset that forbids everything this kernel can forbid, or -1."""
    version = _libc.syscall(_LANDLOCK_CREATE_RULESET, None, 0, _LANDLOCK_CREATE_RULESET_VERSION)
    if version < 1:
        return -1
    files = (1 << _RIGHTS_ON_FILES.get(version, 16)) - 1
    network = 0b11 if version >= 4 else 0  # to bind and to connect
    scopes = 0b11 if version >= 6 else 0  # sockets without a file, and signals
    size = 8 if version < 4 else 16 if version < 6 else 24
    attributes = struct.pack("=QQQ", files, network, scopes)[:size]
    return int(_libc.syscall(_LANDLOCK_CREATE_RULESET, attributes, size, 0))


def hold_to(now: Bounds, most: Bounds, own_memory: int, most_written: int) -> None:
    """Limit this process to `now`; `raise_to` may raise that later, up to `most`.

    `own_memory` is what the process has mapped already, in bytes; `most_written` limits each file's size.
    Limits that the server was started with stay in force if they are lower.
    """
    _limit(resource.RLIMIT_CORE, 0, 0)
    _limit(resource.RLIMIT_NPROC, 0, 0)  # no further process or thread, unless root forks
    _limit(resource.RLIMIT_FSIZE, most_written, most_written)
    _limit(resource.RLIMIT_NOFILE, _MOST_DESCRIPTORS, _MOST_DESCRIPTORS)
    # The kernel sends SIGXCPU at the first value and SIGKILL at the second, which may not be the same.
    _limit(resource.RLIMIT_CPU, now.cpu, most.cpu + 1)
    if own_memory:
        _limit(resource.RLIMIT_AS, own_memory + now.memory, own_memory + most.memory)
    signal.setitimer(signal.ITIMER_REAL, now.wall)


@cache
def unlimitable() -> dict[str, int]:
    """Return the limits that the system lets nobody set, by name: seccomp filters may forbid setrlimit(2)."""
    names = ("RLIMIT_CORE", "RLIMIT_NPROC", "RLIMIT_FSIZE", "RLIMIT_NOFILE", "RLIMIT_CPU", "RLIMIT_AS")
    refused = {}
    for name in names:
        kind = getattr(resource, name)
        try:
            resource.setrlimit(kind, resource.getrlimit(kind))
        except (OSError, ValueError):
            refused[name] = kind
    return refused


def close_from(first: int) -> None:
    """Close all descriptors from `first` on. A host that has closed what it inherited has few, and low ones.

    The limit on open files may be a billion, or unknown, and not every system closes a range in one call.
    """
    most = os.sysconf("SC_OPEN_MAX")
    os.closerange(first, min(most, _HIGHEST_DESCRIPTOR) if most > 0 else _HIGHEST_DESCRIPTOR)


def raise_to(bounds: Bounds, own_memory: int) -> None:
    """Raise the limits on time and memory, at most to `most` of `hold_to`."""
    _limit(resource.RLIMIT_CPU, bounds.cpu)
    if own_memory:
        _limit(resource.RLIMIT_AS, own_memory + bounds.memory)
    signal.setitimer(signal.ITIMER_REAL, bounds.wall)


def _limit(kind: int, soft: int, hard: int = resource.RLIM_INFINITY) -> None:
    """Set a limit of setrlimit(2), without raising its hard value, which only root may do.

    Limits that the system refuses are left out: the worker has said so in its log.
    """
    if kind in unlimitable().values():
        return
    highest = resource.getrlimit(kind)[1]
    bounded = [_lower(value, highest) for value in (soft, hard)]
    resource.setrlimit(kind, (bounded[0], bounded[1]))


def _lower(value: int, highest: int) -> int:
    if resource.RLIM_INFINITY in (value, highest):
        return value if highest == resource.RLIM_INFINITY else highest
    return min(value, highest)


def mapped_memory() -> int:
    """Return this process's address space in bytes, which is what RLIMIT_AS counts (proc_pid_statm(5)).

    Returns 0 if the system doesn't say; macOS also knows that limit by name only.
    """
    try:
        with open("/proc/self/statm", encoding="ascii") as statm:
            return int(statm.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 0


def be_the_first_to_go() -> None:
    """Have the kernel end this process and its children before any other when memory runs out."""
    if _LINUX:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as score:
            score.write("1000")
