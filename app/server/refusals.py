"""Refusals, which are error responses that the server sends without calling the application.

They have the same JSON shape as all other error responses.
"""

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

_MALFORMED = "The request is not valid HTTP."

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
"""The statuses for gunicorn's parse errors. The first match counts, so the base class comes last."""


class Refusal:
    """An error response that closes the connection. `data` contains the bytes of the head and the body."""

    def __init__(self, error: AppError, headers: _Headers) -> None:
        self.status = error.status
        self.code = error.code
        body = json.dumps(error.body())
        lines = [
            f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}",
            "Connection: close",
            "Content-Type: application/json",
            *(f"{name}: {value}" for name, value in (*headers, *error.headers().items())),
            f"Content-Length: {len(body)}",
        ]
        self.body_length = len(body)
        self.data = ("\r\n".join(lines) + f"\r\n\r\n{body}").encode("latin-1")


def refusal_of(error: Exception, request_id: str, cors: _Headers = ()) -> Refusal:
    """Return the response to a request that failed with `error`. The response includes the headers `cors`.

    The response quotes nothing from the request, whose head may contain credentials.
    """
    headers = [(REQUEST_ID_HEADER, request_id), *cors]
    if isinstance(error, Busy):
        return Refusal(error, headers)
    status = next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)
    if status == 500:
        return Refusal(AppError(), headers)
    return Refusal(AppError.from_status(status, _MALFORMED), headers)
