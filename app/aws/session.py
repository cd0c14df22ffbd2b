"""boto3 sessions that limit answers: their bytes, the time they take, and what their headers may say.

boto3 reads every answer except an object's body into memory, however large it is, and its timeout applies to
each read: a server that sends a byte now and then holds a thread forever. Both matter as soon as something
other than AWS answers: a faulty compatible server, a proxy, or whoever owns the address.

The same holds for sources of credentials, see `app.aws.credentials`.
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

from app.aws.credentials import CheckedCredentials, UnusableCredentials, bind_providers, find_unsendable
from app.aws.endpoints import partition_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _typeshed import WriteableBuffer

DEFAULT_REGION = "us-east-1"

MOST_ANSWER_BYTES = 4 * 1024**2
"""Most bytes of a successful answer that is not an object. The largest is a page of 1000 keys of 1024 bytes,
all of them percent-encoded, with about 500 bytes around each."""

MOST_ERROR_BYTES = 64 * 1024
"""Most bytes of an error; those of S3 have less than 2 KiB."""

MOST_OBJECT_BYTES = 50 * 10**12
"""No object is larger: https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingObjects.html."""

LEAST_RATE = 8 * 1024
"""Bytes per second at which an answer must arrive on average, after as long as a server may be silent."""

_MOST_HEAD_BYTES = 256 * 1024
"""Most bytes of a status line and its headers, and of all 1xx answers before them."""

_MOST_UNSIZED_BYTES = 2 * MOST_ANSWER_BYTES
"""Most bytes of a body without a length, its chunk headers included; objects always have a length."""

_SETTLED_SECONDS = 1.0
"""Seconds of waiting after which the socket's timeout is adjusted; before that its own is short enough."""

_PIECE = 64 * 1024

_NONSENSE = (InvalidHeader, InvalidChunkLength, LineTooLong)
"""Errors for an invalid length, an invalid chunk length and an overlong header line."""

_CREDENTIALS_SECONDS = 5


class BadAnswer(BotoCoreError):
    """An answer that is over a limit or has invalid headers. Retrying would not help."""

    fmt = "an answer that can't be used: {reason}"


def new_session(*, region: str = "", may_ask: bool = False, **options: Any) -> boto3.session.Session:
    """Return a session whose clients and credential providers are held to this module's limits.

    Services that give credentials are asked in `region` if AWS has it, or else in the profile's or in the
    default one. `may_ask` says that somebody is there to type the MFA code that a profile may need. `options`
    are those of `boto3.session.Session`.
    """
    core = botocore.session.Session()
    core.register("creating-client-class", _bound_client)
    core.set_default_client_config(  # also for the clients of STS and SSO that boto3 makes by itself
        ClientConfig(connect_timeout=_CREDENTIALS_SECONDS, read_timeout=_CREDENTIALS_SECONDS)
    )
    region_name = region if partition_of(region) else None
    session = boto3.session.Session(botocore_session=core, region_name=region_name, **options)
    if session.region_name is None:
        core.set_config_variable("region", DEFAULT_REGION)
    providers = core.get_component("credential_provider").providers
    bind_providers(providers, may_ask=may_ask)
    for provider in providers:
        for name in ("_role_fetcher", "_fetcher"):  # of the machine's role, of the container's
            fetcher: Any = getattr(provider, name, None)
            if hasattr(fetcher, "_session"):
                fetcher._session = BoundedHttp(fetcher._session)
    return session


class _BoundedClient:
    """Base class of all clients of a session: sends by `BoundedHttp`, signs by `CheckedCredentials`."""

    def __init__(self, *args: Any, **more: Any) -> None:
        more["endpoint"].http_session = BoundedHttp(more["endpoint"].http_session)
        signer = more["request_signer"]
        if signer._credentials is not None:
            signer._credentials = CheckedCredentials(signer._credentials)
        super().__init__(*args, **more)


def _bound_client(**event: Any) -> None:
    event["base_classes"].insert(0, _BoundedClient)


class BoundedHttp:
    """Wraps botocore's HTTP session: reads each answer within limits, except bodies of objects."""

    def __init__(self, http: Any) -> None:
        http._pool_classes_by_scheme.update(POOLS)
        self._http = http

    def send(self, request: AWSPreparedRequest) -> AWSResponse:
        """Return the answer. Raises `BadAnswer`, `UnusableCredentials`, and what botocore raises."""
        unsendable = find_unsendable(request.headers.items())
        if unsendable:  # sent on, it would be quoted in an exception's text
            raise UnusableCredentials(provider="the environment", error_msg=f"can't be sent as {unsendable}")
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
    """Raise `BadAnswer` if an invalid answer caused this error, and not the connection."""
    for cause in (error, *getattr(error, "args", ())):
        if isinstance(cause, BadAnswer):
            raise cause
        # http.client has no class of its own for too many headers.
        if isinstance(cause, _NONSENSE) or type(cause) is HTTPException:
            raise BadAnswer(reason=f"{type(cause).__name__}: {cause!s:.100}") from error


def _announced(answer: AWSResponse) -> int | None:
    """Return Content-Length, None if there is none (RFC 9110, 8.6). Raises `BadAnswer` if it is invalid."""
    values = answer.raw.headers.getlist("Content-Length")
    if not values:
        return None
    if len(values) > 1 or not re.fullmatch(r"[ \t]*[0-9]{1,15}[ \t]*", values[0], re.ASCII):
        raise BadAnswer(reason=f"Content-Length {values!r:.100}")
    if int(values[0]) > MOST_OBJECT_BYTES:
        raise BadAnswer(reason=f"Content-Length {values[0]}, more than an object can have")
    return int(values[0])


def _check_object(answer: AWSResponse, length: int | None) -> None:
    """Raise `BadAnswer` unless Content-Length gives the body's length: for a chunked body it does not."""
    if length is None or "Transfer-Encoding" in answer.headers:
        raise BadAnswer(reason="an object without a Content-Length, or with a Transfer-Encoding as well")


def _with_body(answer: AWSResponse, length: int | None) -> AWSResponse:
    """Return the answer with its body read to the end. `length` is its Content-Length."""
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
    if b"<!DOCTYPE" in body:  # AWS sends none, and entities can expand to any size
        if not is_error:
            raise BadAnswer(reason="XML with a document type")
        body.clear()  # a proxy's page: the status says enough
    headers: Any = answer.headers
    return AWSResponse(answer.url, answer.status_code, headers, _Read(bytes(body), answer.status_code))


class _Read:
    """A body that has been read, with the interface that botocore expects.

    `status` is the server's, which botocore changes to 500 in its own response if the body is not XML.
    """

    def __init__(self, body: bytes, status: int) -> None:
        self._body = body
        self.status = status

    def stream(self) -> "Iterator[bytes]":
        """Yield the whole body."""
        yield self._body


class _Incoming(io.RawIOBase):
    """Reads an answer from `sock` through `raw`: at most `most` bytes, and not too slowly.

    Only the time spent waiting for the server counts. Once that exceeds the socket's timeout, the answer must
    have arrived at `LEAST_RATE` on average.
    """

    def __init__(self, sock: socket.socket, raw: io.RawIOBase) -> None:
        self._sock = sock
        self._raw = raw
        self._silence = sock.gettimeout() or _CREDENTIALS_SECONDS
        self._waited = 0.0
        self.received = 0
        self.most = _MOST_HEAD_BYTES

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        """Read some bytes. Raises `TimeoutError`, and `BadAnswer` after more than `most` bytes."""
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
        """Close the raw stream as well."""
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
        """Read the head, then limit what follows to the length of the body."""
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
"""Pool classes for a `urllib3.PoolManager`; they limit the size of answers and the time they take."""
