"""The load generator for machines without wrk: two processes of 16 keep-alive connections each."""

import json
import multiprocessing
import selectors
import socket
import sys
import time
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

_PROCESSES = 2
_CONNECTIONS = 16
_BUFFER = 256 * 1024


class _Connection:
    """One connection: sends a request, reads the answer, and so on."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self._head = b""
        self._left = 0
        self._status = 0

    def take(self, data: memoryview) -> int | None:
        """Read on; the status of the answer that has just ended, None while it goes on."""
        if self._left:
            self._left -= len(data)
            return None if self._left else self._status
        self._head += data
        end = self._head.find(b"\r\n\r\n")
        if end < 0:
            return None
        head, body = self._head[:end], len(self._head) - end - 4
        self._head = b""
        self._status = int(head[9:12])
        self._left = 0 if self._status == 304 else _length(head) - body
        return None if self._left else self._status


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise ValueError("an answer without Content-Length")


def _ask(order: dict[str, Any]) -> tuple[int, int]:
    """Answers and failures of one process."""
    fields = "".join(f"{name}: {value}\r\n" for name, value in order["headers"].items())
    requests = cycle(f"GET {p} HTTP/1.1\r\nHost: bench\r\n{fields}\r\n".encode() for p in order["paths"])
    selector = selectors.DefaultSelector()
    for _ in range(_CONNECTIONS):
        connection = _Connection(order["port"])
        selector.register(connection.socket, selectors.EVENT_READ, connection)
        connection.socket.sendall(next(requests))
    answers = failures = 0
    buffer = memoryview(bytearray(_BUFFER))
    deadline = time.monotonic() + order["seconds"]
    while time.monotonic() < deadline:
        for key, _ in selector.select(0.1):
            connection = key.data
            size = connection.socket.recv_into(buffer)
            if not size:
                return answers, failures + 1
            status = connection.take(buffer[:size])
            if status is not None:
                answers += 1
                failures += status >= 400
                connection.socket.sendall(next(requests))
    return answers, failures


def main(arguments: Sequence[str]) -> None:
    """Carry out the order in the file named, and write the sums as JSON."""
    order = json.loads(Path(arguments[0]).read_text())
    with multiprocessing.Pool(_PROCESSES) as pool:
        outcomes = pool.map(_ask, [order] * _PROCESSES, chunksize=1)
    answers, failures = (sum(column) for column in zip(*outcomes, strict=True))
    sys.stdout.write(json.dumps({"answers": answers, "failures": failures}))


if __name__ == "__main__":
    main(sys.argv[1:])
