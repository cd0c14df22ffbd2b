"""One request body on its way in: how fast it comes, and how to give it up."""

import socket
import time
from contextlib import suppress

_GRACE = 10.0
_RATE = 8 * 1024
"""Bytes per second, on the average, after `_GRACE` seconds: a bad mobile line does that."""

_GRACE_UNDER_PRESSURE = 0.5
_RATE_UNDER_PRESSURE = 32 * 1024
"""The same while others wait for its place."""


class Reader:
    """A body that is being received from `connection`, which tests and other servers may not have.

    `total`: bytes so far. `complete`: all of it is here. `given_up`: no more is read.
    """

    def __init__(self, connection: socket.socket | None) -> None:
        self._connection = connection
        self._started = time.monotonic()
        self.total = 0
        self.complete = False
        self.given_up = False

    def received(self, size: int) -> None:
        """Note that so many more bytes are here."""
        self.total += size

    @property
    def rate(self) -> float:
        """Bytes per second so far."""
        return self.total / max(time.monotonic() - self._started, 0.001)

    def is_slow(self, *, pressed: bool) -> bool:
        """Whether it comes more slowly than it may; `pressed` where others wait."""
        if self.complete or self.given_up or self._connection is None:
            return False
        grace, rate = (_GRACE_UNDER_PRESSURE, _RATE_UNDER_PRESSURE) if pressed else (_GRACE, _RATE)
        return self.total < (time.monotonic() - self._started - grace) * rate

    def give_up(self) -> None:
        """Wake the thread that waits for more: it reads the end. Answers can still be sent."""
        self.given_up = True
        if self._connection is not None:
            with suppress(OSError):  # it is gone already
                # Not SSLSocket's own shutdown(), which would end encryption in both directions.
                socket.socket.shutdown(self._connection, socket.SHUT_RD)
