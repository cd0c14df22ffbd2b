"""The file system that a directory lies on, as far as it matters to a cache."""

import os
import re
from dataclasses import dataclass

MOUNTS = "/proc/self/mountinfo"
"""https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html"""


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted file system: where, and of what kind, such as `ext4`."""

    point: str
    kind: str


def counts_accesses(directory: str | os.PathLike[str]) -> bool:
    """Whether the kernel notes when a file is read, as for a front server's hits."""
    return not os.statvfs(directory).f_flag & getattr(os, "ST_NOATIME", 0)


def mount_of(directory: str | os.PathLike[str]) -> Mount | None:
    """The mount that holds `directory`; None where the system does not tell."""
    path = os.path.realpath(directory)
    try:
        with open(MOUNTS, encoding="utf-8", errors="surrogateescape") as table:
            mounts = [_parsed(line) for line in table]
    except OSError:
        return None
    holding = [mount for mount in mounts if os.path.commonpath((path, mount.point)) == mount.point]
    # A later mount hides an earlier one at the same place.
    return max(reversed(holding), key=lambda mount: len(mount.point), default=None)


def _parsed(line: str) -> Mount:
    before, _, after = line.partition(" - ")
    return Mount(
        re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), before.split(" ")[4]), after.split(" ")[0]
    )
