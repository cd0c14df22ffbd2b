"""The places for requests with a body: queue before thread, and the slowest gives way."""

import threading
import time

from app.errors import Busy
from app.intake.reader import Reader

_PATIENCE = 2.0
_SHORT_PATIENCE = 1.0
"""Seconds that a request waits for a place; fewer in the last thread, where images wait behind it."""

_TICK = 0.1
"""Seconds between two looks at who is slow."""


class Places:
    """Room for some readers out of a worker's threads, so that the others are left to serve images.

    Where all others are taken, too, the last thread waits for a moment, but not where that was in vain for
    somebody else just before. Who comes too slowly is given up: after some seconds, or sooner where others
    wait.
    """

    def __init__(self, threads: int) -> None:
        self._most = max(1, threads - 2)
        self._spare = threads - self._most - 1
        self._waiting = 0
        self._turned_away_at = float("-inf")
        self._readers: set[Reader] = set()
        self._change = threading.Condition()
        self._watched = False

    def enter(self, reader: Reader) -> None:
        """Take a place, which `leave` gives back; raises `Busy` where none is to be had in time."""
        with self._change:
            if len(self._readers) >= self._most:
                self._wait()
            self._readers.add(reader)
            self._see_to_watch()

    def leave(self, reader: Reader) -> None:
        """Give the place back, if `reader` has one."""
        with self._change:
            self._readers.discard(reader)
            self._change.notify_all()

    def _wait(self) -> None:
        until = time.monotonic() + self._patience()
        self._waiting += 1
        try:
            while len(self._readers) >= self._most:
                if time.monotonic() >= until:
                    self._turned_away_at = time.monotonic()
                    raise Busy
                self._drop_slowest()
                self._change.wait(_TICK)
        finally:
            self._waiting -= 1

    def _patience(self) -> float:
        if self._waiting < self._spare:
            return _PATIENCE
        in_vain = time.monotonic() - self._turned_away_at < _PATIENCE and not self._slow()
        return 0 if in_vain else _SHORT_PATIENCE

    def _drop_slowest(self) -> None:
        """Let the slowest give way, unless one is about to already."""
        slow = self._slow()
        if slow and not any(reader.given_up for reader in self._readers):
            min(slow, key=lambda reader: reader.rate).give_up()

    def _slow(self) -> list[Reader]:
        return [reader for reader in self._readers if reader.is_slow(pressed=True)]

    def _see_to_watch(self) -> None:
        if not self._watched:
            self._watched = True
            threading.Thread(target=self._watch, name="intake", daemon=True).start()

    def _watch(self) -> None:
        """Give up who is too slow though nobody waits; ends when there is nobody to watch."""
        while True:
            time.sleep(_TICK)
            with self._change:
                if not self._readers:
                    self._watched = False
                    return
                for reader in self._readers:
                    if reader.is_slow(pressed=False):
                        reader.give_up()
