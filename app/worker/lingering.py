"""Connections that are answered for the last time, until their clients have closed them as well.

Closed while the client still sends, a connection is reset, and the answer may be lost on its way: what comes
is read away for a while (RFC 9112, 9.6). The event loop does so, that no thread has to wait.
"""

import selectors
import socket
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from app.worker.connection import Connection

_SECONDS = 2.0
_PIECE = 256 * 1024


class Lingering:
    """Watches connections with `poller`; `ended` is told of each that is closed."""

    def __init__(self, poller: selectors.BaseSelector, ended: Callable[[], None]) -> None:
        self._poller = poller
        self._ended = ended
        self._connections: deque[Connection] = deque()

    def begin(self, conn: Connection) -> None:
        """Say that no more is sent, and close when the client does, or after some seconds."""
        try:
            conn.sock.shutdown(socket.SHUT_WR)
            conn.sock.setblocking(False)
            self._poller.register(conn.sock, selectors.EVENT_READ, partial(self._read_away, conn))
        except (OSError, ValueError):  # the client has gone, or the thread has closed it
            conn.close()
            self._ended()
            return
        conn.timeout = time.monotonic() + _SECONDS
        self._connections.append(conn)

    def expire(self) -> None:
        """Close those that have had their time."""
        while self._connections and self._connections[0].timeout <= time.monotonic():
            self._end(self._connections[0])

    def _read_away(self, conn: Connection, sock: Any) -> None:
        try:
            gone = not sock.recv(_PIECE)
        except BlockingIOError:
            return
        except OSError:
            gone = True
        if gone:
            self._end(conn)

    def _end(self, conn: Connection) -> None:
        self._connections.remove(conn)
        self._poller.unregister(conn.sock)
        conn.close()
        self._ended()
