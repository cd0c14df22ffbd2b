"""Answers to requests that never reach the application, in the JSON shape of all errors."""

import json
from collections.abc import Sequence
from http import HTTPStatus

from gunicorn.http.errors import (
    ConfigurationProblem,
    ExpectationFailed,
    ForbiddenProxyRequest,
    LimitRequestHeaders,
    LimitRequestLine,
    ParseException,
    UnsupportedTransferCoding,
)

from app.core.errors import AppError, Busy
from app.core.request_context import REQUEST_ID_HEADER

_UNREADABLE = "The server can't read this request."

_Headers = Sequence[tuple[str, str]]

_STATUSES: tuple[tuple[type[Exception], int], ...] = (
    (LimitRequestLine, 414),
    (LimitRequestHeaders, 431),
    (ExpectationFailed, 417),
    (ForbiddenProxyRequest, 403),
    (UnsupportedTransferCoding, 501),
    (ConfigurationProblem, 500),
    (ParseException, 400),
)
"""The status for each of gunicorn's parse errors; the base class is last."""


class Refusal:
    """An error answer after which the connection is closed; `data` is the whole of it, as sent."""

    def __init__(
        self, status: int, code: str, message: str, retry_after: int | None, headers: _Headers
    ) -> None:
        self.status = status
        self.code = code
        body = json.dumps({"success": False, "message": message, "code": code})
        lines = [
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
            "Connection: close",
            "Content-Type: application/json",
            *(f"{name}: {value}" for name, value in headers),
            *([] if retry_after is None else [f"Retry-After: {retry_after}"]),
            f"Content-Length: {len(body)}",
        ]
        self.body_length = len(body)
        self.data = ("\r\n".join(lines) + f"\r\n\r\n{body}").encode("latin-1")


def refusal_of(error: Exception, request_id: str, cors: _Headers = ()) -> Refusal:
    """Return the answer to a request that failed with `error`, with the headers `cors`.

    It shows nothing else of what was sent.
    """
    headers = [(REQUEST_ID_HEADER, request_id), *cors]
    if isinstance(error, Busy):
        return Refusal(error.status, error.code, error.message, error.retry_after, headers)
    status = next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)
    if status == 500:
        return Refusal(500, AppError.code, AppError.message, None, headers)
    code = HTTPStatus(status).phrase.lower().replace(" ", "_").replace("-", "_")
    return Refusal(status, code, _UNREADABLE, None, headers)
