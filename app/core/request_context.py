"""The context of a request: its ID, which is logged and returned to the client, and its WSGI variables.

The worker in `app.server` assigns the ID and sends it in `X-Request-ID`. Under a different WSGI server, the
middleware `RequestIds` does both.
"""

import random
import re
from collections.abc import Iterable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

REQUEST_ID = "s3image.request_id"
"""WSGI variable that holds the request's ID."""

API_KEY_NAME = "s3image.key_name"
"""WSGI variable that holds the name of the API key that was accepted."""

OBJECT_KEY = "s3image.image"
"""WSGI variable that holds the object key of the image that was served, stored or deleted."""

CACHE_STATUS = "s3image.cache"
"""WSGI variable that says how the cache handled the request: a value of `CacheStatus`."""

STARTED = "s3image.began"
"""WSGI variable that holds the time, from `time.perf_counter`, when the first middleware got the request."""

REQUEST_ID_HEADER = "X-Request-ID"

_SAFE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
"""Matches request IDs that are accepted from clients. They are safe in logs, shell commands and HTML."""

_current: ContextVar[str] = ContextVar("request_id", default="")


def new_request_id() -> str:
    """Return 16 random hex digits. The ID only distinguishes requests, so it need not be unguessable."""
    return f"{random.getrandbits(64):016x}"


def current_request_id() -> str:
    """Return the ID of the request that this thread is handling, or "" if there is none."""
    return _current.get()


def set_request_id(request_id: str) -> None:
    """Set the ID of the request that this thread is handling; "" means that there is none."""
    _current.set(request_id)


def assign_request_id(environ: "WSGIEnvironment") -> str:
    """Assign an ID to the request, and return it. If the client sent a safe ID, use that, else a new one.

    From then on, `current_request_id` returns this ID in the calling thread.
    """
    given = environ.get("HTTP_X_REQUEST_ID")
    request_id: str = given if given and _SAFE_ID.fullmatch(given) else new_request_id()
    environ[REQUEST_ID] = request_id
    _current.set(request_id)
    return request_id


class RequestIds:
    """Middleware that assigns an ID to each request and adds it to the response."""

    def __init__(self, application: "WSGIApplication") -> None:
        self._application = application

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Call the application. If the server assigned an ID, the server also adds it to the response."""
        if REQUEST_ID in environ:
            return self._application(environ, start_response)
        request_id = assign_request_id(environ)

        def start(status: str, headers: list[tuple[str, str]], *args: Any) -> Any:
            return start_response(status, [*headers, (REQUEST_ID_HEADER, request_id)], *args)

        return self._application(environ, start)
