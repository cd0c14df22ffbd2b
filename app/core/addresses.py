"""Network addresses of clients, of this machine, and of the proxy for outgoing requests."""

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass


@lru_cache(maxsize=1024)
def canonical_address(text: str) -> str:
    """Return a client's IP address in its canonical spelling, without a port.

    Proxies write IPv6 addresses in several ways, and may write an IPv4 address as `::ffff:192.0.2.1`. Some
    also append the port. Return `text` unchanged if it is not an IP address.
    """
    bare = text.strip()
    if bare.startswith("["):
        bare = bare[1:].partition("]")[0]
    elif bare.count(":") == 1:
        bare = bare.partition(":")[0]
    return str(_parse(bare) or text)


def is_loopback(host: str) -> bool:
    """Return whether a host name or IP address always means this machine (RFC 6761, 6.3)."""
    if host.lower() == "localhost" or host.lower().endswith(".localhost"):
        return True
    address = _parse(host)
    return address is not None and address.is_loopback


def proxy_for(url: str) -> str | None:
    """Return the URL of the proxy to use for `url`, or None if there is none.

    As in `urllib`, `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` in the environment determine the proxy.
    """
    target = urlsplit(url)
    proxy = getproxies().get(target.scheme)
    return proxy if proxy and not proxy_bypass(target.netloc) else None


def _parse(text: str) -> IPv4Address | IPv6Address | None:
    """Parse an IP address. Return None if `text` is not one.

    An IPv4-mapped IPv6 address becomes an IPv4 address (RFC 4291, 2.5.5.2).
    """
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
