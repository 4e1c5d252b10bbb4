"""Which errors mean "the other side could not be reached", for the libraries this platform knows.

A library is looked up in `sys.modules`: one that was never imported cannot have raised the error.
"""

import errno
import socket
import sys

_STANDARD: tuple[type[BaseException], ...] = (ConnectionError, TimeoutError, socket.gaierror, socket.herror)

_UNREACHABLE = frozenset(
    {errno.ECONNREFUSED, errno.ECONNRESET, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.ETIMEDOUT}
)

_BY_MODULE = {
    "httpx": ("TransportError",),
    "requests.exceptions": ("ConnectionError", "Timeout"),
    "urllib3.exceptions": ("TimeoutError", "NewConnectionError", "ProtocolError"),
    "redis.exceptions": ("ConnectionError", "TimeoutError"),
    "kombu.exceptions": ("OperationalError",),
    "smtplib": ("SMTPServerDisconnected", "SMTPConnectError"),
    "sqlalchemy.exc": ("DisconnectionError",),
}

# PostgreSQL's classes 08 (connection exception) and 57P (operator intervention: shutdown, crash, starting up).
_POSTGRES_STATES = ("08", "57P")


def is_network_error(error: BaseException) -> bool:
    """Whether the error is one of the network: refused, reset, timed out, unresolved (R16)."""
    if isinstance(error, (*_STANDARD, *_known_classes())):
        return True
    if isinstance(error, OSError) and error.errno in _UNREACHABLE:
        return True
    wrapper = sys.modules.get("urllib.error")
    if wrapper is not None and isinstance(error, wrapper.URLError) and isinstance(error.reason, BaseException):
        return is_network_error(error.reason)
    return _is_lost_database(error)


def _known_classes() -> tuple[type[BaseException], ...]:
    loaded = ((sys.modules.get(module), names) for module, names in _BY_MODULE.items())
    return tuple(getattr(module, name) for module, names in loaded if module is not None for name in names)


def _is_lost_database(error: BaseException) -> bool:
    """A lost or refused PostgreSQL connection; a busy SQLite file is not a network error."""
    module = sys.modules.get("sqlalchemy.exc")
    if module is None or not isinstance(error, module.DBAPIError):
        return False
    if error.connection_invalidated:
        return True
    driver_error = error.orig
    if not type(driver_error).__module__.startswith("psycopg") or not isinstance(error, module.OperationalError):
        return False
    state = getattr(driver_error, "sqlstate", None)  # none: the connection was never made
    return state is None or state.startswith(_POSTGRES_STATES)
