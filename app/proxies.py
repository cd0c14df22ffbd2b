"""The proxy that the environment names: `HTTP_PROXY`, `HTTPS_PROXY`, `NO_PROXY`."""

from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass


def proxy_for(url: str) -> str | None:
    """The URL of the proxy for `url`, as Python's own `urllib` finds it; None where there is none."""
    target = urlsplit(url)
    found = getproxies().get(target.scheme)
    return found if found and not proxy_bypass(target.netloc) else None
