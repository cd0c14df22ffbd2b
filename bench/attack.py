"""Attack a server with slow clients until SIGTERM: `python -m bench.attack KIND PORT PATH COUNT`.

All COUNT connections behave the same. If the server closes a connection, it is opened again after a pause.
"""

import asyncio
import resource
import socket
import sys
from collections.abc import Awaitable, Callable

_RECONNECT_SECONDS = 0.2
"""How long to wait before a closed connection is opened again."""

_Act = Callable[[socket.socket, str], Awaitable[None]]


async def _slow_head(sock: socket.socket, path: str) -> None:
    """Send a request head that never ends, one byte per second."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, _head(path))
    while True:
        await loop.sock_sendall(sock, b"x")
        await asyncio.sleep(1)


async def _slow_reader(sock: socket.socket, path: str) -> None:
    """Request a large image and read one byte of it per second."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, _head(path) + b"\r\n")
    while await loop.sock_recv(sock, 1):
        await asyncio.sleep(1)


async def _unsent_body(sock: socket.socket, path: str) -> None:
    """Announce a body, but never send it."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, _head(path) + b"Content-Length: 10\r\n\r\n")
    while await loop.sock_recv(sock, 65_536):
        pass


KINDS: dict[str, _Act] = {"heads": _slow_head, "readers": _slow_reader, "bodies": _unsent_body}


def _head(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n".encode()


async def _repeat(act: _Act, port: int, path: str) -> None:
    while True:
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        try:
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
            await act(sock, path)
        except OSError:
            pass  # the server closed the connection, or did not accept it
        finally:
            sock.close()
        await asyncio.sleep(_RECONNECT_SECONDS)


async def _all(kind: str, port: int, path: str, count: int) -> None:
    await asyncio.gather(*(_repeat(KINDS[kind], port, path) for _ in range(count)))


def main() -> None:
    """Attack until the process is killed."""
    kind, port, path, count = sys.argv[1:]
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))
    asyncio.run(_all(kind, int(port), path, int(count)))


if __name__ == "__main__":
    main()
