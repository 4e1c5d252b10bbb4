"""Which addresses only this machine reaches."""

import ipaddress

LOCAL_NAMES = ("localhost",)


def is_local(address: str) -> bool:
    """Whether only this machine reaches an address; an empty one is every address."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address in LOCAL_NAMES
