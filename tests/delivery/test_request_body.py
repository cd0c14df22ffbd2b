"""Places for request bodies, and who has to give one up."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from app.core.errors import BadRequest, Busy, SlowClient
from app.core.thread_pool import ElasticThreadPool
from app.delivery import request_body as places_module
from app.delivery import request_body as reader_module
from app.delivery.request_body import Places, Reader, RequestBodyGuard, WatchedBody
from tests.waiting import wait_until

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection: the server's end and the client's."""
    server, client = socket.socketpair()
    with server, client:
        yield server, client


def _slow(connection: socket.socket, seconds: float) -> Reader:
    """A reader that has had nothing for so long."""
    reader = Reader(connection)
    reader._started -= seconds
    return reader


@pytest.mark.parametrize(
    ("seconds", "received", "pressed", "slow"),
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
def test_how_slow_is_too_slow(
    pair: tuple[socket.socket, socket.socket],
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
    received: int,
    pressed: bool,
    slow: bool,
) -> None:
    monkeypatch.setattr(reader_module, "time", SimpleNamespace(monotonic=lambda: 1000.0))
    reader = _slow(pair[0], seconds)
    reader.received(received)
    assert reader.is_slow(pressed=pressed) is slow
    reader.complete = True
    assert not reader.is_slow(pressed=pressed)


def _seconds_until_refused(places: Places) -> float:
    began = time.monotonic()
    with pytest.raises(Busy):
        places.enter(Reader(None))
    return time.monotonic() - began


def test_a_place_is_waited_for_two_seconds_if_none_comes_free() -> None:
    places = Places(2)
    places.enter(Reader(None))
    places.enter(Reader(None))
    assert _seconds_until_refused(places) > 1.9


def test_a_place_is_waited_for_longer_while_others_come_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places_module, "_STANDSTILL_SECONDS", 1.0)
    places, inside = Places(1), Reader(None)
    places.enter(inside)
    entered: list[float] = []
    began = time.monotonic()

    def pass_through() -> None:
        reader = Reader(None)
        places.enter(reader)
        entered.append(time.monotonic() - began)
        time.sleep(0.6)
        places.leave(reader)

    waiting = [threading.Thread(target=pass_through) for _ in range(4)]
    for thread in waiting:
        thread.start()
    time.sleep(0.3)
    places.leave(inside)
    for thread in waiting:
        thread.join(20)
    assert len(entered) == 4, "nobody was refused"
    assert max(entered) > 1.9


def test_no_more_wait_than_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places_module, "_MOST_WAITING", 1)
    monkeypatch.setattr(places_module, "_STANDSTILL_SECONDS", 100)
    places, first = Places(1), Reader(None)
    places.enter(first)
    waiting = threading.Thread(target=places.enter, args=(Reader(None),))
    waiting.start()
    wait_until(lambda: places._waiting)
    assert _seconds_until_refused(places) < 50
    places.leave(first)
    waiting.join(20)
    assert not waiting.is_alive()


def test_a_place_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places_module, "_STANDSTILL_SECONDS", 100)
    monkeypatch.setattr(places_module, "_PATIENCE_SECONDS", 0.3)
    places = Places(1)
    places.enter(Reader(None))
    assert 0.2 < _seconds_until_refused(places) < 50


def test_whoever_waits_or_reads_is_parked() -> None:
    """Other requests have all threads meanwhile."""
    pool, release = ElasticThreadPool(1), threading.Event()

    class Body:
        """One that is not there yet."""

        def read(self, size: int) -> bytes:
            assert release.wait(20)
            return b"abc"

    places = Places(1)
    bodies = [WatchedBody({"CONTENT_LENGTH": "3", "wsgi.input": Body()}, places) for _ in range(3)]

    def read(body: WatchedBody) -> bytes:
        try:
            return body.read()
        finally:
            body.leave()

    results = [pool.submit(read, body) for body in bodies]
    assert pool.submit(lambda: "quick").result(20) == "quick"
    assert not any(result.done() for result in results)
    release.set()
    assert [result.result(20) for result in results] == [b"abc"] * 3
    pool.shutdown()


def test_the_slowest_gives_way(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places_module, "_STANDSTILL_SECONDS", 50)
    monkeypatch.setattr(reader_module, "_GRACE", 100)  # after which either is given up
    places = Places(2)
    other, unused = socket.socketpair()
    with other, unused:
        slower, slow = _slow(pair[0], 8), _slow(other, 8)
        slow.received(1000)
        places.enter(slower)
        places.enter(slow)

        def serve() -> None:
            wait_until(lambda: slower.given_up)
            places.leave(slower)

        served = threading.Thread(target=serve)
        served.start()
        places.enter(Reader(None))
        served.join()
        assert (slower.given_up, slow.given_up) == (True, False)
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


def test_a_body_goes_through_whole() -> None:
    body = bytes(range(256)) * 1000
    connection = BytesIO(body + b"the next request")
    environ = {"CONTENT_LENGTH": str(len(body)), "wsgi.input": connection}
    assert _call(_echo, **environ) == (["200 OK"], [body])
    assert connection.read() == b"the next request"
    chunked = {"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input": BytesIO(body)}
    assert _call(_echo, **chunked) == (["200 OK"], [body])


def test_a_request_without_a_body_needs_no_place() -> None:
    stream = BytesIO()

    def application(environ: Any, _: Any) -> list[bytes]:
        assert environ["wsgi.input"] is stream
        return [b"answer"]

    assert _call(application, **{"wsgi.input": stream})[1] == [b"answer"]


def test_a_place_is_free_again_after_an_error() -> None:
    def failing(environ: Any, _: Any) -> list[bytes]:
        environ["wsgi.input"].read(1)
        raise KeyError

    intake = RequestBodyGuard(failing, 1)
    for _ in range(2):
        with pytest.raises(KeyError):
            _call(intake, CONTENT_LENGTH="3", **{"wsgi.input": BytesIO(b"abc")})


def test_what_nobody_reads_is_not_waited_for() -> None:
    def refusing(environ: Any, start_response: Any) -> list[bytes]:
        start_response("401 Unauthorized", [])
        return []

    body = BytesIO(b"x" * 1000)
    _call(refusing, CONTENT_LENGTH="1000", **{"wsgi.input": body})
    assert body.tell() == 0


def test_a_body_that_was_given_up_is_told(pair: tuple[socket.socket, socket.socket]) -> None:
    class Connected:
        """What gunicorn reads from."""

        def read(self, size: int) -> bytes:
            return pair[0].recv(size)

    environ = {"CONTENT_LENGTH": "10", "wsgi.input": Connected(), "gunicorn.socket": pair[0]}
    threading.Timer(0.2, socket.socket.shutdown, [pair[0], socket.SHUT_RD]).start()

    def reading(environ: Any, _: Any) -> list[bytes]:
        environ["wsgi.input"]._reader.given_up = True
        return [environ["wsgi.input"].read()]

    with pytest.raises(SlowClient):
        _call(reading, **environ)


@pytest.mark.parametrize(("sent", "refused"), [(b"abc", True), (b"abcde", False)])
def test_a_body_that_breaks_off_is_not_acted_on(sent: bytes, refused: bool) -> None:
    """The client closed its side, or was killed (RFC 9112, 6.3)."""
    body = WatchedBody({"CONTENT_LENGTH": "5", "wsgi.input": BytesIO(sent)}, Places(1))
    if not refused:
        assert body.read() == sent
        return
    with pytest.raises(BadRequest, match="ended before"):
        body.read()


def test_a_watch_that_can_not_be_started_is_started_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """With no thread to spare a request is refused, and takes no place."""
    places, left = Places(1), Reader(None)

    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        with pytest.raises(Busy):
            places.enter(left)
    before = set(threading.enumerate())
    places.enter(left)
    assert [thread.name for thread in set(threading.enumerate()) - before] == ["intake"]
    places.leave(left)
