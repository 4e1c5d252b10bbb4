"""The pages on PostgreSQL, which refuses what SQLite takes, and counts while others write."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Select
from sqlalchemy.orm import Session

from conventions.app import ConventionsApp
from conventions.dead_letters import groups as letter_groups
from conventions.dead_letters.filter import Filter
from conventions.schedules.schedule_state import Run
from conventions.schedules.schedule_store import Schedules
from conventions.storage.database import Database, utc_now
from conventions.storage.tables import DeadLetterRow
from tests.console.conftest import give_schedule
from tests.console.flower_process import User, flower
from tests.failures import failure, look_up, raised_by, record
from tests.workers import Installation

ADDRESSES = (
    ("/dead-letters", 200),
    ("/dead-letters?task=%00", 200),
    ("/dead-letters?after=0001-01-01T00:00:00%2B23:59~x", 400),
    ("/dead-letters?text=nothing&arg=user_id=7", 200),
    ("/dead-letters/letters/m1", 200),
    ("/dead-letters/letters/%00", 400),
    ("/dead-letters/redrives/%00", 400),
    ("/dead-letters/redrive?group=%00", 200),
    ("/dead-letters/redrive", 200),
    ("/dead-letters/discard?error=KeyError", 200),
    ("/dead-letters/redrives", 200),
    ("/schedules", 200),
    ("/schedules/daily-mail", 200),
    ("/schedules/%00", 404),
    ("/audit", 200),
    ("/audit?actor=%00&id=%00", 200),
    ("/audit?task=Send&since=2h&outcome=dead", 200),
    ("/audit?action=schedule&until=2026-11-25T09:00", 200),
    ("/audit?after=0001-01-01T00:00:00%2B23:59~action~x", 400),
    ("/audit?as=csv", 200),
    ("/audit?as=json&of=executions", 200),
)


@contextmanager
def application(installation: Installation) -> Iterator[ConventionsApp]:
    """The application with its tables."""
    with installation.application() as app:
        app.database.upgrade()
        yield app


def test_the_pages(valkey_url: str, postgres_url: str, tmp_path: Path) -> None:
    """Answer, and call what cannot be looked for what it is."""
    shop = Installation(tmp_path, ["tests.cli.command_tasks"], broker_url=valkey_url, database_url=postgres_url)
    give_schedule(shop, "tests.console.planned")
    with application(shop) as app, flower(shop, FLOWER_BASIC_AUTH="alice:a") as address:
        record(app.database, failure("m1", KeyError("x")), failure("m2"))
        run = Run(None, utc_now(), "m1", "u-42")
        Schedules(app.store).record("daily-mail", run)
        user = User(address, "alice:a")
        try:
            found = [(path, user.get(path).status_code) for path, _ in ADDRESSES]
            numbers = user.post("/dead-letters/redrive", {"count": "2", "canary": "2147483648"}).status_code
            sent = user.post("/dead-letters/redrive", {"count": "2"})
            assert user.get(sent.headers["Location"]).status_code == 200
            assert 'href="/dead-letters/letters/m1"' in user.get("/schedules/daily-mail").text
        finally:
            user.client.close()
        assert found == list(ADDRESSES)
        assert (numbers, sent.status_code) == (400, 303)


def test_a_group_that_is_sent_while_it_is_looked_at(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is left out: another transaction may end between the count and the example."""
    database = Database(postgres_url)
    database.upgrade()
    record(database, failure("m1", KeyError("x")), failure("m2", raised_by(look_up)))
    execute = Session.execute

    def sent_meanwhile(session: Session, statement: Any, *args: Any, **kwargs: Any) -> Any:
        found = execute(session, statement, *args, **kwargs)
        if isinstance(statement, Select) and "count" in str(statement).lower():
            found = found.freeze()()  # read before the other one writes
            with database.session() as other:
                other.get_one(DeadLetterRow, "m1").state = "redriving"
        return found

    with database.session(read_only=True) as session:
        monkeypatch.setattr(Session, "execute", sent_meanwhile)
        found = letter_groups.groups(session, Filter(), 9)
    assert [group.example for group in found] == ["m2"]
    database.dispose()
