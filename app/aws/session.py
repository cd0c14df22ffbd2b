"""boto3 sessions that limit responses and check credentials before they are sent.

boto3 reads every response into memory, regardless of its size, except for the body of an object. Its timeout
applies to each read, so a server that sends a byte now and then can block a thread forever. Both behaviours
are dangerous if something other than AWS responds: a faulty compatible server, a proxy, or the new owner of
an IP address.

The same limits apply to credential providers. `app.aws.credentials` contains limits that apply only to
credential providers.
"""

import io
import re
import socket
import time
from collections.abc import Iterable, Iterator
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
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import (
    BotoCoreError,
    ConnectionClosedError,
    CredentialRetrievalError,
    HTTPClientError,
    ReadTimeoutError,
)
from urllib3.exceptions import HTTPError, InvalidChunkLength, InvalidHeader
from urllib3.exceptions import ReadTimeoutError as BodyTimeoutError

from app.aws.credentials import limit_providers
from app.aws.endpoints import partition_of

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

DEFAULT_REGION = "us-east-1"

MAX_RESPONSE_BYTES = 4 * 1024**2
"""Maximum size of a successful response that is not an object. The largest such response lists 1000 keys of
1024 bytes, which are percent-encoded, with about 500 bytes of XML for each key."""

MAX_ERROR_BYTES = 64 * 1024
"""Maximum size of an error response. S3's error responses are smaller than 2 KiB."""

MAX_OBJECT_BYTES = 50 * 10**12
"""Maximum size of an object (https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingObjects.html)."""

MIN_BYTES_PER_SECOND = 8 * 1024
"""Minimum average rate of a response. A response may take up to one read timeout longer than this rate
implies."""

_MAX_HEAD_BYTES = 256 * 1024
"""Maximum size of a response's status line and headers, including all 1xx responses before them."""

_MAX_UNSIZED_BYTES = 2 * MAX_RESPONSE_BYTES
"""Maximum size of a body without Content-Length, including its chunk headers. Objects are not affected, since
they always have Content-Length."""

_UNADJUSTED_SECONDS = 1.0
"""How long to wait for a response in total before the socket's timeout is reduced for each read. Until then,
the original timeout is short enough."""

_CHUNK_BYTES = 64 * 1024

_CREDENTIALS_TIMEOUT_SECONDS = 5

_INVALID_RESPONSE = (InvalidHeader, InvalidChunkLength, LineTooLong)
"""Errors for an invalid length, an invalid chunk length and an overlong header line."""


class BadResponse(BotoCoreError):
    """A response exceeds a limit or has invalid headers. A retry would not help."""

    fmt = "a response that can't be used: {reason}"


class UnusableCredentials(CredentialRetrievalError):
    """The credentials contain characters that can't be sent in a request."""


def new_session(*, region: str = "", interactive: bool = False, **options: Any) -> boto3.session.Session:
    """Return a session whose clients and credential providers enforce this module's limits.

    Services that issue credentials are called in `region` if AWS has such a region, or else in the profile's
    region, or else in `DEFAULT_REGION`. If `interactive` is True, the user may be prompted for an MFA code
    that a profile requires. `options` are passed to `boto3.session.Session`.
    """
    core = botocore.session.Session()
    core.register("creating-client-class", _limit_client)
    core.set_default_client_config(  # also applies to the clients that boto3 creates for STS and SSO
        ClientConfig(connect_timeout=_CREDENTIALS_TIMEOUT_SECONDS, read_timeout=_CREDENTIALS_TIMEOUT_SECONDS)
    )
    region_name = region if partition_of(region) else None
    session = boto3.session.Session(botocore_session=core, region_name=region_name, **options)
    if session.region_name is None:
        core.set_config_variable("region", DEFAULT_REGION)
    providers = core.get_component("credential_provider").providers
    limit_providers(providers, interactive=interactive)
    for provider in providers:
        for name in ("_role_fetcher", "_fetcher"):  # they fetch instance metadata and container metadata
            fetcher: Any = getattr(provider, name, None)
            if hasattr(fetcher, "_session"):
                fetcher._session = LimitedHttpSession(fetcher._session)
    return session


def _limit_client(**event: Any) -> None:
    event["base_classes"].insert(0, _LimitedClient)


class _LimitedClient:
    """Base class of all clients of a session. It limits responses, and checks credentials before use."""

    def __init__(self, *args: Any, **more: Any) -> None:
        more["endpoint"].http_session = LimitedHttpSession(more["endpoint"].http_session)
        signer = more["request_signer"]
        if signer._credentials is not None:
            signer._credentials = CheckedCredentials(signer._credentials)
        super().__init__(*args, **more)


_CREDENTIAL_NAMES = {"access_key": "access key", "secret_key": "secret key", "token": "session token"}

_VISIBLE_ASCII = re.compile(r"[\x21-\x7e]*")
_NO_CONTROLS = re.compile(r"[^\x00-\x1f\x7f-\x9f]*")

_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*", re.DOTALL)
"""Matches the value of a header, decoded as Latin-1, if all its characters are allowed (RFC 9110, 5.5)."""


class CheckedCredentials:
    """Wraps botocore's credentials, strips white space, and rejects characters that can't be sent."""

    def __init__(self, credentials: Any) -> None:
        self._credentials = credentials

    def __getattr__(self, name: str) -> Any:
        return getattr(self._credentials, name)

    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        """Return the current credentials, renewed if necessary.

        Raises `UnusableCredentials` if they contain characters that can't be sent.
        """
        frozen = self._credentials.get_frozen_credentials()
        checked: dict[str, Any] = {}
        for name, label in _CREDENTIAL_NAMES.items():
            value = getattr(frozen, name)
            if value is None and name == "token":
                checked[name] = None
                continue
            allowed = _NO_CONTROLS if name == "secret_key" else _VISIBLE_ASCII
            if not isinstance(value, str) or not allowed.fullmatch(value.strip()):
                raise UnusableCredentials(
                    provider=self._credentials.method,
                    error_msg=f"the {label} has characters that can't be sent: copy it again",
                )
            checked[name] = value.strip()
        return ReadOnlyCredentials(**{**frozen._asdict(), **checked})


class LimitedHttpSession:
    """Wraps botocore's HTTP session, and reads all responses within limits, except the bodies of objects."""

    def __init__(self, http: Any) -> None:
        http._pool_classes_by_scheme.update(POOLS)
        self._http = http

    def send(self, request: AWSPreparedRequest) -> AWSResponse:
        """Send the request and return the response.

        Raises `BadResponse`, `UnusableCredentials`, and the exceptions that botocore raises.
        """
        _check_headers(request.headers.items())
        wants_stream, request.stream_output = request.stream_output, True  # the body is read below
        try:
            response: AWSResponse = self._http.send(request)
        except HTTPClientError as exc:
            _raise_if_invalid(exc.kwargs.get("error"))
            raise
        finally:
            request.stream_output = wants_stream
        is_object = wants_stream and response.status_code < 300
        try:
            length = _content_length(response)
            if is_object:
                # The length of a chunked body may differ from Content-Length.
                if length is None or "Transfer-Encoding" in response.headers:
                    raise BadResponse(reason="an object without Content-Length, or with Transfer-Encoding")
                return response
            return _with_body(response, 0 if request.method == "HEAD" else length)
        except BodyTimeoutError as exc:
            raise ReadTimeoutError(endpoint_url=request.url, error=exc) from exc
        except HTTPError as exc:
            _raise_if_invalid(exc)
            raise ConnectionClosedError(endpoint_url=request.url, request=request, error=exc) from exc
        except BadResponse:
            response.raw.close()
            raise

    def close(self) -> None:
        """Close all connections."""
        self._http.close()


def _check_headers(headers: Iterable[tuple[str, Any]]) -> None:
    """Raise `UnusableCredentials` for a header value that is invalid in HTTP.

    The HTTP client would also reject the value, but it would quote the value in its error message.
    """
    for name, value in headers:
        text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
        if not _HEADER_VALUE.fullmatch(text):
            raise UnusableCredentials(provider="the environment", error_msg=f"can't be sent as {name}")


def _raise_if_invalid(error: Any) -> None:
    """Raise `BadResponse` if `error` was caused by an invalid response rather than by the connection."""
    for cause in (error, *getattr(error, "args", ())):
        if isinstance(cause, BadResponse):
            raise cause
        # http.client has no specific exception for too many headers.
        if isinstance(cause, _INVALID_RESPONSE) or type(cause) is HTTPException:
            raise BadResponse(reason=f"{type(cause).__name__}: {cause!s:.100}") from error


def _content_length(response: AWSResponse) -> int | None:
    """Return Content-Length (RFC 9110, 8.6), or None if it is missing.

    Raises `BadResponse` if Content-Length is invalid.
    """
    values = response.raw.headers.getlist("Content-Length")
    if not values:
        return None
    if len(values) > 1 or not re.fullmatch(r"[ \t]*[0-9]{1,15}[ \t]*", values[0], re.ASCII):
        raise BadResponse(reason=f"Content-Length {values!r:.100}")
    if int(values[0]) > MAX_OBJECT_BYTES:
        raise BadResponse(reason=f"Content-Length {values[0]}, more than an object can have")
    return int(values[0])


def _with_body(response: AWSResponse, length: int | None) -> AWSResponse:
    """Return the response after reading its body to the end. `length` is its Content-Length."""
    is_error = response.status_code >= 300
    limit = MAX_ERROR_BYTES if is_error else MAX_RESPONSE_BYTES
    body = bytearray()
    if (length or 0) <= limit:
        for chunk in response.raw.stream(_CHUNK_BYTES):
            body += chunk
            if len(body) > limit:
                break
    if max(len(body), length or 0) > limit:
        raise BadResponse(reason=f"{response.status_code} with a body of more than {limit} bytes")
    if b"<!DOCTYPE" in body:  # AWS sends no document types, and entities can expand to any size
        if not is_error:
            raise BadResponse(reason="XML with a document type")
        body.clear()  # the error page of a proxy; its status is enough
    raw = _ReadBody(bytes(body), response.status_code)
    headers: Any = response.headers
    return AWSResponse(response.url, response.status_code, headers, raw)


class _ReadBody:
    """A body that has been read. It has the interface that botocore expects of `AWSResponse.raw`.

    `status` is always the status that the server sent, whereas botocore changes the `status_code` of its
    response object to 500 if the body is not XML.
    """

    def __init__(self, body: bytes, status: int) -> None:
        self._body = body
        self.status = status

    def stream(self) -> Iterator[bytes]:
        """Return an iterator that yields the whole body as one chunk."""
        return iter((self._body,))


class _LimitedReader(io.RawIOBase):
    """Reads a response from `sock` through `raw`, with a maximum size and a minimum rate.

    Only the time spent waiting for the server counts. The total wait may be the socket's timeout, plus one
    second for every `MIN_BYTES_PER_SECOND` bytes received so far. After that, reads raise `TimeoutError`.
    """

    def __init__(self, sock: socket.socket, raw: io.RawIOBase) -> None:
        self._sock = sock
        self._raw = raw
        self._timeout = sock.gettimeout() or _CREDENTIALS_TIMEOUT_SECONDS
        self._waited = 0.0
        self.received = 0
        self.max_bytes = _MAX_HEAD_BYTES

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        """Read some bytes.

        Raises `TimeoutError` if the response is too slow, and `BadResponse` if it exceeds `max_bytes`.
        """
        if self.received > self.max_bytes:
            raise BadResponse(
                reason=f"more than {self.max_bytes} bytes of headers, or of a body without a length"
            )
        if self._waited > _UNADJUSTED_SECONDS:
            self._sock.settimeout(min(self._seconds_left(), self._timeout))
        started = time.monotonic()
        count = self._raw.readinto(buffer) or 0
        self._waited += time.monotonic() - started
        self.received += count
        if count and self._seconds_left() <= 0:
            raise TimeoutError(f"only {self.received} bytes arrived in {self._waited:.0f} s")
        return int(count)

    def close(self) -> None:
        """Close this reader and the raw stream."""
        self._raw.close()
        super().close()

    def _seconds_left(self) -> float:
        return self._timeout + self.received / MIN_BYTES_PER_SECOND - self._waited


class _LimitedResponse(HTTPResponse):
    """An HTTP response that is read through `_LimitedReader`."""

    def __init__(self, sock: socket.socket, *args: Any, **more: Any) -> None:
        super().__init__(sock, *args, **more)
        self._reader = _LimitedReader(sock, self.fp.detach())
        self.fp = io.BufferedReader(self._reader)

    def begin(self) -> None:
        """Read the headers, then limit further reads to the length of the body."""
        super().begin()
        length = _MAX_UNSIZED_BYTES if self.length is None else self.length
        self._reader.max_bytes = self._reader.received + length


class _HttpConnection(AWSHTTPConnection):
    response_class = _LimitedResponse  # type: ignore[assignment]


class _HttpsConnection(AWSHTTPSConnection):
    response_class = _LimitedResponse  # type: ignore[assignment]


class _HttpPool(AWSHTTPConnectionPool):
    ConnectionCls = _HttpConnection


class _HttpsPool(AWSHTTPSConnectionPool):
    ConnectionCls = _HttpsConnection


POOLS = {"http": _HttpPool, "https": _HttpsPool}
"""Pool classes for a `urllib3.PoolManager`, by scheme. They limit the size and the duration of responses."""
