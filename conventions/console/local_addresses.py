"""Which addresses only this machine can reach."""

import ipaddress

LOCAL_NAMES = ("localhost",)


def is_local(address: str) -> bool:
    """Whether only this machine can reach an address. An empty address means every address."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address in LOCAL_NAMES
