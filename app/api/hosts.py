"""The address under which clients are told that this server can be reached."""

from collections.abc import Sequence
from urllib.parse import quote

from flask import Request

from app.api.auth import host_name
from app.core.addresses import is_loopback


class Hosts:
    """Decides whether the `Host` of a request is believed: any client can write one.

    This machine's own names are, and those in `trusted`; with `any_host`, a proxy answers for it.
    """

    def __init__(self, trusted: Sequence[str], *, any_host: bool) -> None:
        self._trusted = frozenset(name.lower() for name in trusted)
        self._any_host = any_host

    def absolute(self, url: str, request: Request) -> str:
        """Return a URL that also works outside a page of this server, if the server's name is known.

        `url` is absolute, or a path of this application. A path gets the prefix under which the application
        is mounted, whether the server's name is known or not.
        """
        if not url.startswith("/"):
            return url
        path = with_prefix(url, request)
        name = host_name(request.host).lower()
        believed = self._any_host or name in self._trusted or is_loopback(name)
        return request.host_url.rstrip("/") + path if believed else path


def with_prefix(path: str, request: Request) -> str:
    """Return the path by which clients reach `path` of this application."""
    prefix = quote(request.script_root.strip("/"))
    return f"/{prefix}{path}" if prefix else path
