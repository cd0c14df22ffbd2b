"""Well-behaved clients during an attack, which log the responses that they get and how long these take.

`python -m tests.server.honest PORT PATH [FILE]` requests PATH over one kept-alive connection until SIGTERM,
and over a new one after each failure. Without FILE, it sends at most one request every 20 ms. With FILE,
which contains the expected bytes, it sends the next request as soon as it has a response. At the end it
prints `ResponseLog` as JSON.
"""

import json
import signal
import socket
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType

_TIMEOUT_SECONDS = 20.0
"""A request without a response after this time counts as if it took this long."""

_PAUSE_SECONDS = 0.02


@dataclass
class ResponseLog:
    """The responses of a client.

    `answers` contains the time of arrival and the duration of each response. The time is of `time.monotonic`,
    which is the same for all processes, and the duration includes retries after dropped connections. `wrong`
    contains the time and the reason of each wrong response.
    """

    answers: list[tuple[float, float]] = field(default_factory=list)
    dropped: int = 0
    wrong: list[tuple[float, str]] = field(default_factory=list)

    def between(self, begin: float, end: float) -> list[float]:
        """Return the durations of the responses that arrived in this window."""
        return [took for at, took in self.answers if begin <= at < end]


class Honest:
    """A client with one connection."""

    def __init__(self, port: int, path: str, expected: bytes | None) -> None:
        self._port = port
        self._request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        self._expected = expected
        self._socket: socket.socket | None = None
        self._stopped = False
        self.log = ResponseLog()

    def stop(self, number: int, frame: FrameType | None) -> None:
        """Handle SIGTERM."""
        self._stopped = True

    def run(self) -> None:
        """Send requests until stopped."""
        while not self._stopped:
            began = time.monotonic()
            while not self._stopped and not self._request_once(began):
                self.log.dropped += 1
                self._disconnect()
                time.sleep(_PAUSE_SECONDS / 2)
            if self._expected is None:
                time.sleep(_PAUSE_SECONDS)

    def _request_once(self, began: float) -> bool:
        """Send a request. Return False if there was no complete response and there is time for a retry."""
        try:
            status, body = self._answer()
        except OSError:
            if time.monotonic() - began < _TIMEOUT_SECONDS:
                return False
            status, body = "nothing", b""
        now = time.monotonic()
        self.log.answers.append((now, now - began))
        if status != "200" or (self._expected is not None and body != self._expected):
            self.log.wrong.append((now, f"{status}, {len(body)} bytes: {body[:100]!r}"))
        return True

    def _answer(self) -> tuple[str, bytes]:
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self._port), timeout=_TIMEOUT_SECONDS)
        self._socket.sendall(self._request)
        data = bytearray()
        while b"\r\n\r\n" not in data:
            data += self._received(65_536)
        head, _, begun = bytes(data).partition(b"\r\n\r\n")
        lines = head.decode("latin-1").lower().split("\r\n")
        length = next((int(line[15:]) for line in lines if line.startswith("content-length:")), 0)
        body = bytearray(begun)
        while len(body) < length:
            body += self._received(length - len(body))
        if "connection: close" in lines:
            self._disconnect()
        return lines[0].split(" ")[1], bytes(body)

    def _received(self, most: int) -> bytes:
        assert self._socket is not None
        data = self._socket.recv(most)
        if not data:
            raise ConnectionError("the server has closed the connection")
        return data

    def _disconnect(self) -> None:
        if self._socket is not None:
            with suppress(OSError):
                self._socket.close()
        self._socket = None


def main() -> None:
    """Send requests until SIGTERM, and print the log."""
    port, path, *files = sys.argv[1:]
    honest = Honest(int(port), path, Path(files[0]).read_bytes() if files else None)
    signal.signal(signal.SIGTERM, honest.stop)
    honest.run()
    sys.stdout.write(json.dumps(asdict(honest.log)))


if __name__ == "__main__":
    main()
