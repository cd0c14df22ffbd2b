"""Which files of a directory are worth a look."""

import os
import stat
from pathlib import Path

from app.transfer.sidecars import DIRECTORY
from app.transfer.tally import Outcome, Result, Tally, failure


def find_files(root: Path, tally: Tally) -> list[str]:
    """The regular files below `root`, by their paths below it, in order.

    Hidden ones, symbolic links and special files are left out and counted as skipped; a directory that
    can't be read counts as failed.
    """

    def unreadable(exc: OSError) -> None:
        tally.add(failure(os.path.relpath(exc.filename, root), exc))

    def wanted(path: Path) -> bool:
        why_not = _why_not(root / path)
        if why_not:
            tally.add(Result(path.as_posix(), Outcome.SKIPPED, why_not))
        return not why_not

    found: list[str] = []
    for parent, directories, names in os.walk(root, onerror=unreadable):
        below = Path(parent).relative_to(root)
        if parent == str(root) and DIRECTORY in directories:  # the importer reads it beside each image
            directories.remove(DIRECTORY)
        directories[:] = sorted(name for name in directories if wanted(below / name))
        found += (path.as_posix() for name in sorted(names) if wanted(path := below / name))
    return found


def _why_not(path: Path) -> str:
    """Why it is left out; nothing where it isn't, nor where it is gone by now: reading it will tell."""
    if path.name.startswith("."):
        return "hidden"
    try:
        mode = path.lstat().st_mode
    except OSError:
        return ""
    if stat.S_ISLNK(mode):
        return "a symbolic link"
    return "" if stat.S_ISREG(mode) or stat.S_ISDIR(mode) else "a special file"
