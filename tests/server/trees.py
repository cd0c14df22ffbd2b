"""Information about the processes of a running server, from /proc."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_GONE = (FileNotFoundError, ProcessLookupError)
_SECONDS = 0.02


def children_of(pid: int) -> list[int]:
    """Return the running child processes of all threads of the process."""
    found: list[int] = []
    for thread in Path(f"/proc/{pid}/task").glob("*"):
        with suppress(*_GONE):
            found += map(int, (thread / "children").read_text().split())
    return found


def tree_of(pid: int) -> list[int]:
    """Return the process and all its descendants."""
    found = [pid]
    for parent in found:
        found += children_of(parent)
    return found


def is_there(pid: int) -> bool:
    """Return whether the process is running."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except _GONE:
        return False


def memory_of(tree: int) -> int:
    """Return the memory of the process and its descendants in bytes. Pages shared by a fork count twice."""
    held = 0
    for pid in tree_of(tree):
        with suppress(*_GONE):
            held += sum(map(int, re.findall(r"^RssAnon:\s+(\d+)", _status(pid), re.MULTILINE))) * 1024
    return held


@contextmanager
def watched_memory(trees: list[int]) -> Iterator[dict[int, int]]:
    """Measure the memory during the block. Yield the maximum of each of `trees` in bytes."""
    most = {tree: memory_of(tree) for tree in trees}
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(_SECONDS):
            for tree in trees:
                most[tree] = max(most[tree], memory_of(tree))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield most
    finally:
        stop.set()
        thread.join()


def _status(pid: int) -> str:
    return Path(f"/proc/{pid}/status").read_text(encoding="ascii")
