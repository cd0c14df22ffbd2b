"""System calls that some systems refuse: seccomp filters, containers, file systems that lack them."""

import errno
import os

UNSUPPORTED = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP})
"""Errors that say that the system or the file system has no such call."""

REFUSED = UNSUPPORTED | {errno.EPERM, errno.EACCES}
"""Errors of calls that need no right of their own, if a filter refuses them."""


def usable_cores() -> list[int]:
    """Return the numbers of the cores that this process may run on; none if the system doesn't say."""
    try:
        return sorted(os.sched_getaffinity(0))
    except (OSError, AttributeError):  # refused, or not Linux
        return []


def sync(descriptor: int) -> None:
    """Have a file or directory written to its disk, if the file system can do so. Raises `OSError` otherwise.

    Some network file systems can't for directories (fsync(2): EINVAL); what they do by themselves must do.
    """
    try:
        os.fsync(descriptor)
    except OSError as exc:
        if exc.errno not in UNSUPPORTED:
            raise
