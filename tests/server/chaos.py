"""A client that attacks a server at random, from a seed, with thousands of connections.

It knows URLs and HTTP, but nothing about the worker. `python -m tests.server.chaos TARGET`, where TARGET is
`Target` as JSON, attacks until SIGTERM, and then prints how often it did each action.

Its rate is limited, so that it does not simply overload the server. Measurements can then be
compared with the same attack on a tarpit (tests/server/tarpit.py).
"""

import asyncio
import json
import random
import resource
import select
import signal
import socket
import struct
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict, dataclass

from tests.pictures import noise

IDLE = 2_400
"""Number of idle connections, which is more than two workers can hold (1,000 each)."""

_BUSY = 900
"""Maximum number of active connections."""

_STARTS = 80
"""Number of active connections that are started per second."""

_BURST = 60
"""Number of connections that are opened at once, while data is sent on the oldest ones."""

_NOW = struct.pack("ii", 1, 0)
"""The value of SO_LINGER with which `close` resets the connection (socket(7))."""

_METHODS = ("GET", "HEAD", "OPTIONS", "POST", "DELETE", "PUT")
_FRAMINGS = ("Content-Length: 10", "Content-Length: 200000", "Transfer-Encoding: chunked")
_MALFORMED = (
    b"GET / HTTP/9.9\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    b"GET /\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nA b: c\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"GET / HTTP/1.1\r\n" + b"A: " + b"x" * 70_000,
    b"\r\n" * 5_000,
    b"\0" * 3_000,
)


@dataclass(frozen=True)
class Target:
    """The target of the attack, with the paths of a small and a large cached image and of uncached images."""

    port: int
    seed: int
    small: str
    large: str
    cold: tuple[str, ...]


class Chaos:
    """The attack. `counts` contains the number of times that each action was done."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._random = random.Random(target.seed)
        self._idle: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.counts: Counter[str] = Counter()

    async def run(self, stop: asyncio.Event) -> None:
        """Attack until `stop` is set."""
        bursts = asyncio.create_task(self._write_to_the_oldest())
        while not stop.is_set():
            for _ in range(_STARTS // 20):
                if len(self._tasks) < _BUSY:
                    task = asyncio.create_task(self._act())
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), 1 / 20)
        for task in (bursts, *self._tasks):
            task.cancel()
        await asyncio.gather(bursts, *self._tasks, return_exceptions=True)
        for sock in self._idle:
            sock.close()

    async def _write_to_the_oldest(self) -> None:
        """Send data on connections at the moment when the server evicts them to make room for new ones."""
        while True:
            self._close_ended()
            opened = [self._connecting() for _ in range(_BURST)]
            for number, sock in enumerate(self._idle[: 2 * _BURST]):
                with suppress(OSError):
                    sock.send(b"G" if number % 3 else self._get(self._target.small))
            self._idle += opened
            self.counts["burst"] += 1
            await asyncio.sleep(self._random.uniform(0.02, 0.5))

    def _close_ended(self) -> None:
        """Close connections that the server has closed. Of the others, it evicts the first ones next."""
        poll = select.poll()
        for sock in self._idle:
            poll.register(sock, select.POLLIN)
        ended = {descriptor for descriptor, _ in poll.poll(0)}
        gone = [sock for sock in self._idle if sock.fileno() in ended]
        self._idle = [sock for sock in self._idle if sock.fileno() not in ended]
        while len(self._idle) > IDLE:
            gone.append(self._idle.pop(0))
        for sock in gone:
            sock.close()

    async def _act(self) -> None:
        name, act = self._random.choices(_ACTS, _WEIGHTS)[0]
        self.counts[name] += 1
        sock = self._new_socket(small_buffer=act is Chaos._read_slowly)
        try:
            async with asyncio.timeout(self._random.uniform(0.2, 12)):
                await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self._target.port))
                await act(self, sock)
        except (OSError, TimeoutError, EOFError):
            pass  # the server can close the connection at any moment, and the time can run out
        finally:
            if self._random.random() < 0.5:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NOW)
            sock.close()

    def _connecting(self) -> socket.socket:
        """Start to connect, without waiting until the connection is established."""
        sock = self._new_socket()
        sock.connect_ex(("127.0.0.1", self._target.port))
        return sock

    def _new_socket(self, *, small_buffer: bool = False) -> socket.socket:
        """Return a socket bound to one of many local addresses, since one address has too few ports."""
        sock = socket.socket()
        sock.setblocking(False)
        if small_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setsockopt(socket.IPPROTO_IP, getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24), 1)
        sock.bind((f"127.0.0.{self._random.randint(2, 40)}", 0))
        return sock

    def _get(self, path: str, *lines: str, method: str = "GET") -> bytes:
        head = (f"{method} {path} HTTP/1.1", "Host: localhost", *lines, "", "")
        return "\r\n".join(head).encode()

    def _any_path(self) -> str:
        target = self._target
        rare = (
            "/",
            "/metrics",
            "/api/images",
            target.large,
            self._missing(),
            self._random.choice(target.cold),
        )
        often = (target.small, target.small + "?x", "/healthz")
        return self._random.choice(rare if self._random.random() < 0.1 else often)

    def _missing(self) -> str:
        return f"/api/images/images/aa/{self._random.randbytes(15).hex()}.png"

    async def _send(self, sock: socket.socket, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(sock, data)

    async def _receive(self, sock: socket.socket, most: int = 65_536) -> bytes:
        data = await asyncio.get_running_loop().sock_recv(sock, most)
        if not data:
            raise EOFError
        return data

    async def _byte_by_byte(self, sock: socket.socket) -> None:
        for byte in self._get(self._any_path(), "Accept: image/*"):
            await self._send(sock, bytes([byte]))
            await asyncio.sleep(self._random.uniform(0, 0.3))
        await self._receive(sock)

    async def _stop_anywhere(self, sock: socket.socket) -> None:
        """Send a part of a request, or several requests. Then perhaps close this half of the connection."""
        whole = self._get(self._any_path()) * 2
        await self._send(sock, whole[: self._random.randint(0, len(whole))])
        if self._random.random() < 0.6:
            sock.shutdown(socket.SHUT_WR)
        for _ in range(self._random.randint(0, 3)):
            await self._receive(sock)

    async def _unsent_body(self, sock: socket.socket) -> None:
        lines = [self._random.choice(_FRAMINGS), "Content-Type: image/png"]
        lines += ["Expect: 100-continue"] * self._random.randint(0, 1)
        method = self._random.choice(_METHODS)
        path = self._missing() if method == "DELETE" else self._any_path()
        request = self._get(path, *lines, method=method)
        begun = self._random.choice((b"", b"", b"5\r\nabc", b"5\r\nabcde\r\n", b"fffffff\r\n"))
        await self._send(sock, request + begun)
        while True:
            await self._receive(sock)

    async def _read_slowly(self, sock: socket.socket) -> None:
        """Request a large image, and read nothing or one byte per second."""
        lines = ["Range: bytes=1-"] * (self._random.random() < 0.2)
        await self._send(sock, self._get(self._target.large, *lines))
        if self._random.random() < 0.5:
            await asyncio.sleep(60)
        while True:
            await self._receive(sock, 1)
            await asyncio.sleep(1)

    async def _pipeline(self, sock: socket.socket) -> None:
        await self._send(sock, b"".join(self._get(self._any_path()) for _ in range(6))[:-1])
        await asyncio.sleep(self._random.uniform(0, 0.5))
        await self._send(sock, b"\n")
        while True:
            await self._receive(sock)

    async def _keep_alive(self, sock: socket.socket) -> None:
        for _ in range(self._random.randint(1, 8)):
            await self._send(sock, self._get(self._target.small, method=self._random.choice(("GET", "HEAD"))))
            await self._receive(sock)
            await asyncio.sleep(self._random.uniform(0, 0.5))

    async def _malformed(self, sock: socket.socket) -> None:
        data = bytearray(self._random.choice((*_MALFORMED, self._get(self._any_path(), "Range: bytes=0-9"))))
        for _ in range(self._random.randint(0, 3)):
            data[self._random.randrange(len(data))] = self._random.randrange(256)
        await self._send(sock, bytes(data))
        await self._receive(sock)

    async def _fill(self, sock: socket.socket) -> None:
        path = self._random.choice((*self._target.cold, self._missing()))
        await self._send(sock, self._get(path))
        if self._random.random() < 0.7:
            await self._receive(sock)

    async def _range(self, sock: socket.socket) -> None:
        first = self._random.randint(0, 10_000_000)
        lines = [f"Range: bytes={first}-{first + self._random.randint(-5, 100_000)}"]
        await self._send(
            sock, self._get(self._random.choice((self._target.small, self._target.large)), *lines)
        )
        await self._receive(sock)

    async def _upload(self, sock: socket.socket) -> None:
        body = noise(self._random.randrange(50), (16, 16))
        head = self._get(
            "/api/images", f"Content-Length: {len(body)}", "Content-Type: image/png", method="POST"
        )
        await self._send(sock, head + body[:100])
        await asyncio.sleep(self._random.uniform(0, 0.5))
        await self._send(sock, body[100:])
        await self._receive(sock)


_ACTS: list[tuple[str, Callable[[Chaos, socket.socket], Awaitable[None]]]] = [
    ("byte by byte", Chaos._byte_by_byte),
    ("stop anywhere", Chaos._stop_anywhere),
    ("unsent body", Chaos._unsent_body),
    ("read slowly", Chaos._read_slowly),
    ("pipeline", Chaos._pipeline),
    ("keep alive", Chaos._keep_alive),
    ("malformed", Chaos._malformed),
    ("fill", Chaos._fill),
    ("range", Chaos._range),
    ("upload", Chaos._upload),
]
_WEIGHTS = (15, 20, 20, 25, 5, 10, 15, 4, 8, 2)


async def _attack(target: Target) -> Counter[str]:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    chaos = Chaos(target)
    await chaos.run(stop)
    return chaos.counts


def main() -> None:
    """Attack until SIGTERM, and print what was done."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    fields = json.loads(sys.argv[1])
    counts = asyncio.run(_attack(Target(**{**fields, "cold": tuple(fields["cold"])})))
    sys.stdout.write(json.dumps(counts))


def as_argument(target: Target) -> str:
    """Return the target in the format of the command line argument."""
    return json.dumps(asdict(target))


if __name__ == "__main__":
    main()
