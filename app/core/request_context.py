"""The id of a request: in its answer as `X-Request-ID`, and in every line that is logged about it.

What a request's WSGI environment carries from one front to the next, and to the access log.
"""

import random
import re
from collections.abc import Iterable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

REQUEST_ID = "s3image.request_id"
"""The request's id."""

API_KEY_NAME = "s3image.key_name"
"""The name of the API key that was checked."""

OBJECT_KEY = "s3image.image"
"""The key of the image that the request is about."""

CACHE_STATUS = "s3image.cache"
"""The cache's result: a value of `CacheStatus`."""

STARTED = "s3image.began"
"""When the request came to the first front, by `time.perf_counter`."""

FAILURE = "s3image.failure"
"""The exception that a front leaves to the application to answer."""


REQUEST_ID_HEADER = "X-Request-ID"

_SANE = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
"""What is taken from a client: nothing that means something to a log, a shell or a page."""

_current: ContextVar[str] = ContextVar("request_id", default="")


def new_request_id() -> str:
    """16 hex digits. They tell requests apart and guard nothing, so they need not be hard to guess."""
    return f"{random.getrandbits(64):016x}"


def current_request_id() -> str:
    """The id of the request that this thread works on; empty where it works on none."""
    return _current.get()


def set_request_id(request_id: str) -> None:
    """Let this thread work on the request of this id; on none where it is empty."""
    _current.set(request_id)


def assign_request_id(environ: "WSGIEnvironment") -> str:
    """The client's id of this request, or a new one; from now on this thread works on it."""
    given = environ.get("HTTP_X_REQUEST_ID")
    request_id: str = given if given and _SANE.fullmatch(given) else new_request_id()
    environ[REQUEST_ID] = request_id
    _current.set(request_id)
    return request_id


class RequestIds:
    """Wraps `application`: each request has an id, and so has its answer."""

    def __init__(self, application: "WSGIApplication") -> None:
        self._application = application

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Hand the request on; a server that has given it an id sends that itself, which costs less."""
        if REQUEST_ID in environ:
            return self._application(environ, start_response)
        request_id = assign_request_id(environ)

        def start(status: str, headers: list[tuple[str, str]], *args: Any) -> Any:
            return start_response(status, [*headers, (REQUEST_ID_HEADER, request_id)], *args)

        return self._application(environ, start)
