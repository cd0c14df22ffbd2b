"""Processes that are guaranteed to be ended, and their figures from /proc."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The directory of the project."""

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_GRACE_SECONDS = 5.0
"""How long to wait between SIGTERM and SIGKILL."""


@contextmanager
def running(
    command: Sequence[str], log: Path, *, env: Mapping[str, str] | None = None, cwd: Path = ROOT
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a process in its own process group, and end the whole group at the end of the block.

    Its output is appended to `log`. `env` is added to the environment of this process.
    """
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        _end(process)


def tree(pid: int) -> list[int]:
    """Return `pid` and all its descendants, parents first."""
    found = [pid]
    for parent in found:
        for thread in Path(f"/proc/{parent}/task").glob(
            "*"
        ):  # each thread lists the children that it started
            with suppress(FileNotFoundError, ProcessLookupError):
                found += map(int, (thread / "children").read_text().split())
    return found


def cpu_seconds(pid: int) -> float:
    """Return user and system time of `pid` and its descendants, including those that already exited."""
    return sum(_cpu_seconds(member) for member in tree(pid))


def resident_bytes(pid: int) -> int:
    """Return the anonymous memory of the process, which excludes pages that are mapped from files."""
    return _memory(pid, "RssAnon")


def peak_resident_bytes(pid: int) -> int:
    """Return the largest resident memory that the process had, including pages that are mapped from files."""
    return _memory(pid, "VmHWM")


def is_stopped(pid: int) -> bool:
    """Return whether all threads of the process are stopped by SIGSTOP."""
    return all(_fields(stat)[0] == "T" for stat in Path(f"/proc/{pid}/task").glob("*/stat"))


def _memory(pid: int, name: str) -> int:
    """Return a value from proc_pid_status(5) in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(f"/proc/{pid}/status has no {name}")


def _cpu_seconds(pid: int) -> float:
    try:
        fields = _fields(Path(f"/proc/{pid}/stat"))
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(map(int, fields[11:15])) / _TICKS_PER_SECOND


def _fields(stat: Path) -> list[str]:
    """Return the fields of proc_pid_stat(5), starting with the third. The second may contain spaces."""
    return stat.read_text().rpartition(")")[2].split()


def _end(process: "subprocess.Popen[bytes]") -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        deadline = time.monotonic() + _GRACE_SECONDS
        while time.monotonic() < deadline:
            if process.poll() is not None and not _group_lives(process.pid):
                return
            time.sleep(0.01)


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
