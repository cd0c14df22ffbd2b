"""botocore's errors become ours, here and nowhere else."""

from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ReadTimeoutError,
    ResponseStreamingError,
    TokenRetrievalError,
)
from botocore.response import StreamingBody

from app.errors import NotFound, StoreError, StoreRefused, StoreTimeout, StoreUnreachable

_MISSING = {"NoSuchKey", "404", "NotFound"}
_OVERLOADED = {"SlowDown", "RequestTimeout", "Throttling", "ThrottlingException", "TooManyRequests", "429"}

_BY_CLASS: tuple[tuple[type[Exception], type[StoreError]], ...] = (
    (ReadTimeoutError, StoreTimeout),
    (ConnectTimeoutError, StoreUnreachable),
    (EndpointConnectionError, StoreUnreachable),
    (ConnectionClosedError, StoreUnreachable),
    (ResponseStreamingError, StoreUnreachable),
    (IncompleteReadError, StoreError),
    (NoCredentialsError, StoreRefused),
    (PartialCredentialsError, StoreRefused),
    (TokenRetrievalError, StoreRefused),
    (HTTPClientError, StoreUnreachable),
)


def code_of(exc: ClientError) -> str:
    """S3's error code, such as `NoSuchKey`; for HEAD and 304, the status as text."""
    return str(exc.response.get("Error", {}).get("Code", ""))


@contextmanager
def errors_mapped(operation: str) -> Iterator[None]:
    """Raise our error for whatever botocore raises inside; `operation` is for the log."""
    try:
        yield
    except ClientError as exc:
        raise _answered(exc, operation) from exc
    except BotoCoreError as exc:
        kind = next((ours for theirs, ours in _BY_CLASS if isinstance(exc, theirs)), StoreError)
        raise kind(detail=f"{operation}: {exc}") from exc


def _answered(exc: ClientError, operation: str) -> Exception:
    code = code_of(exc)
    status = exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    detail = f"{operation}: {status} {code}"
    if code in _MISSING:
        return NotFound(detail=detail)
    if code in _OVERLOADED or status >= 500:
        return StoreUnreachable(detail=detail)
    return StoreRefused(detail=detail)


class MappedBody:
    """An object's body whose reading raises our errors; shorter than announced is one of them."""

    def __init__(self, body: StreamingBody) -> None:
        self._body = body

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes, all where negative."""
        with errors_mapped("GetObject body"):
            return bytes(self._body.read(None if size < 0 else size))

    def close(self) -> None:
        """Give the connection back."""
        self._body.close()
