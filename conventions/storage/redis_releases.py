"""What redis-py has under another name in an earlier release, or does not document."""

import select
from typing import Any

import redis
from redis import __version__ as redis_version

__all__ = ["can_read", "driver_options"]


def driver_options() -> dict[str, Any]:
    """What a client says of itself to the server; without it each connection looks up the version of the package."""
    driver: Any = getattr(redis, "DriverInfo", None)  # redis-py has it since 7.2
    return {"lib_version": redis_version} if driver is None else {"driver_info": driver(lib_version=redis_version)}


def can_read(sock: Any, seconds: float) -> bool:
    """Whether a socket has something to read within so many seconds; what TLS has decrypted already counts."""
    if hasattr(sock, "pending") and sock.pending():
        return True
    poll = select.poll()  # unlike select(), without a limit of file descriptors
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(max(seconds, 0) * 1000))
