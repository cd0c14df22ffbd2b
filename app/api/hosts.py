"""The address under which clients are told that this server can be reached."""

from collections.abc import Sequence
from urllib.parse import urljoin

from flask import Request

from app.api.access import host_name
from app.loopback import is_loopback


class Hosts:
    """Decides whether the `Host` of a request is believed: any client can write one.

    This machine's own names are, and those in `trusted`; with `any_host`, a proxy answers for it.
    """

    def __init__(self, trusted: Sequence[str], *, any_host: bool) -> None:
        self._trusted = frozenset(name.lower() for name in trusted)
        self._any_host = any_host

    def absolute(self, url: str, request: Request) -> str:
        """A URL that also works outside a page of this server; `url` itself where its name is not known."""
        name = host_name(request.host).lower()
        believed = self._any_host or name in self._trusted or is_loopback(name)
        return urljoin(request.host_url, url) if believed else url
