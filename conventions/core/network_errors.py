"""Which errors mean "the other side could not be reached, or does not work now", for the libraries this platform knows.

What a server answers in a fail-over counts, too: it is shutting down, starting up, standing by, full. What it says of one
transaction does not: one that was the victim of a deadlock, or cannot be serialized, is an error like any other, which is
tried again sooner and less often.

A library is looked up in `sys.modules`: one that was never imported cannot have raised the error.
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

# PostgreSQL's SQLSTATEs: class 08 is the connection, 57P a server that shuts down, crashes or starts up; too many connections;
# read-only, as one that stands by.
_POSTGRES_STATES = ("08", "57P", "53300", "25006")
_POSTGRES_DRIVERS = ("psycopg", "psycopg2", "asyncpg")

# MySQL's numbers: too many connections, shutting down, read-only; and its clients': not connected, connection lost.
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
    """A database that is away, or takes no writes now; a busy SQLite file is not a network error."""
    module = sys.modules.get("sqlalchemy.exc")
    if module is None or not isinstance(error, module.DBAPIError):
        return _is_away(error)
    if error.connection_invalidated:
        return True
    return error.orig is not None and _is_away(error.orig)


def _is_away(error: BaseException) -> bool:
    """The same of the error of a driver."""
    driver = type(error).__module__.partition(".")[0]
    if driver in _POSTGRES_DRIVERS:
        state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
        if state is None:  # of an operation: the connection was never made, or is gone
            return type(error).__name__ == "OperationalError"
        return str(state).startswith(_POSTGRES_STATES)
    if driver in _MYSQL_DRIVERS:
        number = next(iter(error.args), None)
        return number in _MYSQL_NUMBERS or (number == _MYSQL_OPTION and "read-only" in str(error))
    return False


def is_standby(error: BaseException) -> bool:
    """Whether a PostgreSQL says that it takes no writes: after a fail-over, its other connections lead to the same one."""
    return getattr(error, "sqlstate", None) == "25006"
