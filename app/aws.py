"""Sessions of boto3 whose answers have bounds: in bytes, in time, and in what their headers may say.

boto3 reads every answer that is not an object's body whole, however large it is, and its timeout holds for
each read: a server that sends a byte now and then keeps a thread for ever. Both matter as soon as somebody
else answers in AWS's place: a compatible server out of order, a proxy, whoever owns the address.
"""

import io
import re
import socket
import time
from http.client import HTTPException, HTTPResponse, LineTooLong
from typing import TYPE_CHECKING, Any

import boto3
import botocore.session
from botocore.awsrequest import (
    AWSHTTPConnection,
    AWSHTTPConnectionPool,
    AWSHTTPSConnection,
    AWSHTTPSConnectionPool,
    AWSPreparedRequest,
    AWSResponse,
)
from botocore.config import Config as ClientConfig
from botocore.exceptions import BotoCoreError, ConnectionClosedError, HTTPClientError, ReadTimeoutError
from urllib3.exceptions import HTTPError, InvalidChunkLength, InvalidHeader
from urllib3.exceptions import ReadTimeoutError as SilentBody

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _typeshed import WriteableBuffer

MOST_ANSWER_BYTES = 4 * 1024**2
"""Of a successful answer that is not an object. The largest is a page of 1000 keys of 1024 bytes, all of them
percent-encoded, with about 500 bytes around each."""

MOST_ERROR_BYTES = 64 * 1024
"""Of an answer that is an error; S3's take less than 2 KiB."""

MOST_OBJECT_BYTES = 50 * 10**12
"""No object is larger: https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingObjects.html."""

LEAST_RATE = 8 * 1024
"""Bytes per second that an answer has to come at, on the average, once a server could as well be silent."""

_MOST_HEAD_BYTES = 256 * 1024
"""Of a status line and its headers, and of all 1xx answers before them."""

_MOST_UNSIZED_BYTES = 2 * MOST_ANSWER_BYTES
"""Of a body without a length, with the framing of its chunks; objects always have a length."""

_SETTLED_SECONDS = 1.0
"""A socket's own timeout is short enough until so much has been waited in all."""

_PIECE = 64 * 1024

_NONSENSE = (InvalidHeader, InvalidChunkLength, LineTooLong)
"""No length, no length of a chunk, no line of a head."""

_CREDENTIALS_SECONDS = 5


class BadAnswer(BotoCoreError):
    """An answer over a bound, or with headers that make no sense; to ask again would not help."""

    fmt = "an answer that can't be used: {reason}"


def new_session(**options: Any) -> boto3.session.Session:
    """A session with the bounds of this module, for its clients and for how it gets credentials.

    `options` are those of `boto3.session.Session`.
    """
    core = botocore.session.Session()
    core.register("creating-client-class", _bound_client)
    core.set_default_client_config(  # also for the clients of STS and SSO that boto3 makes by itself
        ClientConfig(connect_timeout=_CREDENTIALS_SECONDS, read_timeout=_CREDENTIALS_SECONDS)
    )
    session = boto3.session.Session(botocore_session=core, **options)
    for provider in core.get_component("credential_provider").providers:
        for name in ("_role_fetcher", "_fetcher"):  # of the machine's role, of the container's
            fetcher: Any = getattr(provider, name, None)
            if hasattr(fetcher, "_session"):
                fetcher._session = BoundedHttp(fetcher._session)
    return session


class _BoundedClient:
    """A base of clients; what they send goes through `BoundedHttp`."""

    def __init__(self, *args: Any, **more: Any) -> None:
        more["endpoint"].http_session = BoundedHttp(more["endpoint"].http_session)
        super().__init__(*args, **more)


def _bound_client(**event: Any) -> None:
    event["base_classes"].insert(0, _BoundedClient)


class BoundedHttp:
    """botocore's HTTP session `http`, of whose answers only the bodies of objects are left to be read."""

    def __init__(self, http: Any) -> None:
        http._pool_classes_by_scheme.update(POOLS)
        self._http = http

    def send(self, request: AWSPreparedRequest) -> AWSResponse:
        """The answer. Raises `BadAnswer`, and what botocore's session does."""
        wants_stream, request.stream_output = request.stream_output, True  # leave the body to us
        try:
            answer: AWSResponse = self._http.send(request)
        except HTTPClientError as exc:
            _raise_if_nonsense(exc.kwargs.get("error"))
            raise
        finally:
            request.stream_output = wants_stream
        is_object = wants_stream and answer.status_code < 300
        try:
            length = _announced(answer)
            if is_object:
                _check_object(answer, length)
                return answer
            return _with_body(answer, 0 if request.method == "HEAD" else length)
        except SilentBody as exc:
            raise ReadTimeoutError(endpoint_url=request.url, error=exc) from exc
        except HTTPError as exc:
            _raise_if_nonsense(exc)
            raise ConnectionClosedError(endpoint_url=request.url, request=request, error=exc) from exc
        except BadAnswer:
            answer.raw.close()
            raise

    def close(self) -> None:
        """Close all connections."""
        self._http.close()


def _raise_if_nonsense(error: Any) -> None:
    """Raise `BadAnswer` if the server itself, and not the way to it, made this error."""
    for cause in (error, *getattr(error, "args", ())):
        if isinstance(cause, BadAnswer):
            raise cause
        # http.client has no class of its own for too many headers.
        if isinstance(cause, _NONSENSE) or type(cause) is HTTPException:
            raise BadAnswer(reason=f"{type(cause).__name__}: {cause!s:.100}") from error


def _announced(answer: AWSResponse) -> int | None:
    """The Content-Length, None if there is none (RFC 9110, 8.6). Raises `BadAnswer` for anything else."""
    values = answer.raw.headers.getlist("Content-Length")
    if not values:
        return None
    if len(values) > 1 or not re.fullmatch(r"[ \t]*[0-9]{1,15}[ \t]*", values[0], re.ASCII):
        raise BadAnswer(reason=f"Content-Length {values!r:.100}")
    if int(values[0]) > MOST_OBJECT_BYTES:
        raise BadAnswer(reason=f"Content-Length {values[0]}, more than an object can have")
    return int(values[0])


def _check_object(answer: AWSResponse, length: int | None) -> None:
    """Raise `BadAnswer` unless the body has a length that counts: one in chunks has none."""
    if length is None or "Transfer-Encoding" in answer.headers:
        raise BadAnswer(reason="an object without a Content-Length, or with a Transfer-Encoding as well")


def _with_body(answer: AWSResponse, length: int | None) -> AWSResponse:
    """The answer with its body, `length` bytes as announced, read to the end."""
    is_error = answer.status_code >= 300
    most = MOST_ERROR_BYTES if is_error else MOST_ANSWER_BYTES
    body = bytearray()
    if (length or 0) <= most:
        for piece in answer.raw.stream(_PIECE):
            body += piece
            if len(body) > most:
                break
    if max(len(body), length or 0) > most:
        raise BadAnswer(reason=f"{answer.status_code} with a body of more than {most} bytes")
    if b"<!DOCTYPE" in body:  # of AWS's none has one, and entities unfold to any size
        if not is_error:
            raise BadAnswer(reason="XML with a document type")
        body.clear()  # a proxy's page: the status says enough
    headers: Any = answer.headers
    return AWSResponse(answer.url, answer.status_code, headers, _Read(bytes(body)))


class _Read:
    """A body that has been read, in the shape in which botocore reads it."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self) -> "Iterator[bytes]":
        """All of it."""
        yield self._body


class _Incoming(io.RawIOBase):
    """What comes on `sock`, read by `raw`: at most `most` bytes, and not too slowly.

    Only the time spent waiting for the server counts. A server may be silent for as long as the socket's
    timeout says; after that much waiting in all, its answer must have come at `LEAST_RATE`.
    """

    def __init__(self, sock: socket.socket, raw: io.RawIOBase) -> None:
        self._sock = sock
        self._raw = raw
        self._silence = sock.gettimeout() or _CREDENTIALS_SECONDS
        self._waited = 0.0
        self.received = 0
        self.most = _MOST_HEAD_BYTES

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        """Raises `TimeoutError`, and `BadAnswer` if more comes than may."""
        if self.received > self.most:
            raise BadAnswer(reason=f"more than {self.most} bytes of head or of a body without a length")
        if self._waited > _SETTLED_SECONDS:
            self._sock.settimeout(min(self._left(), self._silence))
        began = time.monotonic()
        count = self._raw.readinto(buffer) or 0
        self._waited += time.monotonic() - began
        self.received += count
        if count and self._left() <= 0:
            raise TimeoutError(f"{self.received} bytes in {self._waited:.0f} s are too few")
        return int(count)

    def close(self) -> None:
        """Give the socket back."""
        self._raw.close()
        super().close()

    def _left(self) -> float:
        return self._silence + self.received / LEAST_RATE - self._waited


class _Answer(HTTPResponse):
    """An HTTP response that is read through `_Incoming`."""

    def __init__(self, sock: socket.socket, *args: Any, **more: Any) -> None:
        super().__init__(sock, *args, **more)
        self._incoming = _Incoming(sock, self.fp.detach())
        self.fp = io.BufferedReader(self._incoming)

    def begin(self) -> None:
        """Read the head; then the body may take what it is announced to."""
        super().begin()
        length = _MOST_UNSIZED_BYTES if self.length is None else self.length
        self._incoming.most = self._incoming.received + length


class _Connection(AWSHTTPConnection):
    response_class = _Answer  # type: ignore[assignment]


class _TlsConnection(AWSHTTPSConnection):
    response_class = _Answer  # type: ignore[assignment]


class _Pool(AWSHTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(AWSHTTPSConnectionPool):
    ConnectionCls = _TlsConnection


POOLS = {"http": _Pool, "https": _TlsPool}
"""Connections for a `urllib3.PoolManager`, of whose answers head and pace are bounded."""
