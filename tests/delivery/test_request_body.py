"""Request bodies: slots, waiting for one, and dropping clients that send too slowly."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from app.core.errors import BadRequest, Busy, SlowClient
from app.core.threads import ElasticThreadPool
from app.delivery import request_body
from app.delivery.request_body import BodySlots, GuardedBody, RequestBodyGuard, Transfer
from tests.waiting import wait_until

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Return the two ends of a connection: the server's and the client's."""
    server, client = socket.socketpair()
    with server, client:
        yield server, client


def _slow(connection: socket.socket, seconds: float) -> Transfer:
    """Return a transfer that began `seconds` ago and has received nothing."""
    transfer = Transfer(connection)
    transfer._began -= seconds
    return transfer


@pytest.mark.parametrize(
    ("seconds", "received", "contended", "slow"),
    [
        (0.2, 0, True, False),
        (5, 0, False, False),
        (5, 0, True, True),
        (5, 200_000, True, False),
        (60, 200_000, False, True),
        (60, 500_000, False, False),
        (60, 500_000, True, True),
    ],
)
def test_a_client_is_too_slow_below_the_minimum_rate_after_the_grace_period(
    pair: tuple[socket.socket, socket.socket],
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
    received: int,
    contended: bool,
    slow: bool,
) -> None:
    # Threads of other tests that watch their slots still need `sleep`.
    monkeypatch.setattr(request_body, "time", SimpleNamespace(monotonic=lambda: 1000.0, sleep=time.sleep))
    transfer = _slow(pair[0], seconds)
    transfer.received = received
    assert transfer.is_too_slow(contended=contended) is slow
    transfer.complete = True
    assert not transfer.is_too_slow(contended=contended)


def _seconds_until_refused(slots: BodySlots) -> float:
    began = time.monotonic()
    with pytest.raises(Busy):
        slots.acquire(Transfer(None))
    return time.monotonic() - began


def test_a_request_is_refused_when_no_slot_becomes_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_body, "_MAX_STANDSTILL_SECONDS", 0.4)
    slots = BodySlots(2)
    slots.acquire(Transfer(None))
    slots.acquire(Transfer(None))
    assert _seconds_until_refused(slots) > 0.3


def test_a_request_waits_longer_while_slots_become_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_body, "_MAX_STANDSTILL_SECONDS", 1.0)
    slots, inside = BodySlots(1), Transfer(None)
    slots.acquire(inside)
    entered: list[float] = []
    began = time.monotonic()

    def pass_through() -> None:
        transfer = Transfer(None)
        slots.acquire(transfer)
        entered.append(time.monotonic() - began)
        time.sleep(0.6)
        slots.release(transfer)

    waiting = [threading.Thread(target=pass_through) for _ in range(4)]
    for thread in waiting:
        thread.start()
    time.sleep(0.3)
    slots.release(inside)
    for thread in waiting:
        thread.join(20)
    assert len(entered) == 4, "a request was refused"
    assert max(entered) > 1.9


def test_the_number_of_waiting_requests_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_body, "_MAX_WAITING", 1)
    monkeypatch.setattr(request_body, "_MAX_STANDSTILL_SECONDS", 100)
    slots, first = BodySlots(1), Transfer(None)
    slots.acquire(first)
    waiting = threading.Thread(target=slots.acquire, args=(Transfer(None),))
    waiting.start()
    wait_until(lambda: slots._waiting)
    assert _seconds_until_refused(slots) < 50
    slots.release(first)
    waiting.join(20)
    assert not waiting.is_alive()


def test_waiting_for_a_slot_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_body, "_MAX_STANDSTILL_SECONDS", 100)
    monkeypatch.setattr(request_body, "_MAX_WAIT_SECONDS", 0.3)
    slots = BodySlots(1)
    slots.acquire(Transfer(None))
    assert 0.2 < _seconds_until_refused(slots) < 50


def test_requests_that_wait_or_read_do_not_count_as_running_threads() -> None:
    """Other requests have all threads of the pool meanwhile."""
    pool, release = ElasticThreadPool(1), threading.Event()

    class Body:
        """A body that has not arrived yet."""

        def read(self, size: int) -> bytes:
            assert release.wait(20)
            return b"abc"

    slots = BodySlots(1)
    bodies = [GuardedBody({"CONTENT_LENGTH": "3", "wsgi.input": Body()}, slots) for _ in range(3)]

    def read(body: GuardedBody) -> bytes:
        try:
            return body.read()
        finally:
            body.release()

    results = [pool.submit(read, body) for body in bodies]
    assert pool.submit(lambda: "quick").result(20) == "quick"
    assert not any(result.done() for result in results)
    release.set()
    assert [result.result(20) for result in results] == [b"abc"] * 3
    pool.shutdown()


def test_the_slowest_client_is_dropped_for_a_waiting_request(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_body, "_MAX_STANDSTILL_SECONDS", 50)
    monkeypatch.setattr(request_body, "_GRACE_SECONDS", 100)  # after which both would be aborted
    slots = BodySlots(2)
    other, unused = socket.socketpair()
    with other, unused:
        slower, slow = _slow(pair[0], 8), _slow(other, 8)
        slow.received = 1000
        slots.acquire(slower)
        slots.acquire(slow)

        def serve() -> None:
            wait_until(lambda: slower.aborted)
            slots.release(slower)

        served = threading.Thread(target=serve)
        served.start()
        slots.acquire(Transfer(None))
        served.join()
        assert (slower.aborted, slow.aborted) == (True, False)
        assert pair[0].recv(1) == b""
        pair[0].sendall(b"an answer")
        assert pair[1].recv(20) == b"an answer"


def _call(application: "WSGIApplication", **environ: Any) -> tuple[list[str], Any]:
    started: list[str] = []

    def start(
        status: str, headers: list[tuple[str, str]], exc_info: Any = None, /
    ) -> Callable[[bytes], object]:
        started.append(status)
        return lambda data: None

    return started, RequestBodyGuard(application, 1)({"REQUEST_METHOD": "POST", **environ}, start)


def _echo(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    return [environ["wsgi.input"].read()]


def test_the_application_reads_the_whole_body_and_no_more() -> None:
    body = bytes(range(256)) * 1000
    connection = BytesIO(body + b"the next request")
    environ = {"CONTENT_LENGTH": str(len(body)), "wsgi.input": connection}
    assert _call(_echo, **environ) == (["200 OK"], [body])
    assert connection.read() == b"the next request"
    chunked = {"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input": BytesIO(body)}
    assert _call(_echo, **chunked) == (["200 OK"], [body])


def test_a_request_without_a_body_takes_no_slot() -> None:
    stream = BytesIO()

    def application(environ: Any, _: Any) -> list[bytes]:
        assert environ["wsgi.input"] is stream
        return [b"answer"]

    assert _call(application, **{"wsgi.input": stream})[1] == [b"answer"]


def test_an_error_in_the_application_releases_the_slot() -> None:
    def failing(environ: Any, _: Any) -> list[bytes]:
        environ["wsgi.input"].read(1)
        raise KeyError

    guard = RequestBodyGuard(failing, 1)
    for _ in range(2):
        with pytest.raises(KeyError):
            _call(guard, CONTENT_LENGTH="3", **{"wsgi.input": BytesIO(b"abc")})


def test_a_body_that_the_application_does_not_read_is_not_read() -> None:
    def refusing(environ: Any, start_response: Any) -> list[bytes]:
        start_response("401 Unauthorized", [])
        return []

    body = BytesIO(b"x" * 1000)
    _call(refusing, CONTENT_LENGTH="1000", **{"wsgi.input": body})
    assert body.tell() == 0


def test_reading_an_aborted_body_raises_slow_client(pair: tuple[socket.socket, socket.socket]) -> None:
    class Connected:
        """A body that is read from the connection, as gunicorn's is."""

        def read(self, size: int) -> bytes:
            return pair[0].recv(size)

    environ = {"CONTENT_LENGTH": "10", "wsgi.input": Connected(), "gunicorn.socket": pair[0]}
    threading.Timer(0.2, socket.socket.shutdown, [pair[0], socket.SHUT_RD]).start()

    def reading(environ: Any, _: Any) -> list[bytes]:
        environ["wsgi.input"]._transfer.aborted = True
        return [environ["wsgi.input"].read()]

    with pytest.raises(SlowClient):
        _call(reading, **environ)


@pytest.mark.parametrize(("sent", "refused"), [(b"abc", True), (b"abcde", False)])
def test_a_body_that_ends_early_raises_bad_request(sent: bytes, refused: bool) -> None:
    """The client has closed its side, or was killed (RFC 9112, 6.3)."""
    body = GuardedBody({"CONTENT_LENGTH": "5", "wsgi.input": BytesIO(sent)}, BodySlots(1))
    if not refused:
        assert body.read() == sent
        return
    with pytest.raises(BadRequest, match="is incomplete"):
        body.read()


def test_a_watching_thread_that_fails_to_start_is_started_by_the_next_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without it, the request is refused and takes no slot."""
    slots, left = BodySlots(1), Transfer(None)

    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        with pytest.raises(Busy):
            slots.acquire(left)
    before = set(threading.enumerate())
    slots.acquire(left)
    assert [thread.name for thread in set(threading.enumerate()) - before] == ["request-bodies"]
    slots.release(left)
