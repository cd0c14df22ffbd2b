"""Helpers that depend on the current request."""

from flask import current_app, g, request

from app.components import EXTENSION, Components
from app.core.addresses import canonical_address


def components() -> Components:
    """Return the components of the application that handles this request."""
    found: Components = current_app.extensions[EXTENSION]
    return found


def absolute_url(url: str) -> str:
    """Return `url` as an absolute URL if that is possible. `url` can be a path of the application.

    A path becomes absolute only if the request's host is trusted. Otherwise, the mount point is added to the
    path.
    """
    return components().hosts.absolute_url(url, host_url=request.host_url, script_name=request.script_root)


def client_name() -> str:
    """Return the name under which rate limits count the client: its API key's name, or its address."""
    name = g.get("key_name")
    return f"key {name}" if name is not None else f"address {canonical_address(request.remote_addr or '')}"
