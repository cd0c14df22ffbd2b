"""Cross-origin access (https://fetch.spec.whatwg.org/#http-cors-protocol): middleware around all others."""

import re
from collections.abc import Iterable, Sequence
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
"""What scripts may read besides the few headers that they always may."""

_PREFLIGHT_SECONDS = "7200"
"""For how long a browser remembers a preflight's answer; Chromium's own limit."""

_PREFLIGHT_VARY = (
    "Access-Control-Request-Method, Access-Control-Request-Headers, Access-Control-Request-Private-Network"
)

_NETWORKS = ("Private", "Local")
"""How browsers have named the permission to call a private network from a public page
(https://wicg.github.io/private-network-access/#headers)."""

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}", re.ASCII)
"""A header's name (RFC 9110, 5.6.2)."""

_MOST_HEADERS = 100
"""Names of headers that a preflight may ask for: the server takes no more headers in a request."""

_Headers = list[tuple[str, str]]


class Cors:
    """Wraps `application`: pages of `origins`, or of all origins if that is `*`, may read its answers.

    Keys are sent in headers and there are no cookies, so credentials are never allowed. A page of an allowed
    origin may send any header: what a header means is checked when it arrives.
    """

    def __init__(self, application: "WSGIApplication", origins: Sequence[str]) -> None:
        self._application = application
        self._origins = frozenset(origins)
        self._all = "*" in self._origins

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer a preflight; add the headers to every other answer."""
        added = self.headers(environ.get("HTTP_ORIGIN", ""))
        if environ["REQUEST_METHOD"] == "OPTIONS" and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in environ:
            allowed = self._all or environ.get("HTTP_ORIGIN") in self._origins
            start_response("204 No Content", [*added, *(_preflight(environ) if allowed else ())])
            return ()

        def start(status: str, headers: _Headers, *args: Any) -> Any:
            return start_response(status, headers + added, *args)

        return self._application(environ, start)

    def headers(self, origin: str) -> _Headers:
        """Return the headers of every answer to a page of `origin`.

        If they depend on the origin, caches are told so even if it is not an allowed one.
        """
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


def _preflight(environ: "WSGIEnvironment") -> _Headers:
    asked = environ.get("HTTP_ACCESS_CONTROL_REQUEST_HEADERS", "")
    granted = [
        ("Access-Control-Allow-Methods", _METHODS),
        ("Access-Control-Allow-Headers", _with_asked(asked)),
        ("Access-Control-Max-Age", _PREFLIGHT_SECONDS),
        ("Vary", _PREFLIGHT_VARY),
    ]
    for network in _NETWORKS:
        if environ.get(f"HTTP_ACCESS_CONTROL_REQUEST_{network.upper()}_NETWORK") == "true":
            granted.append((f"Access-Control-Allow-{network}-Network", "true"))
    return granted


def _with_asked(asked: str) -> str:
    """Return the headers that our own calls take, and those asked for.

    Clients add headers of their own, such as OpenAI's `x-stainless-os`. They are named one by one, since `*`
    does not cover `Authorization`. Names that can't be a header's are left out, and so are too many.
    """
    known = {name.lower() for name in _REQUEST_HEADERS.split(", ")}
    names = dict.fromkeys(name.strip().lower() for name in asked.split(",", _MOST_HEADERS)[:_MOST_HEADERS])
    others = [name for name in names if name not in known and _TOKEN.fullmatch(name)]
    return ", ".join((_REQUEST_HEADERS, *others))
