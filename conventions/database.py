"""`Database`: the SQL records of one application, on SQLite or PostgreSQL."""

import importlib
import os
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    Double,
    Engine,
    Index,
    String,
    Text,
    TypeDecorator,
    create_engine,
    event,
)
from sqlalchemy.engine import make_url
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import ConnectionPoolEntry

# An encoding of our own, since a server may be set to SQL_ASCII, for which the driver returns bytes.
_POSTGRESQL = {"connect_timeout": 5, "client_encoding": "utf8"}
SQLITE_BUSY_TIMEOUT = 10_000  # milliseconds that a writer waits for another one


class UtcDateTime(TypeDecorator[datetime]):
    """An aware moment, kept as UTC; SQLite has no zones, so the zone is put back on reading."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Store UTC. Raises: ValueError for a moment without a zone."""
        if value is not None and value.tzinfo is None:
            raise ValueError("a moment without a time zone cannot be stored; pass an aware datetime")
        return value and value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Read UTC."""
        return value and (value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC))


class Base(DeclarativeBase):
    """Base of the tables below; their schema is made by `migrations/`."""


class IdempotencyRow(Base):
    """An effect that was committed together with this row (protocol: transactions)."""

    __tablename__ = "conventions_idempotency"

    task: Mapped[str] = mapped_column(String(255), primary_key=True)
    key_hash: Mapped[str] = mapped_column(String(255), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    message_id: Mapped[str] = mapped_column(String(64))
    result: Mapped[Any] = mapped_column(JSON, nullable=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class ExecutionRow(Base):
    """How one attempt at one message ended: one event of the journal."""

    __tablename__ = "conventions_executions"
    __table_args__ = (
        Index("ix_conventions_executions_message", "message_id"),
        Index("ix_conventions_executions_ended", "ended_at"),
        Index("ix_conventions_executions_task_ended", "task", "ended_at"),
        Index("ix_conventions_executions_actor_ended", "actor", "ended_at"),
    )

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    message_id: Mapped[str] = mapped_column(String(255))
    generation: Mapped[int]
    attempt: Mapped[int]
    kind: Mapped[str] = mapped_column(String(32))
    task: Mapped[str | None] = mapped_column(String(255))
    queue: Mapped[str | None] = mapped_column(String(255))
    actor: Mapped[str] = mapped_column(String(255))
    key: Mapped[str | None] = mapped_column(String(255))
    worker: Mapped[str | None] = mapped_column(String(255))
    enqueued_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    ended_at: Mapped[datetime] = mapped_column(UtcDateTime)
    runtime: Mapped[float | None] = mapped_column(Double)  # seconds
    error: Mapped[str | None] = mapped_column(String(255))
    error_message: Mapped[str | None] = mapped_column(Text)
    traceback: Mapped[str | None] = mapped_column(Text)
    fence: Mapped[int] = mapped_column(BigInteger)


class DeadLetterRow(Base):
    """A message that will not be tried again until a person or rule redrives it."""

    __tablename__ = "conventions_dead_letters"
    __table_args__ = (
        Index("ix_conventions_dead_letters_state_last", "state", "last_failed_at"),
        Index("ix_conventions_dead_letters_fingerprint", "fingerprint"),
    )

    id: Mapped[str] = mapped_column(String(255), primary_key=True)
    task: Mapped[str | None] = mapped_column(String(255))
    queue: Mapped[str | None] = mapped_column(String(255))
    error: Mapped[str] = mapped_column(String(255))
    error_message: Mapped[str] = mapped_column(Text)
    traceback: Mapped[str] = mapped_column(Text)
    fingerprint: Mapped[str] = mapped_column(String(64))
    attempts: Mapped[int]
    actor: Mapped[str] = mapped_column(String(255))
    state: Mapped[str] = mapped_column(String(16))
    arguments: Mapped[Any] = mapped_column(JSON)
    headers: Mapped[Any] = mapped_column(JSON)
    # JSON text, not JSON: a message is kept as it was, and a parsed one would lose doubled names and forms of numbers.
    message: Mapped[str | None] = mapped_column(Text)
    generation: Mapped[int]
    fence: Mapped[int] = mapped_column(BigInteger)
    first_failed_at: Mapped[datetime] = mapped_column(UtcDateTime)
    last_failed_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Database:
    """Engine and sessions. Opens no connection until it is used; makes a new engine after a fork.

    Args:
        url: `sqlite:///path` or `postgresql://…` (psycopg 3).
        migrations: further folders of Alembic versions, those of the task packages.
    """

    def __init__(self, url: str, migrations: Sequence[Path] = ()) -> None:
        self.url = make_url(url)
        if self.url.drivername == "postgresql":
            self.url = self.url.set(drivername="postgresql+psycopg")
        self._migrations = tuple(migrations)
        self._engine: Engine | None = None
        self._pid = 0
        # SQLite's locks do not pass a fork: a connection that did would lose what it writes once the parent has
        # closed its own, so none is open then.
        before_fork = weakref.WeakMethod(self.dispose)
        os.register_at_fork(before=lambda: (dispose := before_fork()) and dispose())

    @property
    def is_sqlite(self) -> bool:
        """Whether it is SQLite, where one writer waits for another."""
        return self.url.get_backend_name() == "sqlite"

    @property
    def engine(self) -> Engine:
        """The engine of this process."""
        if self._engine is None or self._pid != os.getpid():
            # A connection inherited through fork belongs to the parent: forget it, do not close it.
            self._engine, self._pid = self._create_engine(), os.getpid()
        return self._engine

    def _create_engine(self) -> Engine:
        if not self.is_sqlite:
            return create_engine(self.url, pool_pre_ping=True, pool_size=2, connect_args=_POSTGRESQL)
        if self.url.database and self.url.database != ":memory:":
            Path(self.url.database).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        engine = create_engine(self.url)
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_immediately)
        return engine

    @contextmanager
    def session(self, *, read_only: bool = False) -> Iterator[Session]:
        """A session that commits at the end of the block, or rolls back when it raises.

        Args:
            read_only: do not wait for those who write.
        """
        engine = self.engine.execution_options(conventions_read_only=read_only)
        with Session(engine) as session, session.begin():
            yield session

    def upgrade(self) -> None:
        """Create or migrate every table (`celery -A <app> db upgrade`); does nothing when up to date."""
        from conventions.migrations.run import upgrade  # noqa: PLC0415  # Alembic takes 0.2 s to import

        upgrade(self.engine, self._migrations)

    def dispose(self) -> None:
        """Close the connections of this process."""
        if self._engine is not None and self._pid == os.getpid():
            self._engine.dispose()
        self._engine = None


def insert_into(session: Session, table: type[Base]) -> Any:
    """An INSERT of this database's dialect, which knows `on_conflict_do_nothing` and `on_conflict_do_update`."""
    name = session.get_bind().dialect.name  # the module of the other dialect need not be imported
    return importlib.import_module(f"sqlalchemy.dialects.{name}").insert(table)


def utc_now() -> datetime:
    """The present, aware, in UTC."""
    return datetime.now(UTC)


def _prepare_sqlite(connection: Any, _: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # the driver must not begin transactions of its own
    cursor = connection.cursor()
    # The time-out first: switching to WAL takes a lock itself.
    for pragma in (f"busy_timeout={SQLITE_BUSY_TIMEOUT}", "journal_mode=WAL", "foreign_keys=ON", "synchronous=NORMAL"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_immediately(connection: Any) -> None:
    # A transaction that reads first and writes later would fail at once, not wait, when another writer came between.
    read_only = connection.get_execution_options().get("conventions_read_only", False)
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")
