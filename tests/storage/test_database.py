"""The SQL schema and sessions, on SQLite and PostgreSQL: migrated, fork-safe, patient with other writers."""

# ruff: noqa: F811  # pytest passes fixtures as arguments of their names

import os
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select, text
from sqlalchemy.exc import IntegrityError, StatementError

from conventions.storage.database import Database, utc_now
from conventions.storage.tables import IdempotencyRow
from tests.databases import FORKS, database, effect, keys, write  # noqa: F401  # database is a fixture
from tests.support import patient


@pytest.fixture
def sqlite(new_database: Callable[[Path], str], tmp_path: Path) -> Iterator[Database]:
    """A migrated SQLite database."""
    database = Database(new_database(tmp_path))
    yield database
    database.dispose()


moments = st.datetimes(datetime(1901, 1, 1), datetime(2199, 12, 31), timezones=st.timezones())  # noqa: DTZ001  # it adds the zone


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(moment=moments)
def test_a_moment_comes_back_as_the_same_moment(database: Database, moment: datetime) -> None:
    """Of whatever zone; read as UTC, also from SQLite, which has no zones."""
    with database.session() as session:
        session.merge(effect("k", created_at=moment))
    with database.session() as session:
        found = session.get_one(IdempotencyRow, ("Task", "k")).created_at
    assert found == moment.astimezone(UTC)
    assert found.tzinfo is UTC


def test_moments_can_be_compared_in_a_query(database: Database) -> None:
    """A moment of another zone is compared as the moment that it is."""
    noon = datetime(2026, 1, 5, 12, tzinfo=UTC)
    with database.session() as session:
        session.add_all(effect(str(hour), created_at=noon + timedelta(hours=hour)) for hour in range(-2, 3))
    tokyo = noon.astimezone(timezone(timedelta(hours=9)))
    with database.session() as session:
        rows = session.scalars(select(IdempotencyRow.key_hash).where(IdempotencyRow.created_at >= tokyo))
        assert set(rows) == {"0", "1", "2"}


def test_a_moment_without_a_zone_is_refused(database: Database) -> None:
    """Nobody could tell what it means."""
    naive = utc_now().replace(tzinfo=None)
    with pytest.raises(StatementError, match="time zone"), database.session() as session:
        session.add(effect("k", created_at=naive))


def test_a_session_commits_or_rolls_back(database: Database) -> None:
    """At the end of the block, or when it raises."""

    def fail() -> None:
        with database.session() as session:
            session.add(effect("lost"))
            session.flush()
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    write(database, "kept")
    assert keys(database) == {"kept"}


def test_a_key_is_recorded_once(database: Database) -> None:
    """The primary key is what makes an effect happen once."""
    write(database, "k")
    with pytest.raises(IntegrityError):
        write(database, "k")


def _write_in_child(database: Database, *names: str) -> None:
    write(database, *names)
    os._exit(0)


@FORKS
def test_a_database_works_on_both_sides_of_a_fork(database: Database) -> None:
    """Parent and children have connections of their own, also when the parent was connected before."""
    write(database, "before")
    children = [
        get_context("fork").Process(target=_write_in_child, args=(database, f"a{n}", f"b{n}")) for n in range(3)
    ]
    for child in children:
        child.start()
    write(database, *(f"p{n}" for n in range(10)))
    for child in children:
        child.join(patient(20))
        assert child.exitcode == 0
    assert len(keys(database)) == 1 + 3 * 2 + 10


def _write_when_told(database: Database, ready: Any, go: Any) -> None:
    write(database, "first")
    ready.set()
    go.wait(patient(20))
    write(database, "second")
    os._exit(0)


@FORKS
def test_nothing_that_a_child_committed_is_lost_when_its_parent_ends(database: Database) -> None:
    """SQLite's locks do not pass a fork: a connection that did would let others remove the log it writes to."""
    write(database, "before")
    context = get_context("fork")
    ready, go = context.Event(), context.Event()
    child = context.Process(target=_write_when_told, args=(database, ready, go))
    child.start()
    assert ready.wait(patient(20))
    database.dispose()  # as at the end of the parent
    other = Database(database.url.render_as_string(hide_password=False))
    assert keys(other) == {"before", "first"}
    other.dispose()  # as at the end of any command
    go.set()
    child.join(patient(20))
    assert child.exitcode == 0
    assert keys(database) == {"before", "first", "second"}


def test_many_writers_wait_for_each_other(database: Database) -> None:
    """Four threads that read first and write later: none fails, nothing is lost."""

    def count_up(thread: int) -> None:
        for turn in range(10):
            with database.session() as session:
                before = session.scalar(select(func.count()).select_from(IdempotencyRow))
                session.add(effect(f"{thread}.{turn}", result=before))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(count_up, range(4)))
    assert len(keys(database)) == 40


def test_sqlite_is_set_up_for_several_processes(sqlite: Database) -> None:
    """A write-ahead log, patience, and foreign keys that are checked."""
    with sqlite.session() as session:
        read = {
            name: session.scalar(text(f"PRAGMA {name}")) for name in ("journal_mode", "busy_timeout", "foreign_keys")
        }
    assert read == {"journal_mode": "wal", "busy_timeout": 10_000, "foreign_keys": 1}


def test_the_folder_of_a_file_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    """Rows hold payloads, which are nobody else's business."""
    database = Database(f"sqlite:///{tmp_path / 'a' / 'b' / 'x.sqlite3'}")
    database.upgrade()
    database.dispose()
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700


def test_nothing_is_opened_before_the_first_use(tmp_path: Path) -> None:
    """Neither file nor connection."""
    database = Database(f"sqlite:///{tmp_path / 'a' / 'x.sqlite3'}")
    database.dispose()
    assert list(tmp_path.iterdir()) == []
    assert database.is_sqlite


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_postgresql_means_psycopg_3(scheme: str) -> None:
    """Without a driver in the address the installed one is taken; no password is shown."""
    database = Database(f"{scheme}://app:hunter2@db.example/jobs")
    assert database.url.drivername == "postgresql+psycopg"
    assert not database.is_sqlite
    assert "hunter2" not in repr(database.url) + repr(database) + str(database.url)
