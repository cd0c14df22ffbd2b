"""A server under measurement: started on a free port, asked until it answers, ended with the block."""

import http.client
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.processes import ROOT, running

_PATIENCE = 20.0
"""Seconds that a server has to answer for the first time."""


@dataclass(frozen=True)
class Start:
    """How a server is started, once its port is known."""

    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path = ROOT


@dataclass(frozen=True)
class Server:
    """A server that runs: its name, its process, its port, and what its URLs' paths begin with."""

    name: str
    pid: int
    port: int
    prefix: str = "/"
    startup: float = 0.0


@dataclass(frozen=True)
class Answer:
    """An HTTP answer, read to its end; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


@contextmanager
def serving(
    name: str, start: Callable[[int], Start], log: Path, *, prefix: str = "/", ready: str = "/"
) -> Iterator[Server]:
    """The server, from the moment when it answers `ready` with 200 (or, for `/`, with anything)."""
    port = free_port()
    how = start(port)
    began = time.monotonic()
    with running(how.command, log, env=how.env, cwd=how.cwd) as process:
        while True:
            try:
                if get(port, ready, timeout=_PATIENCE).status == 200 or ready == "/":
                    break
            except OSError:
                pass
            if process.poll() is not None or time.monotonic() - began > _PATIENCE:
                raise RuntimeError(f"{name} does not answer: {log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.005)
        yield Server(name, process.pid, port, prefix, time.monotonic() - began)


def get(port: int, path: str, headers: Mapping[str, str] | None = None, *, timeout: float = 30.0) -> Answer:
    """One GET over a connection of its own. Raises `OSError` where nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", path, headers=dict(headers or {}))
        response = connection.getresponse()
        names = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, names, response.read())
    except http.client.HTTPException as exc:
        raise OSError(str(exc)) from exc
    finally:
        connection.close()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
