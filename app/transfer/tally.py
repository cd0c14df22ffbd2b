"""What became of each file or image, counted."""

import threading
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

from app.errors import AppError


class Outcome(StrEnum):
    """What became of one of them."""

    DONE = "done"
    THERE = "there_already"
    SKIPPED = "skipped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Result:
    """One of them, by its path or key; `reason` says why it was skipped or failed."""

    name: str
    outcome: Outcome
    reason: str = ""


@dataclass
class Tally:
    """Counts results, and keeps those with a reason. Threads may share it."""

    counts: Counter[Outcome] = field(default_factory=Counter)
    remarks: list[Result] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, result: Result) -> None:
        """Count one more."""
        with self._lock:
            self.counts[result.outcome] += 1
            if result.reason:
                self.remarks.append(result)


def failure(name: str, exc: AppError | OSError) -> Result:
    """The result for what could not be done."""
    told = str(exc) if isinstance(exc, AppError) else exc.strerror
    return Result(name, Outcome.FAILED, told or type(exc).__name__)
