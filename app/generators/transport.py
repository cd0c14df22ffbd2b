"""HTTP requests to image models, with one deadline, a few attempts, and a maximum response size.

The timeouts of boto3 and other HTTP clients apply to each read, so a server that sends a byte now and then
can keep them waiting forever. These clients also read responses of any size. Therefore, the generators send
their requests through `Transport`. `deadline(seconds)` limits the total time of everything in its block:
attempts, the pauses between them, and every wait on a socket.
"""

import logging
import random
import re
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import httpcore2
from httpcore2 import ConnectionPool, NetworkBackend, NetworkStream, Proxy, SyncBackend

from app.core.addresses import proxy_for
from app.core.errors import GeneratorError, GeneratorTimeout, GeneratorUnreachable

T = TypeVar("T")

MAX_ATTEMPTS = 3
"""Maximum number of attempts per request. Each attempt may be billed, even if its response never arrives."""

MAX_RESPONSE_BYTES = 32 * 1024**2
"""Maximum size of a response. A base64 response of this size contains an image file of 24 MiB, which is more
than a PNG of 2048 × 2048 pixels needs."""

_FIRST_PAUSE_SECONDS = 0.5
_MAX_RETRY_AFTER_SECONDS = 3600
_CONNECT_TIMEOUT_SECONDS = 10
_CHUNK_BYTES = 64 * 1024
_CODINGS = ("gzip", "x-gzip", "deflate")
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS

_deadline: ContextVar[float] = ContextVar("deadline")
_log = logging.getLogger(__name__)


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Set a deadline for `retry`, `seconds_left` and `Transport.send`, in this block and this thread."""
    token = _deadline.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _deadline.reset(token)


def seconds_left() -> float:
    """Return the seconds until the deadline. Raises `GeneratorTimeout` if the deadline has passed."""
    left = _deadline.get() - time.monotonic()
    if left <= 0:
        raise GeneratorTimeout(detail="the deadline has passed")
    return left


def retry(attempt: Callable[[], T]) -> T:
    """Call `attempt` until it succeeds, but at most `MAX_ATTEMPTS` times, and return its result.

    `attempt` is called again only if it raises `GeneratorUnreachable`. Other errors are raised at once.

    The pause between attempts doubles each time, unless the provider says how long to wait. A random time is
    added so that clients don't retry at the same time. If no attempts are left, or if the pause would end
    after the deadline, `GeneratorUnreachable` is raised.
    """
    failures = 0
    while True:
        try:
            return attempt()
        except GeneratorUnreachable as exc:
            failures += 1
            pause = _pause_seconds(failures, exc.wait)
            if failures == MAX_ATTEMPTS or time.monotonic() + pause >= _deadline.get():
                raise
            _log.info("Attempt %d of %d failed: %s", failures, MAX_ATTEMPTS, exc)
            time.sleep(pause)


def _pause_seconds(failures: int, wait: float | None) -> float:
    """Return how many seconds to pause after this number of failures.

    `wait` is the number of seconds in the provider's Retry-After header, or None if there is no such header.
    """
    backoff: float = _FIRST_PAUSE_SECONDS * (2 ** (failures - 1) + random.random())
    return backoff if wait is None else wait + backoff / 10


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the number of seconds to wait according to the header `retry-after`, but at most an hour.

    The value of the header is a number of seconds or a date (RFC 9110, 10.2.3). Return None if the header is
    missing or invalid.
    """
    value = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", value, re.ASCII):
        return min(float(value), _MAX_RETRY_AFTER_SECONDS)
    try:
        then = parsedate_to_datetime(value)
    except ValueError:
        return None
    now = datetime.now(UTC if then.tzinfo else None)
    return min(max((then - now).total_seconds(), 0.0), _MAX_RETRY_AFTER_SECONDS)


@dataclass(frozen=True, slots=True)
class ModelResponse:
    """An HTTP response with its complete, decompressed body. The names in `headers` are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Transport:
    """Sends each request over a new connection. Instances are thread-safe.

    Connections are not kept open. Connecting takes milliseconds, whereas generating an image takes seconds.
    An open connection might have been dropped by the server, or be shared with another process after a fork.
    `HTTPS_PROXY`, `NO_PROXY` and `SSL_CERT_FILE` are respected.
    """

    def __init__(self) -> None:
        self._tls = httpcore2.default_ssl_context()

    def send(
        self, method: str, url: str, headers: Mapping[str, str | bytes], body: bytes = b""
    ) -> ModelResponse:
        """Send a request and return the response, whatever its status. Redirects are not followed.

        Call this inside `deadline`. Raises `GeneratorTimeout` at the deadline, and `GeneratorUnreachable` if
        the connection fails or the response is not HTTP. Raises `GeneratorError` if the request can't be
        sent, or if the response is too large or compressed with a method other than gzip or deflate.
        """
        try:
            pool = ConnectionPool(
                ssl_context=self._tls,
                proxy=_proxy_for(url),
                max_connections=1,
                network_backend=_DeadlineBackend(),
            )
            with (
                pool,
                pool.stream(
                    method,
                    url,
                    headers=[(name.encode("ascii"), _encoded(value)) for name, value in headers.items()],
                    content=body or None,
                    extensions={"timeout": {"pool": seconds_left()}},
                ) as response,
            ):
                return _read(response)
        except httpcore2.ConnectTimeout as exc:
            seconds_left()
            raise GeneratorUnreachable(detail=f"no connection within {_CONNECT_TIMEOUT_SECONDS} s") from exc
        except httpcore2.TimeoutException as exc:
            raise GeneratorTimeout(detail=f"{type(exc).__name__} at the deadline") from exc
        except (httpcore2.NetworkError, httpcore2.RemoteProtocolError, httpcore2.ProxyError) as exc:
            raise GeneratorUnreachable(detail=f"{type(exc).__name__}: {exc}") from exc
        except (httpcore2.LocalProtocolError, httpcore2.UnsupportedProtocol, ValueError) as exc:
            # The URL or a header is invalid. The exception's message is left out, since it may quote the
            # header that contains the API key.
            raise GeneratorError(detail=f"{type(exc).__name__}: the request can't be sent") from exc


def _encoded(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode("ascii")


def _proxy_for(url: str) -> Proxy | None:
    found = proxy_for(url)
    if found is None:
        return None
    parts = urlsplit(found)
    auth = (unquote(parts.username), unquote(parts.password or "")) if parts.username else None
    return Proxy(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}", auth=auth)


def _read(response: httpcore2.Response) -> ModelResponse:
    """Read and decompress the body of a response.

    The maximum size applies to the decompressed body, since a few bytes can decompress to any size.
    """
    headers: dict[str, str] = {}
    for raw_name, value in response.headers:
        name, text = raw_name.decode("latin-1").lower(), value.decode("latin-1")
        headers[name] = f"{headers[name]}, {text}" if name in headers else text
    chunks = response.iter_stream()
    # We don't request compression. If a response is compressed anyway (RFC 9110, 8.4), it is decompressed,
    # since it has already been paid for.
    codings = [coding.strip() for coding in headers.pop("content-encoding", "").lower().split(",")]
    codings = [coding for coding in codings if coding not in ("", "identity")]
    if codings:
        if len(codings) > 1 or codings[0] not in _CODINGS:
            raise GeneratorError(detail=f"the response is compressed as {', '.join(codings)[:100]}")
        chunks = _decompressed(chunks)
    body = bytearray()
    for chunk in chunks:
        body += chunk
        if len(body) > MAX_RESPONSE_BYTES:
            raise GeneratorError(detail=f"the response is larger than {MAX_RESPONSE_BYTES} bytes")
    for name in ("content-length", "transfer-encoding"):  # these describe the body as it was sent
        headers.pop(name, None)
    return ModelResponse(response.status, headers, bytes(body))


def _decompressed(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Decompress `chunks`, which are in gzip or zlib format, and yield the data in small chunks."""
    inflater = zlib.decompressobj(_GZIP_OR_ZLIB)
    try:
        for chunk in chunks:
            packed = chunk
            while packed and not inflater.eof:
                yield inflater.decompress(packed, _CHUNK_BYTES)
                packed = inflater.unconsumed_tail
        yield inflater.flush()
    except zlib.error as exc:
        raise GeneratorError(detail=f"the response can't be decompressed: {exc}") from exc
    if not inflater.eof:
        raise GeneratorError(detail="the compressed response is not complete")


class _DeadlineBackend(NetworkBackend):
    """Opens connections on which every wait ends at the deadline. The timeouts of callers are ignored."""

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
        seconds = min(seconds_left(), _CONNECT_TIMEOUT_SECONDS)
        return _DeadlineStream(self._backend.connect_tcp(host, port, seconds, local_address, socket_options))


class _DeadlineStream(NetworkStream):
    def __init__(self, stream: NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, seconds_left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), _CHUNK_BYTES):  # since the timeout applies to each write
            self._stream.write(buffer[start : start + _CHUNK_BYTES], seconds_left())

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> NetworkStream:
        return _DeadlineStream(self._stream.start_tls(ssl_context, server_hostname, seconds_left()))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
