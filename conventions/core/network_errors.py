"""Which errors mean "the other side cannot be reached, or does not work now", for the libraries that we know.

The answers of a server in a fail-over count, too: it shuts down, starts up, is a standby, is full. An answer about one
transaction does not count: a deadlock or a serialization failure is an ordinary error, which is retried sooner and fewer times.

A library is looked up in `sys.modules`: a library that was never imported cannot have raised the error.
"""

import errno
import socket
import sys

from conventions.core.redis_answers import code_of

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

# PostgreSQL's SQLSTATEs. 08: connection. 57P: the server shuts down, crashes or starts up. 53300: too many connections.
# 25006: read-only, as a standby is.
_POSTGRES_STATES = ("08", "57P", "53300", "25006")
_POSTGRES_DRIVERS = ("psycopg", "psycopg2", "asyncpg")

# MySQL's error numbers: too many connections, shutting down, read-only. The client's numbers: not connected, connection lost.
_MYSQL_NUMBERS = frozenset({1040, 1053, 1836, 2002, 2003, 2006, 2013, 2055})
_MYSQL_OPTION = 1290  # the server was started with an option that prevents the statement, such as --read-only
_MYSQL_DRIVERS = ("pymysql", "MySQLdb", "mysql")


def is_network_error(error: BaseException) -> bool:
    """Whether the error is one of the network: refused, reset, timed out, unresolved; or of a fail-over (R16)."""
    if isinstance(error, (*_STANDARD, *_known_classes())):
        return True
    if isinstance(error, OSError) and error.errno in _UNREACHABLE:
        return True
    wrapper = sys.modules.get("urllib.error")
    if wrapper is not None and isinstance(error, wrapper.URLError) and isinstance(error.reason, BaseException):
        return is_network_error(error.reason)
    return bool(code_of(error)) or _is_lost_database(error)


def _known_classes() -> tuple[type[BaseException], ...]:
    loaded = ((sys.modules.get(module), names) for module, names in _BY_MODULE.items())
    return tuple(getattr(module, name) for module, names in loaded if module is not None for name in names)


def _is_lost_database(error: BaseException) -> bool:
    """Whether a database is away or takes no writes now. A busy SQLite file is not a network error."""
    module = sys.modules.get("sqlalchemy.exc")
    if module is None or not isinstance(error, module.DBAPIError):
        return _is_away(error)
    if error.connection_invalidated:
        return True
    return error.orig is not None and _is_away(error.orig)


def _is_away(error: BaseException) -> bool:
    """Whether a driver's error says that the database is away or takes no writes now."""
    driver = type(error).__module__.partition(".")[0]
    if driver in _POSTGRES_DRIVERS:
        state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
        if state is None:  # the connection was never made, or is gone
            return type(error).__name__ == "OperationalError"
        return str(state).startswith(_POSTGRES_STATES)
    if driver in _MYSQL_DRIVERS:
        number = next(iter(error.args), None)
        return number in _MYSQL_NUMBERS or (number == _MYSQL_OPTION and "read-only" in str(error))
    return False


def is_standby(error: BaseException) -> bool:
    """Whether PostgreSQL says that it takes no writes. After a fail-over, the pool's other connections lead to the same server."""
    return getattr(error, "sqlstate", None) == "25006"
