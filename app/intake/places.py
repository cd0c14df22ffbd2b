"""Limits how many requests with a body are under way; if others wait, the slowest is dropped."""

import threading
import time

from app.errors import Busy
from app.intake.reader import Reader

_MOST_WAITING = 64
"""Requests that wait for a place at once; each holds a parked thread."""

_STANDSTILL_SECONDS = 2.0
"""How long a request waits if no place becomes free."""

_PATIENCE_SECONDS = 10.0
"""How long it waits at most."""

_TICK = 0.1
"""Seconds between two looks at who is slow."""


class Places:
    """Places for `most` readers, since bodies take memory until their requests are answered.

    A limited number of others wait for some seconds. A client that sends too slowly is dropped
    after some seconds, or sooner if others wait for its place.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting = 0
        self._readers: set[Reader] = set()
        self._change = threading.Condition()
        self._came_free_at = 0.0
        self._watched = False

    def enter(self, reader: Reader) -> None:
        """Take a place, which `leave` gives back. Raises `Busy` if none becomes free in time."""
        with self._change:
            if len(self._readers) >= self._most:
                self._wait()
            if not self._watched:
                self._start_watching()
            self._readers.add(reader)
            if len(self._readers) == self._most:
                self._came_free_at = time.monotonic()  # from now on others have to wait

    def leave(self, reader: Reader) -> None:
        """Give the place back, if `reader` has one."""
        with self._change:
            if reader in self._readers:
                self._readers.remove(reader)
                self._came_free_at = time.monotonic()
                self._change.notify()

    def _wait(self) -> None:
        if self._waiting >= _MOST_WAITING:
            raise Busy
        until = time.monotonic() + _PATIENCE_SECONDS
        self._waiting += 1
        try:
            while len(self._readers) >= self._most:
                if time.monotonic() >= min(until, self._came_free_at + _STANDSTILL_SECONDS):
                    raise Busy
                self._drop_slowest()
                self._change.wait(_TICK)
        finally:
            self._waiting -= 1

    def _drop_slowest(self) -> None:
        """Drop the slowest reader, unless one is being dropped already."""
        slow = [reader for reader in self._readers if reader.is_slow(pressed=True)]
        if slow and not any(reader.given_up for reader in self._readers):
            min(slow, key=lambda reader: reader.rate).give_up()

    def _start_watching(self) -> None:
        """Start the thread that drops slow readers. Raises `Busy` if the system has no more threads."""
        try:
            threading.Thread(target=self._watch, name="intake", daemon=True).start()
        except RuntimeError as exc:
            raise Busy(detail=str(exc)) from exc
        self._watched = True

    def _watch(self) -> None:
        """Drop those that are too slow even if nobody waits; end when there is nobody to watch."""
        while True:
            time.sleep(_TICK)
            with self._change:
                if not self._readers:
                    self._watched = False
                    return
                for reader in self._readers:
                    if reader.is_slow(pressed=False):
                        reader.give_up()
