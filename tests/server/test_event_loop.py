"""Tests of the event loop with random clients, which do anything in any order."""

import contextlib
import io
import logging
import os
import random
import select
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.config import Config
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from app.cache.lookup import CachedObject
from app.core import request_context as requestid
from app.core.threads import ElasticThreadPool
from app.delivery.fast_path import LoopHooks
from app.server import event_loop
from app.server.connections import TRANSITIONS, Connection, ConnectionTable, Event, State
from app.server.event_loop import EventLoop
from app.server.exchanges import Exchanges
from tests.waiting import wait_until

CAPACITY = 6
BIG = 6 * 1024 * 1024
"""Bytes. More than both sockets buffer if the client does not read."""

WATCHED = {
    State.HEAD: select.EPOLLIN,
    State.WORKING: 0,
    State.SENDING: select.EPOLLOUT,
    State.LINGERING: select.EPOLLIN,
}

REQUESTS = {
    "hit": b"GET /hit HTTP/1.1\r\nHost: x\r\n\r\n",
    "quick": b"HEAD /quick HTTP/1.1\r\nHost: x\r\n\r\n",
    "thread": b"GET /thread?x HTTP/1.1\r\nHost: x\r\n\r\n",
    "big": b"GET /big?x HTTP/1.1\r\nHost: x\r\n\r\n",
    "stream": b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n",
    "fails": b"GET /fails HTTP/1.1\r\nHost: x\r\n\r\n",
    "close": b"GET /hit HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "body": b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
    "unsent body": b"GET /thread HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n",
    "unsent chunks": b"OPTIONS /thread HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
    "pipelined": b"GET /hit HTTP/1.1\r\nHost: x\r\n\r\nGET /thread HTTP/1.1\r\nHost: x\r\n\r\nGET /q",
    "no host": b"GET /hit HTTP/1.1\r\n\r\n",
    "nonsense": b"\x16\x03\x01\r\n\r\n",
    "bare": b"GET /\n\n",
    "long": b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000,
}


class _Application:
    """An application. The loop calls `answer` for a hit, and the application for `/quick`."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.extensions: dict[str, Any] = {}

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/fails":
            raise KeyError("the application's fault")
        if path == "/body":
            environ["wsgi.input"].read()
        if path == "/stream":
            start_response("200 OK", [])
            return (b"x" * 1000 for _ in range(10))
        if path == "/big":
            return self._send_file(environ, start_response)
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]

    def answer(self, environ: Any, start_response: Any, found: CachedObject) -> Iterable[bytes]:
        found.body.close()
        return self._send_file(environ, start_response)

    def _send_file(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Length", str(BIG))])
        return environ["wsgi.file_wrapper"](self._file.open("rb", buffering=0))  # type: ignore[no-any-return]


class Clients(RuleBasedStateMachine):
    """Clients of a loop. The test sets the clock of the loop."""

    def __init__(self) -> None:
        super().__init__()
        self._patch = pytest.MonkeyPatch()
        # Threads create request IDs while Hypothesis draws, but Hypothesis rejects changes to `random`.
        self._patch.setattr(requestid, "random", random.Random(1))
        self._directory = tempfile.TemporaryDirectory()
        file = Path(self._directory.name) / "big"
        with file.open("wb") as handle:
            handle.truncate(BIG)
        self.descriptors = len(list(Path("/proc/self/fd").iterdir()))
        self.now = 1000.0
        self.faults: list[str] = []
        self.clients: list[socket.socket] = []
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.wake = os.pipe()
        for end in self.wake:
            os.set_blocking(end, False)
        application = _Application(file)
        self.hooks = LoopHooks(
            find=self._find, answer=application.answer, quick=frozenset({"/quick"}), count_dropped=self._note
        )
        log: Any = SimpleNamespace(
            exception=self.faults.append,
            log=lambda *args, **kwargs: None,
            access=lambda *args: None,
            refused=lambda *args: None,
        )
        self.pool = ElasticThreadPool(2)
        cfg = Config()
        self.loop = EventLoop(
            [self.listener],
            Exchanges(application, cfg, log, self.hooks, lambda: True),
            self.pool,
            self.hooks,
            log,
            capacity=CAPACITY,
            keepalive=75,
            wake_pipe=self.wake,
            clock=lambda: self.now,
        )

    def _find(self, path: str, accept: Callable[[], str]) -> CachedObject | None:
        found: Any = SimpleNamespace(body=io.BytesIO())
        return found if path == "/hit" else None

    def _note(self, reason: str) -> None:
        if reason == "failed":
            self.faults.append(reason)

    @initialize()
    def begin(self) -> None:
        """Begin with one client."""
        self.open_one()

    @rule()
    def open_one(self) -> None:
        """A client with a small receive buffer connects."""
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(self.listener.getsockname())
        client.setblocking(False)
        self.clients.append(client)

    @rule(data=st.data(), request=st.sampled_from(sorted(REQUESTS)))
    def send(self, data: st.DataObject, request: str) -> None:
        """A client sends a request or a part of a request."""
        whole = REQUESTS[request]
        part = whole if data.draw(st.booleans()) else whole[: data.draw(st.integers(1, len(whole)))]
        with contextlib.suppress(OSError):
            self._one(data).send(part)

    @rule(data=st.data(), count=st.sampled_from([1, 4096, 1 << 20]))
    def receive(self, data: st.DataObject, count: int) -> None:
        """A client reads something."""
        with contextlib.suppress(OSError):
            self._one(data).recv(count)

    @precondition(lambda self: self.clients)
    @rule(data=st.data(), how=st.sampled_from(["close", "reset", "half"]))
    def leave(self, data: st.DataObject, how: str) -> None:
        """A client disconnects, or closes its sending half."""
        client = self._one(data)
        with contextlib.suppress(OSError):
            if how == "half":
                client.shutdown(socket.SHUT_WR)
            if how == "reset":
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if how != "half":
            client.close()
            self.clients.remove(client)

    @rule(seconds=st.sampled_from([0.01, 0.5, 1.5, 3.0, 25.0, 80.0]))
    def pass_time(self, seconds: float) -> None:
        """Time passes before the next iteration of the loop."""
        self.now += seconds
        self._turn()

    @rule()
    def turn(self) -> None:
        """The loop runs once."""
        self._turn()

    @invariant()
    def connections_are_as_the_table_says(self) -> None:
        """Each connection is watched for the events of its state, and there are at most `CAPACITY`."""
        held = list(self.loop._table)
        assert len(held) <= CAPACITY
        for conn in held:
            assert conn.state is not State.CLOSED
            assert conn.mask == _selected(WATCHED[conn.state])
            assert (conn.deadline > 0) == (conn.state is not State.WORKING)
        assert self.loop._table.working == sum(conn.state is State.WORKING for conn in held)
        assert self.faults == []

    def teardown(self) -> None:
        """Stop the loop. No connection and no descriptor may stay open."""
        for client in self.clients:
            client.close()
        self.loop.stop()
        began = time.monotonic()
        while len(self.loop) and time.monotonic() - began < 20:
            self.now += 10
            self._turn()
            time.sleep(0.001)
        assert len(self.loop) == 0
        self.loop.close()
        self.pool.shutdown()
        for end in self.wake:
            os.close(end)
        assert self.faults == []
        assert len(list(Path("/proc/self/fd").iterdir())) <= self.descriptors
        self._directory.cleanup()
        self._patch.undo()

    def _turn(self) -> None:
        os.write(self.wake[1], b".")
        self.loop.run_once()

    def _one(self, data: st.DataObject) -> socket.socket:
        if not self.clients:
            self.open_one()
        return self.clients[data.draw(st.integers(0, 99)) % len(self.clients)]


def _selected(mask: int) -> int:
    return (mask & select.EPOLLIN) | (2 if mask & select.EPOLLOUT else 0)


TestClients = pytest.mark.skipif(
    not hasattr(select, "epoll"), reason="descriptors are counted in Linux' /proc"
)(Clients.TestCase)
TestClients.settings = settings(max_examples=100, stateful_step_count=60)


def test_every_transition_has_a_handler_and_there_are_no_others() -> None:
    listed = {(state, event) for state, row in TRANSITIONS.items() for event in row}
    assert listed == set(event_loop._HANDLERS)
    assert set(TRANSITIONS) == set(State)
    for state in State:
        for event in Event:
            step = event_loop._STEPS[state][event]
            assert (step[1] if step else None) == TRANSITIONS[state].get(event)


def test_a_failing_connection_is_closed_and_counted_and_the_loop_continues() -> None:
    """In this test, the lookup of a hit raises an exception."""
    logged: list[str] = []
    dropped: list[str] = []

    def find(path: str, accept: Callable[[], str]) -> CachedObject | None:
        if path == "/breaks":
            raise MemoryError
        return None

    log: Any = SimpleNamespace(
        exception=logged.append, access=lambda *args: None, refused=print, log=logging.getLogger("x").log
    )
    hooks = LoopHooks(find=find, count_dropped=dropped.append)
    wake = os.pipe()
    for end in wake:
        os.set_blocking(end, False)
    pool = ElasticThreadPool(1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        exchanges = Exchanges(_Application(Path("unused")), Config(), log, hooks, lambda: True)
        loop = EventLoop([listener], exchanges, pool, hooks, log, capacity=10, keepalive=75, wake_pipe=wake)
        stop = threading.Event()

        def work() -> None:
            while not stop.is_set():
                os.write(wake[1], b".")
                loop.run_once()

        thread = threading.Thread(target=work)
        thread.start()
        try:
            for path, answer in (("/breaks", b""), ("/thread", b"HTTP/1.1 200 OK"), ("/breaks", b"")):
                with socket.create_connection(listener.getsockname(), timeout=20) as client:
                    client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                    assert client.recv(15) == answer
            wait_until(lambda: loop._table.working == 0)
        finally:
            stop.set()
            thread.join()
            loop.stop()
            loop.close()
            pool.shutdown()
    for end in wake:
        os.close(end)
    assert (len(logged), dropped) == (2, ["failed", "failed"])


def test_before_rates_are_measured_the_oldest_reader_is_not_evicted_first() -> None:
    """Many connections can be opened in the second before the rates are measured."""
    table = ConnectionTable(4, 0.0)
    with ExitStack() as stack:
        for number, sent in enumerate((300_000, 4096, 0, 4096)):
            ours, _theirs = map(stack.enter_context, socket.socketpair())
            conn = Connection(ours, ("127.0.0.1", number), ("127.0.0.1", 2), number / 10)
            exchange: Any = SimpleNamespace(sender=SimpleNamespace(sent=sent))
            conn.exchange, conn.state = exchange, State.SENDING
            table.add(conn)
        dropped = []
        while len(table) > 1:
            worst = table.next_to_evict(0.5)
            assert worst is not None
            dropped.append(worst.client[1])
            worst.state = State.CLOSED
            table.remove(worst)
    assert dropped == [1, 2, 3]


def test_the_last_response_on_a_connection_occupies_no_thread(tmp_path: Path) -> None:
    """Slow readers also exist in a worker that is stopping or that does not keep connections alive."""
    file = tmp_path / "big"
    file.touch()
    os.truncate(file, BIG)
    log: Any = SimpleNamespace(access=lambda *args: None)
    exchanges = Exchanges(_Application(file), Config(), log, LoopHooks(), lambda: False)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        conn = Connection(ours, ("127.0.0.1", 1), ("127.0.0.1", 2), 0.0)
        conn.head += REQUESTS["big"]
        thread = threading.Thread(target=exchanges.serve, args=(conn,), daemon=True)
        thread.start()
        thread.join(10)
        assert not thread.is_alive()
        assert conn.exchange is not None
        assert conn.exchange.sender is not None
        assert 0 < conn.exchange.sender.sent < BIG
        conn.close()


def test_a_response_body_that_raises_is_closed() -> None:
    closed: list[bool] = []

    class Body:
        def __iter__(self) -> Iterator[bytes]:
            raise KeyError("the application's fault")

        def close(self) -> None:
            closed.append(True)

    def application(environ: Any, start_response: Any) -> Body:
        start_response("200 OK", [("Content-Length", "2")])
        return Body()

    log: Any = SimpleNamespace(log=lambda *args, **kwargs: None, refused=lambda *args: None)
    exchanges = Exchanges(application, Config(), log, LoopHooks(), lambda: True)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        conn = Connection(ours, ("127.0.0.1", 1), ("127.0.0.1", 2), 0.0)
        conn.head += REQUESTS["thread"]
        assert not exchanges.serve(conn)
        assert theirs.recv(12) == b"HTTP/1.1 500"
    assert closed == [True]


def test_stale_events_of_a_batch_are_skipped() -> None:
    """One event closes the connection of a later event in the same batch."""
    assert all(event_loop._STEPS[State.CLOSED][event] is None for event in Event)
    loop: Any = EventLoop.__new__(EventLoop)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        conn = Connection(ours, ("127.0.0.1", 1), ("127.0.0.1", 2), 0.0)
        conn.state = State.CLOSED
        loop._dispatch(conn, Event.READABLE)
        loop._dispatch(conn, Event.EVICTED)
