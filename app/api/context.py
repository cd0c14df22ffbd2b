"""What views need of the current request: the application's components, absolute URLs, the client's name."""

from flask import current_app, g, request

from app.components import EXTENSION, Components
from app.core.addresses import canonical_address


def components() -> Components:
    """Return the components of the application that handles this request."""
    found: Components = current_app.extensions[EXTENSION]
    return found


def absolute_url(url: str) -> str:
    """Return `url`, which may be a path of the application, in a form that works outside its pages."""
    return components().hosts.absolute_url(url, host_url=request.host_url, script_name=request.script_root)


def client_name() -> str:
    """Return whom rate limits count: the API key by its name, or the client's address without a key."""
    name = g.get("key_name")
    return f"key {name}" if name is not None else f"address {canonical_address(request.remote_addr or '')}"
