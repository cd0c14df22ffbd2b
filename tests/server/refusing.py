"""`python refusing.py sendfile=EINVAL,flock=ENOLCK -- COMMAND…` runs COMMAND with failing system calls.

With a seccomp filter (seccomp(2)), the calls fail with these errors, as in containers and with systemd's
SystemCallFilter=. The exit status is 77 if this system or processor is not supported.
"""

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.server.running import GUNICORN

_NUMBERS: Mapping[str, tuple[int, int]] = {
    "sched_setaffinity": (203, 122),
    "sched_getaffinity": (204, 123),
    "setpriority": (141, 140),
    "prlimit64": (302, 261),
    "setrlimit": (160, 164),
    "getrlimit": (97, 163),
    "sendfile": (40, 71),
    "flock": (73, 32),
    "memfd_create": (319, 279),
    "close_range": (436, 436),
    "landlock_create_ruleset": (444, 444),
    "prctl": (157, 167),
    "fsync": (74, 82),
    "utimensat": (280, 88),
}
"""The numbers of the calls on x86-64 and on 64-bit ARM."""

_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}

_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _FILTER_MODE = 22, 38, 2
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ERROR = 0x7FFF0000, 0x00050000

_UNSUPPORTED = 77


def _program(refused: Mapping[str, int], audit: int, column: int) -> bytes:
    steps = [(_LOAD, 0, 0, 4), (_JUMP_IF_EQUAL, 1, 0, audit), (_RETURN, 0, 0, _ALLOW), (_LOAD, 0, 0, 0)]
    for name, number in refused.items():
        steps += [(_JUMP_IF_EQUAL, 0, 1, _NUMBERS[name][column]), (_RETURN, 0, 0, _ERROR | number)]
    steps.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


def _refuse(refused: Mapping[str, int]) -> bool:
    """Make these calls fail in this process and its children. Return whether this is supported."""
    if platform.machine() not in _ARCHITECTURES or sys.platform != "linux":
        return False
    program = _program(refused, *_ARCHITECTURES[platform.machine()])
    held = ctypes.create_string_buffer(program)
    pointer = struct.pack("@HP", len(program) // 8, ctypes.addressof(held))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    return bool(libc.prctl(_PR_SET_SECCOMP, _FILTER_MODE, pointer, 0, 0) == 0)


@contextmanager
def refusing(directory: Path, **refused: str) -> Iterator[None]:
    """Make these calls fail in the servers that the block starts."""
    shell = directory / "gunicorn"
    calls = ",".join(f"{name}={error}" for name, error in refused.items())
    path = Path(__file__).parents[2]
    shell.write_text(
        f'#!/bin/sh\nPYTHONPATH={path} exec {sys.executable} {__file__} {calls} -- {GUNICORN[0]} "$@"\n',
        encoding="utf-8",
    )
    shell.chmod(0o755)
    if os.waitstatus_to_exitcode(os.system(f"{shell} --version >/dev/null")) == _UNSUPPORTED:
        pytest.skip("seccomp filters are not supported here")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.server.running.GUNICORN", [str(shell), *GUNICORN[1:]])
        yield


if __name__ == "__main__":
    wanted = dict(pair.split("=") for pair in sys.argv[1].split(","))
    if not _refuse({name: getattr(errno, error) for name, error in wanted.items()}):
        sys.exit(_UNSUPPORTED)
    os.execv(sys.argv[3], sys.argv[3:])
