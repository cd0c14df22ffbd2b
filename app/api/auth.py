"""Authorization by API keys with scopes.

If no keys are set, only clients on this machine can make the calls that need a key.
"""

import hmac
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar
from urllib.parse import urlsplit

from flask import Request, g, request

from app.api.context import client_name, components
from app.config.api_keys import ApiKey, find_key
from app.core.addresses import is_loopback
from app.core.errors import KeyRefused, KeyRequired, ScopeMissing
from app.core.request_context import API_KEY_NAME

P = ParamSpec("P")
R = TypeVar("R")

KEY_SECURITY: list[dict[str, list[str]]] = [{"bearer": []}, {"apiKey": []}]
"""The OpenAPI security requirement of calls that need a key, which can be sent in either header."""

_PROXY_HEADERS = {"Forwarded", "Via", "X-Real-Ip", "X-Client-Ip", "X-Cluster-Client-Ip", "True-Client-Ip"}
_PROXY_HEADERS |= {"Cf-Connecting-Ip", "Fastly-Client-Ip", "X-Original-Forwarded-For", "X-Original-Host"}
_PROXY_PREFIX = "X-Forwarded"
"""Proxies and CDNs add the headers in `_PROXY_HEADERS` and headers with this prefix, such as
`X-Forwarded-For`."""

_NO_KEYS = (
    "Without API keys, only programs on the server's own machine may do this. "
    "Set API_KEYS and send one of them as 'Authorization: Bearer KEY'."
)
_NO_KEYS_FOR_A_SOCKET = (
    "Without API keys, only programs on the server's own machine may do this, and only over TCP, since a "
    "Unix socket is usually used by a proxy. Set API_KEYS and send one as 'Authorization: Bearer KEY'."
)
_SEND_KEY = "This call needs an API key. Send one as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'."


def key_required(scope: str, *, counted: bool = True) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Require an API key with `scope` for a view. If `counted`, also apply the rate limit of the scope."""

    def decorate(view: Callable[P, R]) -> Callable[P, R]:
        @wraps(view)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            key = authorize(request, scope)
            if key is not None:
                g.key_name = request.environ[API_KEY_NAME] = key.name
            if counted:
                components().rate_limits.check(scope, client_name())
            return view(*args, **kwargs)

        return guarded

    return decorate


def authorize(request: Request, scope: str) -> ApiKey | None:
    """Return the client's key, which has `scope`, or return None if no keys are set and the client is local.

    If keys are set, local clients need a key too. Behind a proxy that adds no headers, every client looks
    local.

    Raises `KeyRequired`, `KeyRefused` and `ScopeMissing`.
    """
    config = components().config
    if not config.api_keys:
        if not _is_local(request, frozenset(config.cors_origins) - {"*"}):
            raise KeyRequired(_NO_KEYS if request.remote_addr else _NO_KEYS_FOR_A_SOCKET)
        return None
    given = _given_key(request)
    if given is None:
        raise KeyRequired(_SEND_KEY)
    key = find_key(config.api_keys, given)
    if key is None:
        raise KeyRefused
    if scope not in key.scopes:
        raise ScopeMissing(scope)
    return key


def idempotency_key(header: dict[str, Any]) -> str | None:
    """Return a digest of the `Idempotency-Key` in the loaded `header`, or None if the client sent none.

    The digest also depends on the API key, so that two clients that happen to send the same value don't get
    each other's responses.
    """
    name = header["idempotency_key"]
    if not name:
        return None
    api_key = _given_key(request) if components().config.api_keys else None
    return hmac.new(api_key or b"", name.encode(), "sha256").hexdigest()


def _is_local(request: Request, origins: frozenset[str]) -> bool:
    """Return whether the request comes from this machine, not through a proxy and not from a foreign page.

    If `Host` is not a loopback name, the request comes from a proxy that adds no headers, or from a DNS
    rebinding attack. Pages of `origins` (`CORS_ORIGINS`) count as local.
    """
    return (
        is_loopback(request.remote_addr or "")
        and not any(_is_proxy_header(name) for name in request.headers.keys())  # noqa: SIM118 (not a dict)
        and is_loopback(_host_name(request.host))
        and (request.headers.get("Origin") in origins or not _is_foreign_page(request))
    )


def _given_key(request: Request) -> bytes | None:
    """Return the bytes of the key that the client sent, or None if it sent no key.

    WSGI decodes header values as Latin-1, so encoding them as Latin-1 restores the bytes.
    """
    authorization = request.authorization
    if authorization is not None and authorization.type == "bearer" and authorization.token:
        return authorization.token.encode("latin-1", "replace")
    key = request.headers.get("X-API-Key")
    return key.encode("latin-1", "replace") if key else None


def _host_name(host: str) -> str:
    """Return the host name or IP address in a `Host` header, without the port and any brackets."""
    return host.rpartition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]


def _is_proxy_header(header: str) -> bool:
    return header.title() in _PROXY_HEADERS or header.title().startswith(_PROXY_PREFIX)


def _is_foreign_page(request: Request) -> bool:
    """Return whether a page of another site sent the request.

    Browsers say so in `Sec-Fetch-Site` (https://www.w3.org/TR/fetch-metadata/) or in `Origin`.
    """
    if request.headers.get("Sec-Fetch-Site") == "cross-site":
        return True
    try:
        host = urlsplit(request.headers.get("Origin", "http://localhost")).hostname or ""
    except ValueError:
        return True
    return not is_loopback(host)
