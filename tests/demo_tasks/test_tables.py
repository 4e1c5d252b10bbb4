"""The tables and their migration, on each database."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.exc import IntegrityError, StatementError

from conventions.storage.database import Database
from tasks.tables import Base, Contact


def test_the_migration_makes_the_tables_that_the_code_uses(database: Database) -> None:
    """Nothing of ours is missing, nothing differs."""
    ours = set(Base.metadata.tables)
    with database.engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={"include_name": lambda name, kind, _: kind != "table" or name in ours, "compare_type": True},
        )
        assert compare_metadata(context, Base.metadata) == []


def test_upgrading_twice_changes_nothing(database: Database, add_contact: Callable[..., int]) -> None:
    """It is what every start does."""
    contact = add_contact(database, "hnd@example.com")
    database.upgrade()
    with database.session() as session:
        assert session.get_one(Contact, contact).email == "hnd@example.com"


def test_a_moment_keeps_its_time_zone(database: Database, add_contact: Callable[..., int]) -> None:
    """What is written in Tokyo is read as the same moment, in UTC."""
    tokyo = timezone(timedelta(hours=9))
    contact = add_contact(database, "hnd@example.com", created_at=datetime(2026, 1, 5, 8, tzinfo=tokyo))
    with database.session() as session:
        created = session.get_one(Contact, contact).created_at
    assert created == datetime(2026, 1, 4, 23, tzinfo=UTC)
    assert created.utcoffset() == timedelta(0)


def test_a_moment_without_a_time_zone_is_refused(database: Database, add_contact: Callable[..., int]) -> None:
    """It would mean another moment on another machine."""
    with pytest.raises(StatementError, match="has no time zone"):
        add_contact(database, "hnd@example.com", created_at=datetime(2026, 1, 5))  # noqa: DTZ001  # the fault


def test_an_address_is_there_once(database: Database, add_contact: Callable[..., int]) -> None:
    """The database itself sees to it."""
    add_contact(database, "hnd@example.com")
    with pytest.raises(IntegrityError):
        add_contact(database, "hnd@example.com")
