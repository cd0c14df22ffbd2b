"""An S3 server that sends any bytes, at any pace."""

import re
import socket
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import NamedTuple


class RawRequest(NamedTuple):
    """A request that the server received."""

    method: str
    target: str
    body: bytes


Answer = Callable[[RawRequest], Iterable[bytes]]
"""Returns the chunks of a response; after the last one the connection is closed."""


class RawStore:
    """Listens on a free port of 127.0.0.1 until `stop`, and responds to each request by calling `answer`."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.requests: list[RawRequest] = []
        self.stopped = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        """The value for `AWS_ENDPOINT_URL_S3`."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def stop(self) -> None:
        """Stop listening, and end all pauses."""
        self.stopped.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def pause(self, seconds: float) -> None:
        """Wait, in the middle of a response, for this long or until `stop`."""
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
            request = _read_request(sock)
            if request is not None:
                self.requests.append(request)
                for chunk in self.answer(request):
                    sock.sendall(chunk)


def _read_request(sock: socket.socket) -> RawRequest | None:
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
    return RawRequest(method, target, body)


def answer_of(status: str, *headers: str, body: bytes = b"") -> bytes:
    """Return a response with these header lines, unchanged."""
    lines = [f"HTTP/1.1 {status}", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def listing(*entries: str, truncated: str = "<IsTruncated>false</IsTruncated>") -> bytes:
    """Return a successful response to ListObjectsV2 with these elements in its entries."""
    contents = "".join(f"<Contents>{entry}</Contents>" for entry in entries)
    body = f"<ListBucketResult>{truncated}{contents}</ListBucketResult>".encode()
    return answer_of("200 OK", "Content-Type: application/xml", f"Content-Length: {len(body)}", body=body)
