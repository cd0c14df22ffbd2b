"""A client's connection as the event loop holds it."""

import re
import socket
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from gunicorn.workers.gthread import TConn

from app.worker.response import LoopResponse
from app.worker.sending import Sending

_LONGEST_HEAD = 64 * 1024
"""Bytes. gunicorn's own bound follows from its others: 100 fields of 8 KiB."""

_END = b"\r\n\r\n"

_PLAIN_GET = re.compile(rb"(?:GET|HEAD) (/[A-Za-z0-9/._-]+) HTTP/1\.1\r\n")

_NOT_PLAIN = re.compile(rb"\r\n(?:content-length|transfer-encoding|range|expect|upgrade)[ \t]*:", re.I)
"""A body, a part of the file, or another protocol: what a thread may have to wait for."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request, what the application answers, and what of it is still to be sent; None where it streams."""

    request: Any
    environ: dict[str, Any]
    response: LoopResponse
    body: Any
    sending: Sending | None
    began: datetime
    log: Any

    def go_on(self, sock: socket.socket) -> bool:
        """Send what the socket takes now; True where nothing is left. Raises what `Sending` does."""
        return self.sending is None or self.sending.go_on(sock)

    def end(self) -> None:
        """Close the body and log the request, whether all was sent or the client has gone."""
        if hasattr(self.body, "close"):
            self.body.close()
        self.log.access(self.response, self.request, self.environ, datetime.now() - self.began)


class Connection(TConn):  # type: ignore[misc]
    """gthread's connection, with what has come of a request's head, and the answer on its way."""

    def __init__(self, cfg: Any, sock: socket.socket, client: Any, server: Any) -> None:
        super().__init__(cfg, sock, client, server)
        self.head = b""
        self.exchange: Exchange | None = None
        self.closed = False

    def read_head(self) -> None:
        """Take what has come of the next request. Raises `OSError` where the client has gone."""
        try:
            data = self.sock.recv(_LONGEST_HEAD)
        except BlockingIOError:
            return
        if not data:
            raise ConnectionError("the client has closed the connection")
        self.head += data

    def take_read_ahead(self) -> None:
        """Take what gunicorn's parser has read of the next request, of which the poller would not tell."""
        if self.initialized:
            self.head = self.parser.unreader.take_buffered()

    def can_be_parsed(self) -> bool:
        """Whether gunicorn's parser comes to an end without waiting for more: the head is whole, or wrong."""
        return _END in self.head or self.head.count(b"\n") != self.head.count(b"\r\n")

    def is_too_long(self) -> bool:
        """Whether the end of the head is not worth waiting for."""
        return len(self.head) >= _LONGEST_HEAD and not self.can_be_parsed()

    def plain_path(self) -> str | None:
        """The path, where the head is that of one GET or HEAD without body, range or upgrade; else None."""
        asked = _PLAIN_GET.match(self.head)
        alone = self.head.find(_END) == len(self.head) - len(_END)
        return asked[1].decode("ascii") if asked and alone and not _NOT_PLAIN.search(self.head) else None

    def parse(self) -> Any:
        """gunicorn's request for the head that was read.

        Raises what its parser does, and `StopIteration` where the request before was to be the last.
        """
        self.give_head_to_parser()
        return next(self.parser)

    def give_head_to_parser(self) -> None:
        """Let gunicorn's parser begin with what was read here."""
        if not self.initialized:
            self.init()
            self.sock.setblocking(False)  # `init` is written for threads
        self.parser.unreader.unread(self.head)
        self.head = b""

    def close(self, graceful: bool = False) -> None:
        """Close the socket, and end what was being sent; once."""
        if self.closed:
            return
        self.closed = True
        if self.exchange is not None:
            self.exchange.end()
        super().close(graceful)
