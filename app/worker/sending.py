"""An answer on its way to a socket that never blocks."""

import os
import socket
from collections.abc import Callable

_MORE = getattr(socket, "MSG_MORE", 0)
"""Lets the kernel put the head and the file's beginning into one packet, where it knows how (Linux)."""


class Sending:
    """First `head`, then `count` bytes from the beginning of the open `file`; `close` gives the file back."""

    def __init__(self, head: bytes, close: Callable[[], None], file: int = -1, count: int = 0) -> None:
        self.close = close
        self._head = head
        self._file = file
        self._offset = 0
        self._count = count

    def go_on(self, sock: socket.socket) -> bool:
        """Send what the socket takes; True where nothing is left.

        Raises `OSError` where the client is gone, or the file is shorter than announced.
        """
        try:
            while self._head:
                self._head = self._head[sock.send(self._head, _MORE if self._count else 0) :]
            while self._offset < self._count:
                sent = os.sendfile(sock.fileno(), self._file, self._offset, self._count - self._offset)
                if not sent:
                    raise OSError("the file has been cut")
                self._offset += sent
        except BlockingIOError:
            return False
        return True
