"""The tables of the SQL records, on SQLite and PostgreSQL; their schema is made by `migrations/`."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, DateTime, Dialect, Double, Index, String, Text, TypeDecorator
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


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


UNENDED = "kind IN ('hung', 'lost', 'retried')"  # few beside the others, and looked for by themselves: see `recording/lost_messages.py`


class ExecutionRow(Base):
    """How one attempt at one message ended: one event of the journal."""

    __tablename__ = "conventions_executions"
    __table_args__ = (
        Index("ix_conventions_executions_message", "message_id"),
        Index("ix_conventions_executions_key", "key"),
        Index("ix_conventions_executions_ended", "ended_at"),
        Index("ix_conventions_executions_task_ended", "task", "ended_at"),
        Index("ix_conventions_executions_actor_ended", "actor", "ended_at"),
        # Of the rows of `UNENDED` alone, as its migration says: to say it here would load the dialects of both databases.
        Index("ix_conventions_executions_unended", "ended_at", "id"),
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
        Index("ix_conventions_dead_letters_state_last", "state", "last_failed_at", "id"),
        # Groups are counted from this index alone.
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
    # JSON text, not JSON: a message is kept as it was, and a parsed one would lose doubled names and forms of numbers.
    message: Mapped[str | None] = mapped_column(Text)
    generation: Mapped[int]
    fence: Mapped[int] = mapped_column(BigInteger)
    first_failed_at: Mapped[datetime] = mapped_column(UtcDateTime)
    last_failed_at: Mapped[datetime] = mapped_column(UtcDateTime)
    redrive_id: Mapped[str | None] = mapped_column(String(36))  # the last redrive that sent it
    # What was recorded last of the message that was sent again, or that it was taken for it or left; see `dead_letters/redrive_runs.py`.
    answer: Mapped[str | None] = mapped_column(String(32))
    answered_at: Mapped[datetime | None] = mapped_column(UtcDateTime)  # when the first of it was recorded


class GroupNoteRow(Base):
    """What somebody wrote about the letters of one cause."""

    __tablename__ = "conventions_dead_letter_notes"

    fingerprint: Mapped[str] = mapped_column(String(64), primary_key=True)
    text: Mapped[str] = mapped_column(Text)
    actor: Mapped[str] = mapped_column(String(255))
    written_at: Mapped[datetime] = mapped_column(UtcDateTime)


class RedriveRow(Base):
    """Dead letters that are sent again, some first and then the rest; see `dead_letters/redrive_runs.py`."""

    __tablename__ = "conventions_redrives"
    __table_args__ = (Index("ix_conventions_redrives_created", "created_at"),)

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    state: Mapped[str] = mapped_column(String(16))
    actor: Mapped[str] = mapped_column(String(255))
    reason: Mapped[str | None] = mapped_column(Text)
    selection: Mapped[Any] = mapped_column(JSON)  # the words of a `Filter`
    canary: Mapped[int]
    rate: Mapped[float] = mapped_column(Double)  # letters a second
    stop_at: Mapped[float] = mapped_column(Double)  # percent
    again: Mapped[bool]  # also letters beyond the loop guard
    total: Mapped[int]
    sent: Mapped[int]
    succeeded: Mapped[int]
    failed: Mapped[int]
    note: Mapped[str] = mapped_column(Text)
    fault: Mapped[str | None] = mapped_column(Text)  # why its last step failed, until one passes
    left_error: Mapped[str | None] = mapped_column(Text)  # why the last letter that could not be sent was left
    paced_at: Mapped[datetime | None] = mapped_column(UtcDateTime)  # until when letters were sent, by its rate
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
    ended_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class MarkRow(Base):
    """How far something is, to be compared with what Redis says of it; see `recording/restored_redis.py`."""

    __tablename__ = "conventions_marks"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[int] = mapped_column(BigInteger)
    at: Mapped[datetime] = mapped_column(UtcDateTime)


class AuditRow(Base):
    """One thing that somebody did: who, what, to which, when, why, and what it changed. Never changed itself."""

    __tablename__ = "conventions_audit"
    __table_args__ = (
        Index("ix_conventions_audit_at", "at"),
        Index("ix_conventions_audit_target", "target", "at"),
    )

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    actor: Mapped[str] = mapped_column(String(255))
    action: Mapped[str] = mapped_column(String(64))
    target: Mapped[str] = mapped_column(String(255))
    reason: Mapped[str | None] = mapped_column(Text)
    before: Mapped[Any] = mapped_column(JSON)
    after: Mapped[Any] = mapped_column(JSON)
