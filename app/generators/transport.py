"""HTTP to a model, under the generation's deadline and with a bound on what comes back.

The timeouts of boto3's and OpenAI's own HTTP clients hold for each read: a server that sends a byte now and
then keeps them busy for ever, and both read an answer whole, however large. So both send through here.

How often a model is asked, and until when: one wall-clock deadline over all tries of a generation.

A client for each process: made at its first use, after any fork, and shared by the threads.
"""

import logging
import os
import re
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Generic, TypeAlias, TypeVar
from urllib.parse import quote, unquote, urljoin, urlsplit, urlunsplit

import httpcore2
from httpcore2 import ConnectionPool, NetworkBackend, NetworkStream, Proxy, SyncBackend
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    stop_before_delay,
    wait_exponential_jitter,
)

from app.core.addresses import proxy_for
from app.core.errors import GeneratorError, GeneratorTimeout, GeneratorUnreachable

T = TypeVar("T")

MAX_TRIES = 3
"""Every try may be billed, also one whose answer never arrives."""

_MAX_WAIT = 3600
_backoff = wait_exponential_jitter(multiplier=0.5, jitter=0.5, max=10)
_deadline: ContextVar[float] = ContextVar("deadline")
_log = logging.getLogger(__name__)


def within_deadline(seconds: float, one_try: Callable[[], T]) -> T:
    """What `one_try` gives, asked again where it raises `GeneratorUnreachable` and time and tries are left.

    Inside, `seconds_left` tells the time left. Raises what the last try raised.
    """
    token = _deadline.set(time.monotonic() + seconds)
    try:
        return repeated(one_try)
    finally:
        _deadline.reset(token)


def repeated(one_try: Callable[[], T]) -> T:
    """What `one_try` gives, asked again as `within_deadline` does, whose deadline runs already."""
    return Retrying(
        stop=stop_after_attempt(MAX_TRIES) | stop_before_delay(seconds_left()),
        wait=_pause,
        retry=retry_if_exception_type(GeneratorUnreachable),
        before_sleep=_say,
        reraise=True,
    )(one_try)


def seconds_left() -> float:
    """Seconds until the deadline of this thread's generation; raises `GeneratorTimeout` past it."""
    left = _deadline.get() - time.monotonic()
    if left <= 0:
        raise GeneratorTimeout(detail="the deadline has passed")
    return left


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds in `Retry-After` (RFC 9110, 10.2.3), whether given as such or as a date, if it is there."""
    value = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", value, re.ASCII):
        return min(float(value), _MAX_WAIT)
    try:
        then = parsedate_to_datetime(value)
    except ValueError:
        return None
    now = datetime.now(UTC if then.tzinfo else None)
    return min(max((then - now).total_seconds(), 0.0), _MAX_WAIT)


def _failure(state: RetryCallState) -> GeneratorUnreachable | None:
    exc = state.outcome.exception() if state.outcome else None
    return exc if isinstance(exc, GeneratorUnreachable) else None


def _pause(state: RetryCallState) -> float:
    """What the provider asks for, or longer after each try; with jitter, so that clients spread out."""
    failure = _failure(state)
    if failure is None or failure.wait is None:
        return _backoff(state)
    return failure.wait + _backoff(state) / 10


def _say(state: RetryCallState) -> None:
    _log.info("Try %d of %d failed: %s", state.attempt_number, MAX_TRIES, _failure(state))


class PerProcess(Generic[T]):
    """Call it for the process's own `make()`."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._made: tuple[int, T] | None = None

    def __call__(self) -> T:
        """The one of this process."""
        with self._lock:
            if self._made is None or self._made[0] != os.getpid():
                self._made = (os.getpid(), self._make())
            return self._made[1]


MAX_ANSWER_BYTES = 32 * 1024**2
"""Base64 of 24 MiB: more than a PNG of 2048 × 2048 pixels takes."""

_CONNECT_SECONDS = 10
_PIECE_BYTES = 64 * 1024
_GZIP = ("gzip", "x-gzip", "deflate")
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
_OF_THE_SENDING = {b"content-encoding", b"content-length", b"transfer-encoding"}

_PORTS = {"http": 80, "https": 443}
_ITSELF = ("localhost", "127.0.0.1", "::1", "0.0.0.0")
"""What servers call themselves in URLs if nobody told them their name."""

_ALLOWED_IN_URLS = "/?%:@!$&'()*+,;=~"

Headers: TypeAlias = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP response, read to its end and unpacked."""

    status: int
    headers: Headers
    body: bytes


def same_server(base: str, url: str) -> str | None:
    """Return the address of `url`, which may be relative to `base`, or None if it is on another server.

    The result has the scheme, host and port of `base` itself, so a URL of this very machine is taken to mean
    that server. An http URL counts as the same server's if that is known by https: behind a proxy that ends
    TLS, servers often don't know their own scheme.
    """
    try:
        asked, known = urlsplit(urljoin(base, url)), urlsplit(base)
        ports = [parts.port or _PORTS[parts.scheme] for parts in (asked, known)]
        path, query = (quote(text, safe=_ALLOWED_IN_URLS) for text in (asked.path or "/", asked.query))
    except (ValueError, KeyError):
        return None
    is_upgraded = (asked.scheme, known.scheme) == ("http", "https") and ports == [80, 443]
    is_same = asked.scheme == known.scheme and ports[0] == ports[1]
    if asked.hostname not in (known.hostname, *_ITSELF) or not (is_same or is_upgraded):
        return None
    return urlunsplit((known.scheme, known.netloc.rpartition("@")[2], path, query, ""))


class Wire:
    """Sends requests of any thread, each over a connection of its own.

    A drawing takes seconds, a new connection milliseconds: none is kept that a server may have dropped
    meanwhile, or that a fork would share. `HTTPS_PROXY`, `NO_PROXY` and `SSL_CERT_FILE` are honoured.
    """

    def __init__(self) -> None:
        self._tls = httpcore2.default_ssl_context()

    def send(self, method: str, url: str, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> Answer:
        """The answer to one request; redirects are answers, too.

        Raises `GeneratorTimeout` at the deadline, `GeneratorUnreachable` if the connection fails, and
        `GeneratorError` for answers that are too large, compressed in another way than gzip's, or not HTTP.
        """
        with _errors_mapped(), self._pool(url) as pool:
            timeouts = {"timeout": {"pool": seconds_left()}}
            with pool.stream(
                method, url, headers=list(headers), content=body, extensions=timeouts
            ) as response:
                return Answer(response.status, _about_the_content(response.headers), _read(response))

    def _pool(self, url: str) -> ConnectionPool:
        return ConnectionPool(
            ssl_context=self._tls, proxy=_proxy_for(url), max_connections=1, network_backend=_Backend()
        )


def _about_the_content(headers: Headers) -> Headers:
    """Leave out what is said of the body as it was sent."""
    return [(name, value) for name, value in headers if name.lower() not in _OF_THE_SENDING]


def _read(response: httpcore2.Response) -> bytes:
    """Return the body, which is bounded after it is unpacked: a few bytes can unfold into any number."""
    pieces = response.iter_stream()
    encodings = _encodings(response)
    if encodings:
        if len(encodings) > 1 or encodings[0] not in _GZIP:
            raise GeneratorError(detail=f"the answer is compressed as {', '.join(encodings)[:100]}")
        pieces = _unpacked(pieces)
    body = bytearray()
    for piece in pieces:
        body += piece
        if len(body) > MAX_ANSWER_BYTES:
            raise GeneratorError(detail=f"the answer is larger than {MAX_ANSWER_BYTES} bytes")
    return bytes(body)


def _encodings(response: httpcore2.Response) -> list[str]:
    """Return the content codings (RFC 9110, 8.4). None was asked for, but the answer is paid for."""
    values = [value for name, value in response.headers if name.lower() == b"content-encoding"]
    names = b",".join(values).decode("latin-1").lower().split(",")
    return [name.strip() for name in names if name.strip() not in ("", "identity")]


def _unpacked(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield what `pieces`, in gzip's or zlib's format, unfold into, a little at a time."""
    unpacker = zlib.decompressobj(_GZIP_OR_ZLIB)
    try:
        for piece in pieces:
            packed = piece
            while packed and not unpacker.eof:
                yield unpacker.decompress(packed, _PIECE_BYTES)
                packed = unpacker.unconsumed_tail
        yield unpacker.flush()
    except zlib.error as exc:
        raise GeneratorError(detail=f"the answer can't be unpacked: {exc}") from exc
    if not unpacker.eof:
        raise GeneratorError(detail="the compressed answer is not complete")


@contextmanager
def _errors_mapped() -> Any:
    try:
        yield
    except httpcore2.ConnectTimeout as exc:
        seconds_left()
        raise GeneratorUnreachable(detail=f"no connection within {_CONNECT_SECONDS} s") from exc
    except httpcore2.TimeoutException as exc:
        raise GeneratorTimeout(detail=f"{type(exc).__name__} at the deadline") from exc
    except (httpcore2.NetworkError, httpcore2.RemoteProtocolError, httpcore2.ProxyError) as exc:
        raise GeneratorUnreachable(detail=f"{type(exc).__name__}: {exc}") from exc
    except (httpcore2.LocalProtocolError, httpcore2.UnsupportedProtocol) as exc:
        # Its text quotes the header that can't be sent, which may be the key.
        raise GeneratorError(detail=f"{type(exc).__name__}: the request can't be sent") from exc


def _proxy_for(url: str) -> Proxy | None:
    found = proxy_for(url)
    if found is None:
        return None
    parts = urlsplit(found)
    auth = (unquote(parts.username), unquote(parts.password or "")) if parts.username else None
    host = parts.netloc.rpartition("@")[2]
    return Proxy(f"{parts.scheme}://{host}", auth=auth)


class _Stream(NetworkStream):
    """A connection that waits until the deadline at most, whatever the caller's timeout says."""

    def __init__(self, stream: NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, seconds_left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """In pieces: a timeout holds for each of them."""
        for start in range(0, len(buffer), _PIECE_BYTES):
            self._stream.write(buffer[start : start + _PIECE_BYTES], seconds_left())

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> NetworkStream:
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, seconds_left()))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _Backend(NetworkBackend):
    """Opens such connections."""

    def __init__(self) -> None:
        self._backend = SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> NetworkStream:
        patience = min(seconds_left(), _CONNECT_SECONDS)
        return _Stream(self._backend.connect_tcp(host, port, patience, local_address, socket_options))
