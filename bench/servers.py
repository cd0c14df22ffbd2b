"""Servers to measure. A server is started on a free port, and stopped at the end of a block."""

import http.client
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.processes import ROOT, running

_START_SECONDS = 20.0
"""How long a server may take until it responds."""


@dataclass(frozen=True)
class Start:
    """How to start a server on a known port."""

    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path = ROOT


@dataclass(frozen=True)
class Server:
    """A running server. Its URL paths start with `prefix`. It took `startup` seconds to start."""

    name: str
    pid: int
    port: int
    prefix: str = "/"
    startup: float = 0.0


@dataclass(frozen=True)
class Response:
    """A complete HTTP response. Header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


@contextmanager
def serving(
    name: str, start: Callable[[int], Start], log: Path, *, prefix: str = "/", ready: str = "/"
) -> Iterator[Server]:
    """Start a server, and yield it when it is ready.

    It is ready when it answers a request for `ready` with 200 or, if `ready` is `/`, with any status.
    """
    port = free_port()
    how = start(port)
    began = time.monotonic()
    with running(how.command, log, env=how.env, cwd=how.cwd) as process:
        while True:
            try:
                if get(port, ready, timeout=_START_SECONDS).status == 200 or ready == "/":
                    break
            except OSError:
                pass
            if process.poll() is not None or time.monotonic() - began > _START_SECONDS:
                raise RuntimeError(f"{name} does not respond: {log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.005)
        yield Server(name, process.pid, port, prefix, time.monotonic() - began)


def get(port: int, path: str, headers: Mapping[str, str] | None = None, *, timeout: float = 30.0) -> Response:
    """Send a GET over a new connection, and return the response. Raises `OSError` if there is none."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", path, headers=dict(headers or {}))
        response = connection.getresponse()
        names = {name.lower(): value for name, value in response.getheaders()}
        return Response(response.status, names, response.read())
    except http.client.HTTPException as exc:
        raise OSError(str(exc)) from exc
    finally:
        connection.close()


def free_port() -> int:
    """Return a port of 127.0.0.1 on which no program listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
