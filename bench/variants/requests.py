"""Sends each of many different paths once, over a few connections that are kept alive."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence

_CONNECTIONS = 16


async def request_all(port: int, paths: Sequence[str]) -> Counter[int]:
    """Request all paths, and return how often each status was received.

    Raises `ConnectionError` or `asyncio.IncompleteReadError` if a response is not complete.
    """
    statuses: Counter[int] = Counter()
    rest = iter(paths)
    async with asyncio.TaskGroup() as tasks:
        for _ in range(_CONNECTIONS):
            tasks.create_task(_request_some(port, rest, statuses))
    return statuses


async def _request_some(port: int, rest: Iterator[str], statuses: Counter[int]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for path in rest:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            statuses[int(head[9:12])] += 1
            await reader.readexactly(_content_length(head))
            if b"\r\nconnection: close" in head.lower():
                writer.close()
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
    finally:
        writer.close()


def _content_length(head: bytes) -> int:
    return int(head.lower().partition(b"\r\ncontent-length:")[2].split(b"\r\n", 1)[0])
