"""Who may write, list and delete: holders of an API key, or, where none is set, this machine alone."""

import hmac
from collections.abc import Sequence
from ipaddress import ip_address
from urllib.parse import urlsplit

from flask import Request

from app.errors import KeyRefused, KeyRequired

_PROXY_HEADERS = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "Via")

_NO_KEYS = (
    "Without API keys, only programs on the server's own machine may do this. "
    "Set API_KEYS and send one of them as 'Authorization: Bearer KEY'."
)
_SEND_KEY = "This call needs an API key. Send one as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'."


class Access:
    """Decides by `api_keys`; compares in constant time."""

    def __init__(self, api_keys: Sequence[str]) -> None:
        self._keys = [key.encode() for key in api_keys]

    def check(self, request: Request) -> None:
        """Raises `KeyRequired` or `KeyRefused` unless the client may write."""
        if not self._keys:
            if not _is_local(request):
                raise KeyRequired(_NO_KEYS)
            return
        given = _given_key(request)
        if given is None:
            raise KeyRequired(_SEND_KEY)
        if not any([hmac.compare_digest(given, key) for key in self._keys]):
            raise KeyRefused

    def digest(self, request: Request, name: str) -> str:
        """A digest of `name` that is another for each API key, so that clients don't meet under one name."""
        key = _given_key(request) if self._keys else None
        return hmac.new(key or b"", name.encode(), "sha256").hexdigest()

    def __repr__(self) -> str:
        return f"Access({len(self._keys)} keys)"


def _given_key(request: Request) -> bytes | None:
    authorization = request.authorization
    if authorization is not None and authorization.type == "bearer" and authorization.token:
        return authorization.token.encode("utf-8", "surrogateescape")
    key = request.headers.get("X-API-Key")
    return key.encode("utf-8", "surrogateescape") if key else None


def _is_local(request: Request) -> bool:
    """A client on this machine, with no proxy between and no foreign page behind it.

    A name other than this machine's in `Host` means a proxy that adds no header, or DNS rebinding; a browser
    marks what another site's page sends (Fetch Metadata, https://www.w3.org/TR/fetch-metadata/).
    """
    return (
        _is_loopback(request.remote_addr or "")
        and not any(name in request.headers for name in _PROXY_HEADERS)
        and _is_loopback(_host_name(request.host))
        and request.headers.get("Sec-Fetch-Site") != "cross-site"
        and _is_loopback(_origin_host(request.headers.get("Origin", "http://localhost")))
    )


def _origin_host(origin: str) -> str:
    try:
        return urlsplit(origin).hostname or ""
    except ValueError:
        return ""


def _host_name(host: str) -> str:
    return host.rpartition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]


def _is_loopback(address: str) -> bool:
    if address.lower() == "localhost" or address.lower().endswith(".localhost"):
        return True
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False
