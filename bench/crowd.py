"""Many clients that request the same path at the same moment."""

import asyncio
import time


async def crowd(port: int, path: str, clients: int) -> list[float]:
    """Return the time from the common start to the last byte, in seconds, for each client.

    Raises `RuntimeError` if any response is not a 200.
    """
    start = asyncio.Event()
    ready = asyncio.Semaphore(0)
    tasks = [asyncio.create_task(_client(port, path, ready, start)) for _ in range(clients)]
    for _ in range(clients):
        await ready.acquire()
    began = time.perf_counter()
    start.set()
    return [ended - began for ended in await asyncio.gather(*tasks)]


async def _client(port: int, path: str, ready: asyncio.Semaphore, start: asyncio.Event) -> float:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    ready.release()
    await start.wait()
    writer.write(f"GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n".encode())
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    ended = time.perf_counter()
    writer.close()
    await writer.wait_closed()
    if not head.startswith(b"HTTP/1.1 200") or not body:
        raise RuntimeError(f"{path}: {head[:200]!r}")
    return ended
