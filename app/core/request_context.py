"""The context of a request: its ID, which answers and log lines carry, and the keys of the WSGI environment.

The worker in `app.server` assigns the ID and sends it in `X-Request-ID`; under another WSGI server the
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
"""How the cache answered: a value of `CacheStatus`."""

STARTED = "s3image.began"
"""When the first middleware received the request, by `time.perf_counter`."""

REQUEST_ID_HEADER = "X-Request-ID"

_SAFE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
"""The IDs accepted from clients: nothing with a meaning in a log, a shell or a page."""

_current: ContextVar[str] = ContextVar("request_id", default="")


def new_request_id() -> str:
    """Return 16 random hex digits. They only distinguish requests, so they need not be unguessable."""
    return f"{random.getrandbits(64):016x}"


def current_request_id() -> str:
    """Return the ID of the request that this thread handles, "" if it handles none."""
    return _current.get()


def set_request_id(request_id: str) -> None:
    """Set the ID of the request that this thread handles; "" for none."""
    _current.set(request_id)


def assign_request_id(environ: "WSGIEnvironment") -> str:
    """Give the request the ID that its client sent, if it is safe, or a new one; return it.

    From then on this thread handles that request.
    """
    given = environ.get("HTTP_X_REQUEST_ID")
    request_id: str = given if given and _SAFE_ID.fullmatch(given) else new_request_id()
    environ[REQUEST_ID] = request_id
    _current.set(request_id)
    return request_id


class RequestIds:
    """Middleware that assigns each request an ID and adds it to the answer."""

    def __init__(self, application: "WSGIApplication") -> None:
        self._application = application

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Pass the request on. If the server has assigned an ID, it also sends the header."""
        if REQUEST_ID in environ:
            return self._application(environ, start_response)
        request_id = assign_request_id(environ)

        def start(status: str, headers: list[tuple[str, str]], *args: Any) -> Any:
            return start_response(status, [*headers, (REQUEST_ID_HEADER, request_id)], *args)

        return self._application(environ, start)
