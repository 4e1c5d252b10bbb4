"""The business tables of these tasks; their schema is made by `tasks/migrations/`."""

from datetime import UTC, date, datetime

from sqlalchemy import Date, DateTime, Dialect, Index, MetaData, String, TypeDecorator, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


class Utc(TypeDecorator[datetime]):
    """An aware datetime, kept in UTC; SQLite alone would forget the zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        """Refuse a naive datetime. Raises: ValueError."""
        if value is not None and value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone")
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        """Give SQLite's value its zone back."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """Base of the tables below, with metadata of its own."""

    metadata = MetaData(naming_convention=NAMING)


class Contact(Base):
    """Someone who can be written to. Jobs carry `id` only; the address is looked up when they run (R20).

    `source` is the SHA-256 of the file that was imported over it last, `source_line` where its row began there.
    """

    __tablename__ = "contacts"
    __table_args__ = (Index(None, "created_at"), Index(None, "updated_at"))

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(String(254), unique=True)
    name: Mapped[str] = mapped_column(String(200))
    company: Mapped[str] = mapped_column(String(200), default="")
    city: Mapped[str] = mapped_column(String(100), default="")
    country: Mapped[str] = mapped_column(String(2), default="")
    phone: Mapped[str] = mapped_column(String(40), default="")
    source: Mapped[str | None] = mapped_column(String(64))
    source_line: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(Utc)
    updated_at: Mapped[datetime] = mapped_column(Utc)


class EmailLog(Base):
    """One e-mail that was sent: at most one for each user, template and day (R4)."""

    __tablename__ = "email_log"
    __table_args__ = (UniqueConstraint("user_id", "template_id", "day"), Index(None, "sent_at"))

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int]
    template_id: Mapped[str] = mapped_column(String(64))
    day: Mapped[date] = mapped_column(Date)
    job_id: Mapped[str] = mapped_column(String(64))
    recipient: Mapped[str] = mapped_column(String(254))
    message_id: Mapped[str] = mapped_column(String(255))
    sent_at: Mapped[datetime] = mapped_column(Utc)
