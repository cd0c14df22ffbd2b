"""An S3 server that sends any bytes at all, at any pace."""

import re
import socket
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import NamedTuple


class Asked(NamedTuple):
    """A request: its method, its target, its body."""

    method: str
    target: str
    body: bytes


Answer = Callable[[Asked], Iterable[bytes]]
"""The pieces of an answer; after the last one the connection is closed."""


class RawStore:
    """Listens on a free port of 127.0.0.1 until `stop`; `answer` says what each request gets."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked: list[Asked] = []
        self.stopped = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        """What `AWS_ENDPOINT_URL_S3` takes."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def stop(self) -> None:
        """Listen no more, and end pauses."""
        self.stopped.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def pause(self, seconds: float) -> None:
        """For an answer: say nothing for so long, or until the end."""
        self.stopped.wait(seconds)

    def _accept(self) -> None:
        while not self.stopped.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, suppress(OSError):
            asked = _read_request(sock)
            if asked is not None:
                self.asked.append(asked)
                for piece in self.answer(asked):
                    sock.sendall(piece)


def _read_request(sock: socket.socket) -> Asked | None:
    data = b""
    while b"\r\n\r\n" not in data:
        more = sock.recv(65536)
        if not more:
            return None
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    while length and len(body) < int(length[1]):
        body += sock.recv(65536)
    method, target, _ = head.decode("latin-1").split(" ", 2)
    return Asked(method, target, body)


def answer_of(status: str, *headers: str, body: bytes = b"") -> bytes:
    """An answer with these header lines, as they are."""
    lines = [f"HTTP/1.1 {status}", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def listing(*entries: str, truncated: str = "<IsTruncated>false</IsTruncated>") -> bytes:
    """A successful answer to ListObjectsV2 with these elements in its entries."""
    contents = "".join(f"<Contents>{entry}</Contents>" for entry in entries)
    body = f"<ListBucketResult>{truncated}{contents}</ListBucketResult>".encode()
    return answer_of("200 OK", "Content-Type: application/xml", f"Content-Length: {len(body)}", body=body)
