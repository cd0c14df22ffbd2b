"""Cross-origin access (https://fetch.spec.whatwg.org/#http-cors-protocol): a WSGI front before all others."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_METHODS = "GET, HEAD, POST, DELETE"
_REQUEST_HEADERS = (
    "Authorization, Content-Type, Idempotency-Key, If-Match, If-Modified-Since, If-None-Match, If-Range, "
    "If-Unmodified-Since, Range, X-API-Key, X-Request-ID"
)
_EXPOSED = "Accept-Ranges, Cache-Status, Content-Range, ETag, Location, Retry-After, X-Request-ID"
"""What scripts may read besides the few headers that they always may."""

_PREFLIGHT_SECONDS = "7200"
"""For how long a browser remembers a preflight's answer; Chromium's own limit."""

_Headers = list[tuple[str, str]]


class Cors:
    """Wraps `application`: pages of `origins`, or of all where that is `*`, may read its answers.

    Keys are sent in headers and there are no cookies, so credentials are never allowed for.
    """

    def __init__(self, application: "WSGIApplication", origins: Sequence[str]) -> None:
        self._application = application
        self._origins = frozenset(origins)
        self._all = "*" in self._origins

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer a preflight; add the headers to every other answer."""
        added = self._headers(environ.get("HTTP_ORIGIN", ""))
        if environ["REQUEST_METHOD"] == "OPTIONS" and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in environ:
            start_response("204 No Content", [*added, *_preflight(added)])
            return ()

        def start(status: str, headers: _Headers, *args: Any) -> Any:
            return start_response(status, headers + added, *args)

        return self._application(environ, start)

    def _headers(self, origin: str) -> _Headers:
        """Where the answer depends on the origin, caches are told so, also when it is a no."""
        if self._all:
            return [("Access-Control-Allow-Origin", "*"), ("Access-Control-Expose-Headers", _EXPOSED)]
        vary = ("Vary", "Origin")
        if origin not in self._origins:
            return [vary]
        return [
            ("Access-Control-Allow-Origin", origin),
            ("Access-Control-Expose-Headers", _EXPOSED),
            vary,
        ]


def _preflight(added: _Headers) -> _Headers:
    if not any(name == "Access-Control-Allow-Origin" for name, _ in added):
        return []
    return [
        ("Access-Control-Allow-Methods", _METHODS),
        ("Access-Control-Allow-Headers", _REQUEST_HEADERS),
        ("Access-Control-Max-Age", _PREFLIGHT_SECONDS),
    ]
