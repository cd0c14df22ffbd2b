"""A load generator for machines without wrk: two processes with 16 keep-alive connections each."""

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
_BUFFER_BYTES = 256 * 1024


class _Connection:
    """A connection, and the state of the response that is being read from it."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self._head = b""
        self._left = 0
        self._status = 0

    def feed(self, data: memoryview) -> int | None:
        """Parse received bytes. Return the status if the response is complete, or None if it is not."""
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
        self._left = 0 if self._status == 304 else _content_length(head) - body
        return None if self._left else self._status


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise ValueError("a response without Content-Length")


def _run(job: dict[str, Any]) -> tuple[int, int]:
    """Send requests until the time is up. Return the number of responses and the number of failures."""
    fields = "".join(f"{name}: {value}\r\n" for name, value in job["headers"].items())
    requests = cycle(f"GET {p} HTTP/1.1\r\nHost: bench\r\n{fields}\r\n".encode() for p in job["paths"])
    selector = selectors.DefaultSelector()
    for _ in range(_CONNECTIONS):
        connection = _Connection(job["port"])
        selector.register(connection.socket, selectors.EVENT_READ, connection)
        connection.socket.sendall(next(requests))
    responses = failures = 0
    buffer = memoryview(bytearray(_BUFFER_BYTES))
    deadline = time.monotonic() + job["seconds"]
    while time.monotonic() < deadline:
        for key, _ in selector.select(0.1):
            connection = key.data
            size = connection.socket.recv_into(buffer)
            if not size:
                return responses, failures + 1
            status = connection.feed(buffer[:size])
            if status is not None:
                responses += 1
                failures += status >= 400
                connection.socket.sendall(next(requests))
    return responses, failures


def main(arguments: Sequence[str]) -> None:
    """Run the job in the JSON file that the first argument names, and write the totals to stdout as JSON.

    A job has the fields `port`, `paths`, `seconds` and `headers`.
    """
    job = json.loads(Path(arguments[0]).read_text())
    with multiprocessing.Pool(_PROCESSES) as pool:
        outcomes = pool.map(_run, [job] * _PROCESSES, chunksize=1)
    responses, failures = (sum(column) for column in zip(*outcomes, strict=True))
    sys.stdout.write(json.dumps({"responses": responses, "failures": failures}))


if __name__ == "__main__":
    main(sys.argv[1:])
