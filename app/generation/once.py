"""Doing a request once, however often it is sent, across threads, processes and restarts.

Whoever does it holds a lock on a file named for its key. The kernel lets go of that however a process ends,
so no key stays locked. The others wait for that lock, and find the outcome in the ledger.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from app.errors import IdempotencyKeyInUse, IdempotencyKeyReused, StateUnavailable
from app.filelock import SHARED, lock_now, opened
from app.generation.ledger import Ledger, Outcome
from app.generation.state import state_errors_mapped

_log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.05
_ABANDONED_SECONDS = 86_400


@dataclass(frozen=True, slots=True)
class Rules:
    """How many seconds an outcome is remembered, how many a request waits for it, and which ones count.

    `on_kept` is called, under the key's lock, once the outcome of new work is in the ledger.
    """

    lifetime: float
    patience: float
    counts: Callable[[Outcome], bool] = lambda outcome: True
    on_kept: Callable[[Outcome], None] = lambda outcome: None


class Once:
    """Runs work under keys, which are digests; their locks lie in `directory`."""

    def __init__(self, directory: Path, ledger: Ledger) -> None:
        self._directory = directory
        self._ledger = ledger

    def run(self, key: str, request: str, rules: Rules, work: Callable[[], Outcome]) -> Outcome:
        """The outcome of `work`, or that of an earlier or simultaneous run under the same key.

        Raises `IdempotencyKeyReused` where that run's request was another, `IdempotencyKeyInUse` where it
        takes too long, and `StateUnavailable`.
        """
        arrived, deadline = time.time(), time.monotonic() + rules.patience
        while True:
            if found := self._found(key, request, arrived, rules):
                return found
            with self._claim(key, request, deadline) as is_ours:
                # Another may have done it between our look into the ledger and our claim.
                if is_ours and (found := self._found(key, request, arrived, rules)):
                    return found
                if is_ours:
                    return self._do(key, rules, work)

    def _do(self, key: str, rules: Rules, work: Callable[[], Outcome]) -> Outcome:
        """What was paid for is answered, even where it can't be remembered."""
        outcome = work()
        try:
            self._ledger.keep(key, outcome, rules.lifetime)
            rules.on_kept(outcome)
            with state_errors_mapped():
                self._sweep()
        except StateUnavailable:
            _log.warning("the outcome of a generation could not be kept", exc_info=True)
        return outcome

    def _found(self, key: str, request: str, arrived: float, rules: Rules) -> Outcome | None:
        """A failure that may be tried again counts for those who waited for it, and not for the next."""
        outcome = self._ledger.recall(key)
        if outcome is None or not (outcome.is_final or outcome.made_at >= arrived):
            return None
        if outcome.request != request:
            raise IdempotencyKeyReused
        return outcome if rules.counts(outcome) else None

    @contextmanager
    def _claim(self, key: str, request: str, deadline: float) -> Iterator[bool]:
        """Hold the key in this block, or where another holds it, wait until it no longer does."""
        path = self._directory / key
        with self._opened(path) as descriptor:
            if not lock_now(descriptor):
                _wait(descriptor, request, deadline)
                yield False
            elif not os.fstat(descriptor).st_nlink:  # removed by another between our open and our lock
                yield False
            else:
                with state_errors_mapped():
                    os.pwrite(descriptor, request.encode(), 0)
                try:
                    yield True
                finally:
                    with suppress(OSError):  # what is left is swept, and the lock on it ends here
                        path.unlink()

    @contextmanager
    def _opened(self, path: Path) -> Iterator[int]:
        with ExitStack() as stack:
            with state_errors_mapped():
                self._directory.mkdir(parents=True, exist_ok=True)
                descriptor = stack.enter_context(opened(path))
            yield descriptor

    def _sweep(self) -> None:
        """Remove what killed processes left, under keys that nobody used again."""
        for path in self._directory.iterdir():
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                    with self._opened(path) as descriptor:
                        if lock_now(descriptor):
                            path.unlink()


def _wait(descriptor: int, request: str, deadline: float) -> None:
    """Many can wait at once, for a shared lock shuts none of them out."""
    if os.pread(descriptor, 1024, 0) not in (b"", request.encode()):
        raise IdempotencyKeyReused
    while not lock_now(descriptor, SHARED):
        if time.monotonic() > deadline:
            raise IdempotencyKeyInUse
        time.sleep(_LOOK_SECONDS)
