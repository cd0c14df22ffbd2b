"""What this machine calls itself."""

from ipaddress import ip_address


def is_loopback(address: str) -> bool:
    """Whether a name or an address always means the machine itself (RFC 6761, 6.3)."""
    if address.lower() == "localhost" or address.lower().endswith(".localhost"):
        return True
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False
