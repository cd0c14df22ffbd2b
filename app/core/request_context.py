"""The context of a request: its ID, which is sent and logged, and the keys of the WSGI environment.

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
"""The request's ID."""

API_KEY_NAME = "s3image.key_name"
"""The name of the API key that was accepted."""

OBJECT_KEY = "s3image.image"
"""The object key of the image that was served, stored or deleted."""

CACHE_STATUS = "s3image.cache"
"""How the cache handled the request: a value of `CacheStatus`."""

STARTED = "s3image.began"
"""When the first middleware received the request, as a value of `time.perf_counter`."""

REQUEST_ID_HEADER = "X-Request-ID"

_SAFE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
"""IDs that are accepted from clients. They contain no characters that are special in logs, shells or HTML."""

_current: ContextVar[str] = ContextVar("request_id", default="")


def new_request_id() -> str:
    """Return 16 random hex digits. They only distinguish requests, so they need not be unguessable."""
    return f"{random.getrandbits(64):016x}"


def current_request_id() -> str:
    """Return the ID of the request that this thread is handling, or "" if there is none."""
    return _current.get()


def set_request_id(request_id: str) -> None:
    """Set the ID of the request that this thread is handling; "" means that there is none."""
    _current.set(request_id)


def assign_request_id(environ: "WSGIEnvironment") -> str:
    """Assign an ID to the request and return it: the one that the client sent, if it is safe, or a new one.

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
        """Call the application. If the server assigned the ID, the server also sends the header."""
        if REQUEST_ID in environ:
            return self._application(environ, start_response)
        request_id = assign_request_id(environ)

        def start(status: str, headers: list[tuple[str, str]], *args: Any) -> Any:
            return start_response(status, [*headers, (REQUEST_ID_HEADER, request_id)], *args)

        return self._application(environ, start)
