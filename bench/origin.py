"""A minimal S3 server. It serves the files of a directory, after a configurable delay.

PutObject succeeds and obeys `If-None-Match: *`, but only the path and the size of the object are remembered.

moto needs some milliseconds of CPU time for each response, which would distort both sides of a comparison.
"""

import asyncio
import hashlib
import json
import mimetypes
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

COUNTS = "/counts"
"""The path of a JSON object with the number of requests for each path.

HEAD requests are counted as `HEAD <path>`.
"""

DELAY = "/delay/"
"""The prefix of paths that set the delay of later responses: `/delay/<milliseconds>`."""

_MISSING = b"<Error><Code>NoSuchKey</Code><Message>not here</Message></Error>"
_CONFLICT = b"<Error><Code>PreconditionFailed</Code><Message>exists</Message></Error>"

_BUFFER_BYTES = 1024 * 1024
"""Size of the buffer of each connection. With a larger one, a whole body is received without pauses."""


class Origin:
    """Serves `directory` as a bucket. The first segment of each path is the name of the bucket."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._counts: Counter[str] = Counter()
        self._delay = 0.0
        self._sizes: dict[str, int] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Handle a connection until it closes."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                method, path = head.split(b" ", 2)[:2]
                name = path.decode().partition("?")[0]
                if method == b"PUT":
                    writer.write(await self._put(name, head.lower(), reader, writer))
                elif method == b"HEAD":
                    answer = await self._answer(name, f"HEAD {name}")
                    writer.write(answer[: answer.index(b"\r\n\r\n") + 4])
                else:
                    writer.write(await self._answer(name, name))
                await writer.drain()
                if b"\r\nconnection: close" in head.lower():
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _put(
        self, path: str, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes:
        if b"\r\nexpect: 100-continue" in head:
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        size = int(head.partition(b"\r\ncontent-length:")[2].split(b"\r\n", 1)[0])
        await reader.readexactly(size)
        if b"\r\nif-none-match: *" in head and path in self._sizes:
            return _response("412 Precondition Failed", "application/xml", _CONFLICT)
        self._sizes[path] = size
        await asyncio.sleep(self._delay)
        return _response("200 OK", "application/xml", b"")

    async def _answer(self, path: str, counted_as: str) -> bytes:
        if path == COUNTS:
            return _response("200 OK", "application/json", json.dumps(self._counts).encode())
        if path.startswith(DELAY):
            self._delay = int(path.removeprefix(DELAY)) / 1000
            return _response("200 OK", "text/plain", b"set")
        self._counts[counted_as] += 1
        await asyncio.sleep(self._delay)
        try:
            data = (self._directory / path.strip("/").partition("/")[2]).read_bytes()
        except OSError:
            return _response("404 Not Found", "application/xml", _MISSING)
        return _response("200 OK", mimetypes.guess_type(path)[0] or "image/png", data)


def _response(status: str, content_type: str, body: bytes) -> bytes:
    tag = hashlib.md5(body, usedforsecurity=False).hexdigest()
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
        f'ETag: "{tag}"\r\nLast-Modified: Sun, 01 Nov 2026 00:00:00 GMT\r\nServer: bench\r\n\r\n'
    )
    return head.encode() + body


async def _main(port: int, directory: Path) -> None:
    server = await asyncio.start_server(
        Origin(directory).serve, "127.0.0.1", port, backlog=1024, limit=_BUFFER_BYTES
    )
    async with server:
        await server.serve_forever()


def main(arguments: Sequence[str]) -> None:
    """Run `python -m bench.origin PORT DIRECTORY`."""
    asyncio.run(_main(int(arguments[0]), Path(arguments[1])))


if __name__ == "__main__":
    main(sys.argv[1:])
