"""Who may write, list and delete: holders of an API key, or, where none is set, this machine alone."""

import hmac
from collections.abc import Sequence
from urllib.parse import urlsplit

from flask import Request

from app.config.api_keys import ApiKey, find_key
from app.core.addresses import is_loopback
from app.core.errors import KeyRefused, KeyRequired, ScopeMissing

_PROXY_HEADERS = {"Forwarded", "Via", "X-Real-Ip", "X-Client-Ip", "X-Cluster-Client-Ip", "True-Client-Ip"}
_PROXY_HEADERS |= {"Cf-Connecting-Ip", "Fastly-Client-Ip", "X-Original-Forwarded-For", "X-Original-Host"}
_PROXY_PREFIX = "X-Forwarded"
"""Headers by which proxies and CDNs show themselves; `X-Forwarded-For` and its kin share the prefix."""

_NO_KEYS = (
    "Without API keys, only programs on the server's own machine may do this. "
    "Set API_KEYS and send one of them as 'Authorization: Bearer KEY'."
)
_NO_KEYS_FOR_A_SOCKET = (
    "Without API keys, only programs on the server's own machine may do this, over TCP: a Unix socket mostly "
    "has a proxy behind it. Set API_KEYS and send one of them as 'Authorization: Bearer KEY'."
)
_SEND_KEY = "This call needs an API key. Send one as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'."


class Access:
    """Decides by `api_keys`; without any, pages of `origins` (`https://app.example.org`) may call as well."""

    def __init__(self, api_keys: Sequence[ApiKey], origins: Sequence[str] = ()) -> None:
        self._keys = api_keys
        self._origins = frozenset(origins) - {"*"}

    def check(self, request: Request, scope: str) -> ApiKey | None:
        """Return the key that allows `scope`; None if no keys are set and the client is local.

        Once keys are set, local clients need one too: behind a proxy that adds no header all look local.

        Raises `KeyRequired`, `KeyRefused` and `ScopeMissing`.
        """
        if not self._keys:
            if not self._is_local(request):
                raise KeyRequired(_NO_KEYS if request.remote_addr else _NO_KEYS_FOR_A_SOCKET)
            return None
        given = _given_key(request)
        if given is None:
            raise KeyRequired(_SEND_KEY)
        key = find_key(self._keys, given)
        if key is None:
            raise KeyRefused
        if scope not in key.scopes:
            raise ScopeMissing(scope)
        return key

    def digest(self, request: Request, name: str) -> str:
        """A digest of `name` that is another for each API key, so that clients don't meet under one name."""
        key = _given_key(request) if self._keys else None
        return hmac.new(key or b"", name.encode(), "sha256").hexdigest()

    def __repr__(self) -> str:
        return f"Access({len(self._keys)} keys)"

    def _is_local(self, request: Request) -> bool:
        """A client on this machine, with no proxy between and no foreign page behind it.

        A name other than this machine's in `Host` means a proxy that adds no header, or DNS rebinding.
        """
        return (
            is_loopback(request.remote_addr or "")
            and not any(_is_of_proxy(name) for name in request.headers.keys())  # noqa: SIM118 (not a dict)
            and is_loopback(host_name(request.host))
            and (request.headers.get("Origin") in self._origins or not _is_foreign_page(request))
        )


def host_name(host: str) -> str:
    """The name or address in a `Host` header, without port and brackets."""
    return host.rpartition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]


def _given_key(request: Request) -> bytes | None:
    """The key's bytes as the client sent them: WSGI has them as Latin-1."""
    authorization = request.authorization
    if authorization is not None and authorization.type == "bearer" and authorization.token:
        return authorization.token.encode("latin-1", "replace")
    key = request.headers.get("X-API-Key")
    return key.encode("latin-1", "replace") if key else None


def _is_of_proxy(header: str) -> bool:
    return header.title() in _PROXY_HEADERS or header.title().startswith(_PROXY_PREFIX)


def _is_foreign_page(request: Request) -> bool:
    """Whether a browser marks it as sent by another site's page (Fetch Metadata, https://www.w3.org/TR/fetch-metadata/)."""
    cross = request.headers.get("Sec-Fetch-Site") == "cross-site"
    return cross or not is_loopback(_origin_host(request.headers.get("Origin", "http://localhost")))


def _origin_host(origin: str) -> str:
    try:
        return urlsplit(origin).hostname or ""
    except ValueError:
        return ""
