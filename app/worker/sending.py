"""An answer on its way to a socket that never blocks."""

import os
import socket

_MORE = getattr(socket, "MSG_MORE", 0)
"""Lets the kernel put the head and the file's beginning into one packet, where it knows how (Linux)."""


class Sending:
    """First `head`, then `count` bytes of the open `file` from `offset` on."""

    def __init__(self, head: bytes, file: int = -1, offset: int = 0, count: int = 0) -> None:
        self._head = memoryview(head)
        self._file = file
        self._offset = offset
        self._left = count

    def go_on(self, sock: socket.socket) -> bool:
        """Send what the socket takes; True where nothing is left.

        Raises `OSError` where the client is gone, or the file is shorter than announced.
        """
        try:
            while self._head:
                self._head = self._head[sock.send(self._head, _MORE if self._left else 0) :]
            while self._left:
                sent = os.sendfile(sock.fileno(), self._file, self._offset, self._left)
                if not sent:
                    raise OSError("the file has been cut")
                self._offset += sent
                self._left -= sent
        except BlockingIOError:
            return False
        return True
