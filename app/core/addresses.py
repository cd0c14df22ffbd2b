"""The proxy that the environment names: `HTTP_PROXY`, `HTTPS_PROXY`, `NO_PROXY`.

Addresses of clients, and those of this machine itself.
"""

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass


def is_loopback(name: str) -> bool:
    """Return whether a name or an address always means the machine itself (RFC 6761, 6.3)."""
    if name.lower() == "localhost" or name.lower().endswith(".localhost"):
        return True
    address = _address(name)
    return address is not None and address.is_loopback


@lru_cache(maxsize=1024)
def one_address(text: str) -> str:
    """Return the one spelling of a client's address, without a port; `text` itself if it is no address.

    Proxies write IPv6 addresses in several ways and IPv4 ones also as `::ffff:192.0.2.1`; some append the
    port.
    """
    bare = text.strip()
    if bare.startswith("["):
        bare = bare[1:].partition("]")[0]
    elif bare.count(":") == 1:
        bare = bare.partition(":")[0]
    return str(_address(bare) or text)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """Return the address, an IPv4 one if it is mapped to IPv6 (RFC 4291, 2.5.5.2)."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def proxy_for(url: str) -> str | None:
    """The URL of the proxy for `url`, as Python's own `urllib` finds it; None where there is none."""
    target = urlsplit(url)
    found = getproxies().get(target.scheme)
    return found if found and not proxy_bypass(target.netloc) else None
