"""The WSGI front that stands before every request body."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from app.intake.body import WatchedBody
from app.intake.places import Places

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


class Intake:
    """Wraps `application`, which `threads` threads of a process run; as many bodies but two are under way.

    Reading a body may raise `Busy` or `SlowClient` in the application.
    """

    def __init__(self, application: "WSGIApplication", threads: int) -> None:
        self._application = application
        self._places = Places(max(1, threads - 2))

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Hand the request on; a place that its body took is free when the answer is there."""
        if environ.get("CONTENT_LENGTH", "0") in ("", "0") and "HTTP_TRANSFER_ENCODING" not in environ:
            return self._application(environ, start_response)
        body = WatchedBody(environ, self._places)
        environ["wsgi.input"] = body
        try:
            return self._application(environ, start_response)
        finally:
            body.leave()
