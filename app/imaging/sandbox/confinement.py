"""Limit what a decoder process can use and do. None of this needs privileges.

`survey_limits` and `decoding_limits` say how much CPU time and memory an image may use. A child drops its
privileges before it reads an image. If the kernel lacks one of the mechanisms used here, or if a container
such as Docker's forbids it, the child is confined less strictly.
"""

import ctypes
import os
import resource
import signal
import struct
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_MIB = 1 << 20

_SURVEY_CPU_SECONDS = 6
"""Limit on the CPU time for parsing the structure of a file, before a decoder runs."""
_SURVEY_MEMORY_BYTES = 32 * _MIB
_SURVEY_COPIES = 6
"""Limit on the memory for parsing, in addition to `_SURVEY_MEMORY_BYTES`, as a multiple of the file size. The
parsers need this memory for copies of the file, and for the parts to keep."""

_DECODING_CPU_SECONDS = 6
_CPU_SECONDS_PER_MEGAPIXEL = 1.5
"""Limit on the CPU time for decoding, in addition to `_DECODING_CPU_SECONDS`. It is four times what the
slowest valid images need: PNG and lossy WebP images that are rotated upright."""
_DECODING_BYTES_PER_PIXEL = 30
_DECODING_COPIES = 20
"""Limit on the memory for decoding, in addition to `_DECODING_BYTES_PER_PIXEL`, as a multiple of the file
size. Together, the two limits allow what the most expensive valid images we know of need: WebP images that
are rotated upright (see docs/limits.md). The memory that an encoder needs for noisy pictures grows with the
file size; all other memory grows with the number of pixels."""

_WALL_SECONDS = 20.0
_WALL_SECONDS_PER_CPU_SECOND = 3.0
"""Wall-clock limits stop a process that waits instead of computing. They are generous, since the machine may
be busy."""


@dataclass(frozen=True, slots=True)
class ResourceLimits:
    """The limits of a child.

    `cpu_seconds` limits its CPU time. `memory_bytes` limits the address space that it may use in addition to
    what it inherits from the host.
    """

    cpu_seconds: int
    memory_bytes: int

    @property
    def wall_seconds(self) -> float:
        """Return the wall-clock limit in seconds."""
        return _WALL_SECONDS + _WALL_SECONDS_PER_CPU_SECOND * self.cpu_seconds


def survey_limits(file_size: int) -> ResourceLimits:
    """Return the limits for parsing a file of `file_size` bytes, whose number of pixels is not yet known."""
    return ResourceLimits(_SURVEY_CPU_SECONDS, _SURVEY_MEMORY_BYTES + _SURVEY_COPIES * file_size)


def decoding_limits(file_size: int, pixels: int) -> ResourceLimits:
    """Return the limits for the whole check of an image, including parsing.

    `file_size` is the size of the file in bytes. `pixels` is the number of pixels in all frames together.
    """
    cpu_seconds = _DECODING_CPU_SECONDS + round(pixels / 1e6 * _CPU_SECONDS_PER_MEGAPIXEL)
    return ResourceLimits(
        _SURVEY_CPU_SECONDS + cpu_seconds,
        _SURVEY_MEMORY_BYTES + _DECODING_BYTES_PER_PIXEL * pixels + _DECODING_COPIES * file_size,
    )


_LINUX = sys.platform == "linux"

_MAX_OPEN_DESCRIPTORS = 8
_HIGHEST_DESCRIPTOR = 1 << 16

_PR_SET_PDEATHSIG = 1  # prctl(2)
_PR_SET_NO_NEW_PRIVS = 38
_LANDLOCK_CREATE_RULESET = 444  # landlock(7); the numbers of these calls are the same on all architectures
_LANDLOCK_ADD_RULE = 445
_LANDLOCK_RESTRICT_SELF = 446
_LANDLOCK_CREATE_RULESET_VERSION = 1
_LANDLOCK_RULE_PATH_BENEATH = 1
_READ_FILE, _READ_DIRECTORY = 1 << 2, 1 << 3
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}
"""The number of file access rights in each of the first four versions of Landlock. Later versions have 16."""

_libc = ctypes.CDLL(None, use_errno=True)


class Landlock:
    """Rules that restrict a process to open descriptors, and to reading files in the directories `readable`.

    The process can no longer open other files, make network connections, send signals to other processes, or
    inspect them. With an older version of Landlock, the kernel restricts the process less; without Landlock,
    it does not restrict the process at all.
    """

    def __init__(self, readable: Iterable[Path]) -> None:
        self._ruleset = _create_ruleset() if _LINUX else -1
        if self._ruleset >= 0:
            for directory in readable:
                self._allow_reading(directory)

    def restrict_self(self) -> None:
        """Apply the rules to this process. This can't be undone."""
        if self._ruleset >= 0:
            _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            _libc.syscall(_LANDLOCK_RESTRICT_SELF, self._ruleset, 0)
            os.close(self._ruleset)

    def fileno(self) -> int:
        """Return the descriptor of the ruleset, or -1 if there is none."""
        return self._ruleset

    def _allow_reading(self, directory: Path) -> None:
        descriptor = os.open(directory, os.O_PATH | os.O_CLOEXEC)
        rule = struct.pack("=Qi", _READ_FILE | _READ_DIRECTORY, descriptor)
        _libc.syscall(_LANDLOCK_ADD_RULE, self._ruleset, _LANDLOCK_RULE_PATH_BENEATH, rule, 0)
        os.close(descriptor)


def _create_ruleset() -> int:
    """Return the descriptor of a ruleset that forbids everything this kernel can forbid.

    Return -1 if the kernel doesn't support Landlock.
    """
    version = _libc.syscall(_LANDLOCK_CREATE_RULESET, None, 0, _LANDLOCK_CREATE_RULESET_VERSION)
    if version < 1:
        return -1
    files = (1 << _FILE_RIGHTS.get(version, 16)) - 1
    network = 0b11 if version >= 4 else 0  # binding and connecting TCP sockets
    scopes = 0b11 if version >= 6 else 0  # abstract Unix sockets, and signals
    size = 8 if version < 4 else 16 if version < 6 else 24
    attributes = struct.pack("=QQQ", files, network, scopes)[:size]
    return int(_libc.syscall(_LANDLOCK_CREATE_RULESET, attributes, size, 0))


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when `parent` exits. If `parent` has already exited, exit now."""
    if _LINUX:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def start_session(added_niceness: int) -> None:
    """Make this process the leader of a session of its own, and increase its nice value.

    Linux may schedule each session as a group. Nice values then count only within the group, and the group
    has a nice value of its own (sched(7), "The autogroup feature"). It is set to that of this process. A
    process that may not change its priority keeps it.
    """
    os.setsid()
    with suppress(OSError):
        niceness = os.nice(added_niceness)
        with open("/proc/self/autogroup", "w", encoding="ascii") as autogroup:
            autogroup.write(str(niceness))


def prefer_as_oom_victim() -> None:
    """Have the kernel kill this process and its children before any other process if memory runs out.

    Raises OSError if the system doesn't allow this.
    """
    if _LINUX:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as score:
            score.write("1000")


def close_all_from(first: int) -> None:
    """Close all descriptors from `first` to 65,535. Call this while no higher descriptor is open.

    The range does not extend to the limit on open files, because that limit may be a billion or unknown, and
    some systems can't close a range of descriptors in one call.
    """
    most = os.sysconf("SC_OPEN_MAX")
    os.closerange(first, min(most, _HIGHEST_DESCRIPTOR) if most > 0 else _HIGHEST_DESCRIPTOR)


def mapped_memory() -> int:
    """Return the size of this process's address space in bytes, which RLIMIT_AS limits (proc_pid_statm(5)).

    Return 0 if the system does not report the size. macOS does not, but it does not enforce RLIMIT_AS either.
    """
    try:
        with open("/proc/self/statm", encoding="ascii") as statm:
            return int(statm.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 0


def limit_resources(
    now: ResourceLimits, highest: ResourceLimits, own_memory: int, max_file_bytes: int
) -> None:
    """Limit this process to `now`. `raise_limits` can raise these limits later, up to `highest`.

    `own_memory` is the number of bytes that the process has already mapped. If it is 0, the number is
    unknown, and memory is not limited. Files that the process writes are limited to `max_file_bytes`. If the
    server was started with lower limits, the lower ones remain in force.
    """
    _set_limit(resource.RLIMIT_CORE, 0, 0)
    _set_limit(resource.RLIMIT_NPROC, 0, 0)  # no more processes or threads; root is exempt
    _set_limit(resource.RLIMIT_FSIZE, max_file_bytes, max_file_bytes)
    _set_limit(resource.RLIMIT_NOFILE, _MAX_OPEN_DESCRIPTORS, _MAX_OPEN_DESCRIPTORS)
    # The kernel sends SIGXCPU at the soft limit and SIGKILL at the hard limit, so the two must differ.
    _set_limit(resource.RLIMIT_CPU, now.cpu_seconds, highest.cpu_seconds + 1)
    if own_memory:
        _set_limit(resource.RLIMIT_AS, own_memory + now.memory_bytes, own_memory + highest.memory_bytes)
    signal.setitimer(signal.ITIMER_REAL, now.wall_seconds)


def raise_limits(limits: ResourceLimits, own_memory: int) -> None:
    """Raise the limits on time and memory to `limits`.

    They can't be raised above the `highest` that was passed to `limit_resources`.
    """
    _set_limit(resource.RLIMIT_CPU, limits.cpu_seconds)
    if own_memory:
        _set_limit(resource.RLIMIT_AS, own_memory + limits.memory_bytes)
    signal.setitimer(signal.ITIMER_REAL, limits.wall_seconds)


@cache
def unsupported_limits() -> dict[str, int]:
    """Return a dict of the limits that can't be set on this system, from their names to their numbers.

    For example, a seccomp filter may forbid setrlimit(2).
    """
    names = ("RLIMIT_CORE", "RLIMIT_NPROC", "RLIMIT_FSIZE", "RLIMIT_NOFILE", "RLIMIT_CPU", "RLIMIT_AS")
    refused = {}
    for name in names:
        kind = getattr(resource, name)
        try:
            resource.setrlimit(kind, resource.getrlimit(kind))
        except (OSError, ValueError):
            refused[name] = kind
    return refused


def _set_limit(kind: int, soft: int, hard: int = resource.RLIM_INFINITY) -> None:
    """Set a limit with setrlimit(2). The hard limit is never raised, since only root can do that.

    Limits that can't be set on this system are skipped. The worker has already logged a warning about them.
    """
    if kind in unsupported_limits().values():
        return
    highest = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (_lower(soft, highest), _lower(hard, highest)))


def _lower(value: int, highest: int) -> int:
    if resource.RLIM_INFINITY in (value, highest):
        return value if highest == resource.RLIM_INFINITY else highest
    return min(value, highest)
