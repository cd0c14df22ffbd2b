"""Request IDs: every answer has an `X-Request-ID`, which the log lines about the request repeat."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from app.core.request_context import REQUEST_ID, REQUEST_ID_HEADER, assign_request_id

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


class RequestIds:
    """Middleware that assigns each request an ID and adds it to the answer."""

    def __init__(self, application: "WSGIApplication") -> None:
        self._application = application

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Pass the request on. If the server assigned the ID, it also sends the header, which costs less."""
        if REQUEST_ID in environ:
            return self._application(environ, start_response)
        request_id = assign_request_id(environ)

        def start(status: str, headers: list[tuple[str, str]], *args: Any) -> Any:
            return start_response(status, [*headers, (REQUEST_ID_HEADER, request_id)], *args)

        return self._application(environ, start)
