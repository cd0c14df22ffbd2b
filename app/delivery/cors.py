"""CORS, which lets web pages of other origins call this server.

See https://fetch.spec.whatwg.org/#http-cors-protocol.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_METHODS = "GET, HEAD, POST, DELETE"
_REQUEST_HEADERS = (
    "Authorization, Content-Type, Idempotency-Key, If-Match, If-Modified-Since, If-None-Match, If-Range, "
    "If-Unmodified-Since, Range, X-API-Key, X-Request-ID"
)
_EXPOSED = (
    "Accept-Ranges, Allow, Cache-Status, Content-Range, ETag, Location, Retry-After, WWW-Authenticate, "
    "X-Request-ID, X-Should-Retry"
)
"""The response headers that scripts can read, in addition to those that the standard always allows."""

_PREFLIGHT_SECONDS = "7200"
"""How long browsers cache the response to a preflight request. Chromium caches it no longer than this."""

_PREFLIGHT_VARY = (
    "Access-Control-Request-Method, Access-Control-Request-Headers, Access-Control-Request-Private-Network"
)

_NETWORKS = ("Private", "Local")
"""Browsers use either name in the headers by which a public page asks to call a server in a private network
(https://wicg.github.io/private-network-access/#headers)."""

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}", re.ASCII)
"""The name of a header (RFC 9110, 5.6.2)."""

_MAX_HEADERS = 100
"""Maximum number of header names that are read from a preflight request. It equals the limit of gunicorn on
the headers of a request."""

_Headers = list[tuple[str, str]]


class Cors:
    """Middleware that lets pages of `origins` read the responses. `*` allows pages of any origin.

    CORS credentials are never allowed: the server has no cookies, and API keys are sent in headers. A page of
    an allowed origin can send any header.
    """

    def __init__(self, application: "WSGIApplication", origins: Sequence[str]) -> None:
        self._application = application
        self._origins = frozenset(origins)
        self._any_origin = "*" in self._origins

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer a preflight request. Pass any other request on, and add the CORS headers to the response."""
        if environ["REQUEST_METHOD"] == "OPTIONS" and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in environ:
            origin = environ.get("HTTP_ORIGIN", "")
            is_allowed = self._any_origin or origin in self._origins
            added = _preflight_headers(environ) if is_allowed else []
            start_response("204 No Content", [*self.headers(origin), *added])
            return ()
        return self._application(environ, self._adding_headers(environ, start_response))

    def wrap(self, answer: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
        """Return a function that calls `answer` and adds the CORS headers to the response.

        `answer` takes the arguments of a WSGI application, and possibly further arguments.
        """

        def wrapped(
            environ: "WSGIEnvironment", start_response: "StartResponse", *args: Any
        ) -> Iterable[bytes]:
            return answer(environ, self._adding_headers(environ, start_response), *args)

        return wrapped

    def _adding_headers(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> "StartResponse":
        added = self.headers(environ.get("HTTP_ORIGIN", ""))

        def start(status: str, headers: _Headers, *args: Any) -> Any:
            return start_response(status, headers + added, *args)

        return start

    def headers(self, origin: str) -> _Headers:
        """Return the CORS headers of a response to a page of `origin`.

        If they depend on the origin, `Vary` is included, even if this origin is not allowed.
        """
        if self._any_origin:
            return [("Access-Control-Allow-Origin", "*"), ("Access-Control-Expose-Headers", _EXPOSED)]
        vary = ("Vary", "Origin")
        if origin not in self._origins:
            return [vary]
        return [
            ("Access-Control-Allow-Origin", origin),
            ("Access-Control-Expose-Headers", _EXPOSED),
            vary,
        ]


def _preflight_headers(environ: "WSGIEnvironment") -> _Headers:
    headers = [
        ("Access-Control-Allow-Methods", _METHODS),
        ("Access-Control-Allow-Headers", _allowed_headers(environ)),
        ("Access-Control-Max-Age", _PREFLIGHT_SECONDS),
        ("Vary", _PREFLIGHT_VARY),
    ]
    for network in _NETWORKS:
        if environ.get(f"HTTP_ACCESS_CONTROL_REQUEST_{network.upper()}_NETWORK") == "true":
            headers.append((f"Access-Control-Allow-{network}-Network", "true"))
    return headers


def _allowed_headers(environ: "WSGIEnvironment") -> str:
    """Return a comma-separated list of the headers that the API reads and of those in the preflight request.

    Client libraries add their own headers, as OpenAI's adds `x-stainless-os`. Invalid names are omitted. The
    headers are listed by name, because `*` does not include `Authorization`.
    """
    requested = environ.get("HTTP_ACCESS_CONTROL_REQUEST_HEADERS", "")
    known = {name.lower() for name in _REQUEST_HEADERS.split(", ")}
    names = dict.fromkeys(name.strip().lower() for name in requested.split(",", _MAX_HEADERS)[:_MAX_HEADERS])
    others = [name for name in names if name not in known and _HEADER_NAME.fullmatch(name)]
    return ", ".join((_REQUEST_HEADERS, *others))
