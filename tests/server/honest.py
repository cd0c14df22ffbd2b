"""Clients that do nothing wrong, while others attack: what they get, how fast, and whether it is right.

`python -m tests.server.honest PORT PATH [FILE]` asks for PATH over one kept-alive connection until SIGTERM,
and over a new one after each failure. Without FILE it asks every 20 ms, at most; with FILE, the bytes that
it must be answered, as fast as it gets them. In the end it prints `Asked` as JSON.
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

_PATIENCE = 20.0
"""Seconds after which an answer is given up, and counts as having taken so long."""

_PAUSE = 0.02


@dataclass
class Asked:
    """When each answer was there (`time.monotonic`, one clock for all processes) and how long it took, tries
    over dropped connections included; how many were dropped; and every answer that was wrong.
    """

    answers: list[tuple[float, float]] = field(default_factory=list)
    dropped: int = 0
    wrong: list[tuple[float, str]] = field(default_factory=list)

    def between(self, begin: float, end: float) -> list[float]:
        """How long each answer took that came in this time."""
        return [took for at, took in self.answers if begin <= at < end]


class Honest:
    """One client on one connection."""

    def __init__(self, port: int, path: str, expected: bytes | None) -> None:
        self._port = port
        self._request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        self._expected = expected
        self._socket: socket.socket | None = None
        self._stopped = False
        self.asked = Asked()

    def stop(self, number: int, frame: FrameType | None) -> None:
        """Handle the signal that ends it."""
        self._stopped = True

    def run(self) -> None:
        """Ask until stopped."""
        while not self._stopped:
            began = time.monotonic()
            while not self._stopped and not self._ask(began):
                self.asked.dropped += 1
                self._disconnect()
                time.sleep(_PAUSE / 2)
            if self._expected is None:
                time.sleep(_PAUSE)

    def _ask(self, began: float) -> bool:
        """Ask once; False if there was no whole answer, and time is left to ask again."""
        try:
            status, body = self._answer()
        except OSError:
            if time.monotonic() - began < _PATIENCE:
                return False
            status, body = "nothing", b""
        now = time.monotonic()
        self.asked.answers.append((now, now - began))
        if status != "200" or (self._expected is not None and body != self._expected):
            self.asked.wrong.append((now, f"{status}, {len(body)} bytes: {body[:100]!r}"))
        return True

    def _answer(self) -> tuple[str, bytes]:
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self._port), timeout=_PATIENCE)
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
    """Ask until SIGTERM, and say what came."""
    port, path, *files = sys.argv[1:]
    honest = Honest(int(port), path, Path(files[0]).read_bytes() if files else None)
    signal.signal(signal.SIGTERM, honest.stop)
    honest.run()
    sys.stdout.write(json.dumps(asdict(honest.asked)))


if __name__ == "__main__":
    main()
