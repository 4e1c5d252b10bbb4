"""`Database`: the SQL records of one application, on SQLite or PostgreSQL."""

import importlib
import os
import sqlite3
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import URL, ColumnElement, Connection, Engine, create_engine, event, func, text
from sqlalchemy.engine import ExceptionContext, make_url
from sqlalchemy.orm import InstrumentedAttribute, Session
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

from conventions.core import extras
from conventions.core.entry_signatures import EntrySignatures
from conventions.core.errors import ConfigurationError
from conventions.core.forks import call_before_fork
from conventions.core.network_errors import is_standby
from conventions.core.time_units import milliseconds
from conventions.storage.tables import Base

# We set the encoding: for a server that is set to SQL_ASCII the driver would return bytes.
_POSTGRESQL = {"connect_timeout": 5, "client_encoding": "utf8"}
POSTGRESQL_PORT = 5432
SQLITE_LOOK_EVERY = 0.02  # seconds between two tries to switch to WAL
SIGNER = "row_signatures"  # where a session has `Database.row_signatures`
SQLITE_BUSY_TIMEOUT = 10_000  # milliseconds that a writer waits for another writer


class Database:
    """Engine and sessions. It connects at its first use, and makes a new engine after a fork.

    Args:
        url: `sqlite:///path` or `postgresql://…` (psycopg 3).
        migrations: further folders of Alembic versions, from the task packages.
        driver_options: what the driver of PostgreSQL gets beside the address.
        keeps_connections: whether a connection stays open for the next use.

    Attributes:
        row_signatures: gives what signs rows that wait for their place in a chain, see `proof/waiting_rows.py`; `None`: there are no keys.
    """

    def __init__(
        self,
        url: str | URL,
        migrations: Sequence[Path] = (),
        *,
        driver_options: Mapping[str, Any] | None = None,
        keeps_connections: bool = True,
    ) -> None:
        self.url = make_url(url)
        if self.url.drivername in (
            "postgres",
            "postgresql",
        ):  # the first as platforms write it, which SQLAlchemy refuses
            self.url = self.url.set(drivername="postgresql+psycopg")
        self._migrations = tuple(migrations)
        self._driver_options = {**_POSTGRESQL, **(driver_options or {})}
        self._pool: dict[str, Any] = {} if keeps_connections else {"poolclass": NullPool}
        self.row_signatures: Callable[[], EntrySignatures | None] = _no_signatures
        self._engine: Engine | None = None
        self._pid = 0
        # A fork does not inherit SQLite's locks. When the parent closes its connection, an inherited one loses its
        # writes. So we close all connections before a fork.
        call_before_fork(self.dispose)

    @property
    def is_sqlite(self) -> bool:
        """Whether the database is SQLite, which allows one writer at a time."""
        return self.url.get_backend_name() == "sqlite"

    @property
    def is_there(self) -> bool:
        """False for an SQLite file that does not exist: to connect to it would make an empty one."""
        file = self.url.database or ":memory:"
        return not self.is_sqlite or file.startswith((":memory:", "file:")) or Path(file).exists()

    @property
    def engine(self) -> Engine:
        """The engine of this process.

        Raises:
            ConfigurationError: the driver of PostgreSQL is not installed.
        """
        if self._engine is None or self._pid != os.getpid():
            # A connection inherited through fork belongs to the parent: forget it, do not close it.
            self._engine, self._pid = self._create_engine(), os.getpid()
        return self._engine

    def _create_engine(self) -> Engine:
        if not self.is_sqlite:
            pool = self._pool or {"pool_pre_ping": True, "pool_size": 2}
            try:
                engine = create_engine(self.url, connect_args=self._driver_options, hide_parameters=True, **pool)
            except ImportError as error:  # the driver is not there, or lacks its library
                fault = f"{error}" if extras.is_installed("psycopg") else extras.how_to_install("psycopg")
                raise ConfigurationError(
                    [f"the database is PostgreSQL, and its driver cannot be used: {fault}"]
                ) from error
            event.listen(engine, "handle_error", _leave_standby)
            event.listen(engine, "checkin", partial(self._close_if_left, weakref.ref(engine), os.getpid()))
            return engine
        if self.url.database and self.url.database != ":memory:":
            Path(self.url.database).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self.url.database.startswith("file:"):  # a file that SQLite creates is readable by everybody
                Path(self.url.database).touch(mode=0o600)
        engine = create_engine(self.url, hide_parameters=True, **self._pool)
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "checkin", partial(self._close_if_left, weakref.ref(engine), os.getpid()))
        event.listen(engine, "begin", _begin_immediately)
        return engine

    def _close_if_left(self, engine: "weakref.ref[Engine]", process: int, _: Any, record: ConnectionPoolEntry) -> None:
        # What was in use when its pool was let go of, as a transaction that goes on over a fork, would never be closed.
        if process == os.getpid() and (self._engine is None or engine() is not self._engine):
            record.invalidate()

    @contextmanager
    def session(self, *, read_only: bool = False, within: float | None = None) -> Iterator[Session]:
        """A session that commits at the end of the block, or rolls back when the block raises.

        Args:
            read_only: do not wait for writers.
            within: seconds after which PostgreSQL gives up a statement, also one that waits for a lock; default: never.
        """
        engine = self.engine.execution_options(conventions_read_only=read_only)
        with Session(engine, info={SIGNER: self.row_signatures}) as session, session.begin():
            if within is not None and not self.is_sqlite:
                session.execute(text(f"SET LOCAL statement_timeout = {milliseconds(within)}"))
            yield session

    def upgrade(self) -> None:
        """Create or migrate all tables (`celery -A <app> db upgrade`). Does nothing when they are up to date."""
        from conventions.storage.migrations.run import upgrade  # noqa: PLC0415  # Alembic takes 0.2 s to import

        upgrade(self.engine, self._migrations)

    def upgrade_ours(self, version: str = "") -> None:
        """Bring the tables of this package to a version, unless they are at a later one; default: the last one."""
        from conventions.storage.migrations.run import BRANCH, upgrade  # noqa: PLC0415  # the same

        upgrade(self.engine, self._migrations, version or f"{BRANCH}@head")

    def drop_ours(self) -> None:
        """Drop the tables of this package, with all that is in them."""
        from conventions.storage.migrations.run import downgrade  # noqa: PLC0415  # the same

        downgrade(self.engine)

    def dispose(self) -> None:
        """Close the connections of this process."""
        if self._engine is not None and self._pid == os.getpid():
            self._engine.dispose()
        self._engine = None


def _no_signatures() -> EntrySignatures | None:
    return None


def place_of(url: URL) -> tuple[Any, ...]:
    """What two addresses of one database have in common."""
    if url.get_backend_name() == "sqlite":
        name = url.database or ""
        return ("sqlite", name if name.startswith("file:") else os.path.realpath(name))
    host = url.host or url.query.get("host", "localhost")
    return (url.get_backend_name(), host, url.port or POSTGRESQL_PORT, url.database, url.query.get("options"))


def shown_place(url: URL) -> str:
    """Where a database is, without accounts and options."""
    if url.get_backend_name() == "sqlite":
        return f"sqlite {place_of(url)[1]}"
    kind, host, port, name, options = place_of(url)
    return f"{kind} {name} at {host}:{port}" + (f" with {options}" if options else "")


def insert_into(session: Session, table: type[Base]) -> Any:
    """An INSERT of this database's dialect, which has `on_conflict_do_nothing` and `on_conflict_do_update`."""
    return insert_by(session.get_bind(), table)


def insert_by(bind: Engine | Connection, table: Any) -> Any:
    """The same for an engine, or a connection, and a table or its class."""
    # Import the module of this dialect only.
    return importlib.import_module(f"sqlalchemy.dialects.{bind.dialect.name}").insert(table)


def begins(column: ColumnElement[Any] | InstrumentedAttribute[Any], text: str) -> ColumnElement[bool]:
    """Whether a text begins so, exactly: SQLite's LIKE takes upper for lower case. It reads all of them."""
    return func.substr(column, 1, len(text)) == text


def utc_now() -> datetime:
    """The current time, aware, in UTC."""
    return datetime.now(UTC)


def _leave_standby(context: ExceptionContext) -> None:
    # The pool's connections look healthy, but lead to a server that is no longer the master. A new connection may find the new master.
    if is_standby(context.original_exception):
        context.is_disconnect = True


def _prepare_sqlite(connection: Any, _: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # the driver must not begin transactions of its own
    cursor = connection.cursor()
    # Set the time-out first: the switch to WAL takes a lock.
    for pragma in (f"busy_timeout={SQLITE_BUSY_TIMEOUT}", "journal_mode=WAL", "foreign_keys=ON", "synchronous=NORMAL"):
        _in_time(partial(cursor.execute, f"PRAGMA {pragma}"))
    cursor.close()


def _in_time(execute: Callable[[], object]) -> None:
    """Execute it, once other writers have ended: SQLite does not wait for them where it switches to WAL."""
    until = time.monotonic() + SQLITE_BUSY_TIMEOUT / 1000
    while True:
        try:
            execute()
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(SQLITE_LOOK_EVERY)
        else:
            return


def _begin_immediately(connection: Any) -> None:
    # A transaction that reads first and writes later would fail at once, without waiting, if another writer came in between.
    read_only = connection.get_execution_options().get("conventions_read_only", False)
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")
