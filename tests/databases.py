"""A database of each kind in turn, for tests that must hold on both, and its rows."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from conventions.storage.database import Database, utc_now
from conventions.storage.tables import IdempotencyRow


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path, new_database: Callable[[Path], str]) -> Iterator[Database]:
    """A migrated database, of each kind in turn."""
    database = Database(
        new_database(tmp_path) if request.param == "sqlite" else request.getfixturevalue("migrated_postgres_url")
    )
    yield database
    database.dispose()


FORKS = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # threads of other tests may be alive


def effect(key: str, **values: Any) -> IdempotencyRow:
    """A row."""
    return IdempotencyRow(
        **{"task": "Task", "key_hash": key, "fingerprint": "f", "message_id": "m", "created_at": utc_now()} | values
    )


def write(database: Database, *keys: str) -> None:
    """Commit a row for each key, each in its own transaction."""
    for key in keys:
        with database.session() as session:
            session.add(effect(key))


def keys(database: Database) -> set[str]:
    """The keys that are there."""
    with database.session() as session:
        return set(session.scalars(select(IdempotencyRow.key_hash)))
