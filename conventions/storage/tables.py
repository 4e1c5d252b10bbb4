"""The tables of the SQL records, on SQLite and PostgreSQL; their schema is made by `migrations/`."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, DateTime, Dialect, Double, Index, String, Text, TypeDecorator
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class UtcDateTime(TypeDecorator[datetime]):
    """An aware time, stored in UTC. SQLite has no time zones, so the zone is added when reading."""

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
    """An effect that was committed in the same transaction as this row."""

    __tablename__ = "conventions_idempotency"

    task: Mapped[str] = mapped_column(String(255), primary_key=True)
    key_hash: Mapped[str] = mapped_column(String(255), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    message_id: Mapped[str] = mapped_column(String(64))
    result: Mapped[Any] = mapped_column(JSON, nullable=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


WAITS, NUMBERED = "number IS NULL", "number <> 0"  # rows that are not in the chain yet, and those that are
UNENDED = "kind IN ('hung', 'lost', 'retried')"  # jobs without an outcome: few rows, searched by `recording/lost_message_search.py`


class ExecutionRow(Base):
    """How one attempt at one message ended: one event of the journal."""

    __tablename__ = "conventions_executions"
    __table_args__ = (
        Index("ix_conventions_executions_message", "message_id"),
        Index("ix_conventions_executions_key", "key"),
        Index("ix_conventions_executions_ended", "ended_at"),
        Index("ix_conventions_executions_task_ended", "task", "ended_at"),
        Index("ix_conventions_executions_actor_ended", "actor", "ended_at"),
        # Their migrations limit them to the rows of `UNENDED`, `WAITS` and `NUMBERED`. To say so here would load the dialects of both databases.
        Index("ix_conventions_executions_unended", "ended_at", "id"),
        Index("ix_conventions_executions_waits", "ended_at"),
        Index("ix_conventions_executions_number", "number"),
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
    wait: Mapped[float | None] = mapped_column(Double)  # seconds from when it was ready to its start
    release: Mapped[str | None] = mapped_column(String(255))
    fingerprint: Mapped[str | None] = mapped_column(String(64))  # of its cause, where it failed
    error: Mapped[str | None] = mapped_column(String(255))
    error_message: Mapped[str | None] = mapped_column(Text)
    traceback: Mapped[str | None] = mapped_column(Text)
    fence: Mapped[int] = mapped_column(BigInteger)
    number: Mapped[int | None] = mapped_column(BigInteger)  # its place in the chain, see `proof/chain.py`
    code: Mapped[str | None] = mapped_column(String(41))  # its code in the chain; before it is there, its signature
    erased: Mapped[str | None] = mapped_column(String(24))  # its second code, once an actor's name is erased in it


class AttemptLogRow(Base):
    """What one run of an attempt has logged. An attempt whose process was killed runs again, under another token."""

    __tablename__ = "conventions_attempt_logs"
    __table_args__ = (Index("ix_conventions_attempt_logs_at", "at"),)

    message_id: Mapped[str] = mapped_column(String(255), primary_key=True)
    generation: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    attempt: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    token: Mapped[str] = mapped_column(String(255), primary_key=True)
    lines: Mapped[str] = mapped_column(Text)  # one JSON object in each line
    left_out: Mapped[int]  # lines, from the middle
    at: Mapped[datetime] = mapped_column(UtcDateTime)  # when it was moved here


class DeadLetterRow(Base):
    """A message that is not retried until a person or a rule redrives it."""

    __tablename__ = "conventions_dead_letters"
    __table_args__ = (
        Index("ix_conventions_dead_letters_state_last", "state", "last_failed_at", "id"),
        # The counts of groups read this index only, not the table.
        Index("ix_conventions_dead_letters_group", "state", "fingerprint", "last_failed_at", "first_failed_at"),
        Index("ix_conventions_dead_letters_task", "state", "task", "last_failed_at"),
        Index("ix_conventions_dead_letters_redrive", "redrive_id", "state", "answer"),
        Index("ix_conventions_dead_letters_answered", "redrive_id", "answered_at"),
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
    # JSON text, not parsed JSON: parsing would lose repeated names and the spelling of numbers.
    message: Mapped[str | None] = mapped_column(Text)
    generation: Mapped[int]
    fence: Mapped[int] = mapped_column(BigInteger)
    first_failed_at: Mapped[datetime] = mapped_column(UtcDateTime)
    last_failed_at: Mapped[datetime] = mapped_column(UtcDateTime)
    redrive_id: Mapped[str | None] = mapped_column(String(36))  # the last redrive run that sent it
    # The last recorded event of the resent message, or that the redrive took or left the letter; see `dead_letters/redrive_rows.py`.
    answer: Mapped[str | None] = mapped_column(String(32))
    answered_at: Mapped[datetime | None] = mapped_column(UtcDateTime)  # when the first such event was recorded


class GroupNoteRow(Base):
    """A note that somebody wrote about the letters of one cause."""

    __tablename__ = "conventions_dead_letter_notes"

    fingerprint: Mapped[str] = mapped_column(String(64), primary_key=True)
    text: Mapped[str] = mapped_column(Text)
    actor: Mapped[str] = mapped_column(String(255))
    written_at: Mapped[datetime] = mapped_column(UtcDateTime)


class RedriveRow(Base):
    """A redrive run: some dead letters are sent again first, then the rest; see `dead_letters/redrive_rows.py`."""

    __tablename__ = "conventions_redrives"
    __table_args__ = (Index("ix_conventions_redrives_created", "created_at"),)

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    state: Mapped[str] = mapped_column(String(16))
    actor: Mapped[str] = mapped_column(String(255))
    reason: Mapped[str | None] = mapped_column(Text)
    selection: Mapped[Any] = mapped_column(JSON)  # a `Filter` as JSON
    canary: Mapped[int]
    rate: Mapped[float] = mapped_column(Double)  # letters a second
    stop_at: Mapped[float] = mapped_column(Double)  # percent
    again: Mapped[bool]  # also letters that the loop guard would stop
    priority: Mapped[str | None] = mapped_column(String(16))  # a `Priority` by its name; `None`: as each was sent
    total: Mapped[int]
    sent: Mapped[int]
    succeeded: Mapped[int]
    failed: Mapped[int]
    sent_again: Mapped[int] = mapped_column(server_default="0")  # of those that failed, by a later redrive
    note: Mapped[str] = mapped_column(Text)
    fault: Mapped[str | None] = mapped_column(Text)  # why its last step failed; empty after a step that worked
    left_error: Mapped[str | None] = mapped_column(Text)  # why the last unsendable letter was left out
    # Class and text of the last error when it ended: another redrive may take the letter that has it.
    last_error: Mapped[str | None] = mapped_column(Text)
    paced_at: Mapped[datetime | None] = mapped_column(
        UtcDateTime
    )  # the time up to which its rate allowed letters to be sent
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
    ended_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class OutboxRow(Base):
    """A message that waits for the relay. It is written in a transaction of the team's, and deleted when the broker has the message."""

    __tablename__ = "conventions_outbox"
    __table_args__ = (Index("ix_conventions_outbox_due", "application", "due_at", "written_at"),)

    id: Mapped[str] = mapped_column(String(255), primary_key=True)
    application: Mapped[str] = mapped_column(String(255))  # its key prefix: several may have one database
    task: Mapped[str] = mapped_column(String(255))
    # JSON as text: it is sent as it was checked.
    arguments: Mapped[str] = mapped_column(Text)
    headers: Mapped[str] = mapped_column(Text)
    options: Mapped[str] = mapped_column(Text)
    written_at: Mapped[datetime] = mapped_column(UtcDateTime)
    due_at: Mapped[datetime] = mapped_column(UtcDateTime)  # when the relay takes it; 1970 until it was tried
    tries: Mapped[int]
    fault: Mapped[str | None] = mapped_column(Text)  # why the last try failed


class MarkRow(Base):
    """How far something has got, to compare with Redis; see `recording/restored_redis.py`."""

    __tablename__ = "conventions_marks"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[int] = mapped_column(BigInteger)
    at: Mapped[datetime] = mapped_column(UtcDateTime)


class ActorRoleRow(Base):
    """An actor has a role; see `permission/roles.py`."""

    __tablename__ = "conventions_actor_roles"

    actor: Mapped[str] = mapped_column(String(255), primary_key=True)
    role: Mapped[str] = mapped_column(String(255), primary_key=True)


class RolePermissionRow(Base):
    """A role has a permission."""

    __tablename__ = "conventions_role_permissions"

    role: Mapped[str] = mapped_column(String(255), primary_key=True)
    permission: Mapped[str] = mapped_column(String(255), primary_key=True)


class AuditRow(Base):
    """One action of a person: who, what, on which target, when, why, and what it changed. It never changes."""

    __tablename__ = "conventions_audit"
    __table_args__ = (
        Index("ix_conventions_audit_at", "at"),
        Index("ix_conventions_audit_target", "target", "at"),
        # As those of the executions.
        Index("ix_conventions_audit_waits", "at"),
        Index("ix_conventions_audit_number", "number"),
    )

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    actor: Mapped[str] = mapped_column(String(255))
    action: Mapped[str] = mapped_column(String(64))
    target: Mapped[str] = mapped_column(String(255))
    reason: Mapped[str | None] = mapped_column(Text)
    before: Mapped[Any] = mapped_column(JSON)
    after: Mapped[Any] = mapped_column(JSON)
    number: Mapped[int | None] = mapped_column(BigInteger)  # as that of an execution
    code: Mapped[str | None] = mapped_column(String(41))
    erased: Mapped[str | None] = mapped_column(String(24))


class SegmentRow(Base):
    """A part of a chain of executions or actions: its rows may be deleted, and it stays; see `proof/chain.py`. Number 0 is the beginning of a chain."""

    __tablename__ = "conventions_audit_segments"

    chain: Mapped[str] = mapped_column(String(16), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    form: Mapped[int]  # of the texts whose codes its rows have
    key: Mapped[str] = mapped_column(String(16))  # the name of the key that has sealed it
    first: Mapped[int] = mapped_column(BigInteger)  # the numbers of its rows
    last: Mapped[int] = mapped_column(BigInteger)
    previous: Mapped[str] = mapped_column(String(64))  # the hash at the end of the segment before
    hash: Mapped[str] = mapped_column(String(64))  # the same at its own end
    opened_at: Mapped[datetime] = mapped_column(UtcDateTime)
    first_at: Mapped[datetime] = mapped_column(
        UtcDateTime
    )  # the earliest and the last moment of what its rows tell, and of its begin
    last_at: Mapped[datetime] = mapped_column(UtcDateTime)
    code: Mapped[str] = mapped_column(String(24))


class ActorSaltRow(Base):
    """What the name of an actor enters a code with. Without it nobody can tell from a code who it was; see `proof/actor_codes.py`."""

    __tablename__ = "conventions_actor_salts"

    actor: Mapped[str] = mapped_column(String(255), primary_key=True)
    salt: Mapped[str] = mapped_column(String(32))
