"""The worker's response makes of headers what gunicorn's does, the first time and from memory."""

from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.http.wsgi import Response

from app.server.response import LoopResponse

_REQUEST = SimpleNamespace(method="GET", version=(1, 1))

Headers = list[tuple[Any, Any]]


def _started(kind: type[Any], headers: Headers) -> dict[str, Any]:
    response = kind(_REQUEST, None, Config())
    response.start_response("200 OK", headers)
    return {name: value for name, value in vars(response).items() if name != "cfg"}


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("Content-Type", "image/png"), ("Content-Length", "12"), ("ETag", '"a"')],
        [("Content-Length", "12"), ("Content-Length", "13")],
        [("X-A", " b\t"), ("x-a", "c"), ("X-A", "")],
        [("Connection", "close"), ("Transfer-Encoding", "chunked"), ("X-A", "b")],
        [("Connection", "Upgrade"), ("Upgrade", "WebSocket")],
        [("Upgrade", "h2c")],
    ],
)
def test_headers(headers: Headers) -> None:
    told = _started(Response, headers)
    assert _started(LoopResponse, headers) == told
    assert _started(LoopResponse, headers) == told


@pytest.mark.parametrize(
    "header",
    [
        ("X A", "b"),
        ("", "b"),
        ("X-A", "b\r\nX-B: c"),
        ("X-A", 1),
        (b"X-A", "b"),
        ("Content-Length", "x"),
        ("X-A", []),
    ],
)
def test_what_is_no_header_is_refused(header: tuple[Any, Any]) -> None:
    kinds = set()
    for response in (Response, LoopResponse, LoopResponse):
        with pytest.raises(Exception) as refused:  # noqa: PT011 (whichever gunicorn raises)
            _started(response, [("X-Good", "a"), header])
        kinds.add(refused.type)
    assert len(kinds) == 1
