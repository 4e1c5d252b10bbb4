"""Rows of the outbox that go in one go: the same messages as one by one, and no row is lost where the broker takes not all of them."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from conventions import EVERY_ARGUMENT, BrokerUnavailable, ImmediateTask, Priority
from conventions.app import ConventionsApp
from conventions.outbox import many_rows, relay
from conventions.outbox.relay import Relay
from conventions.sending.templates import Templates
from conventions.storage.tables import OutboxRow
from tests.workers import Sent, application, forget, messages

OPTIONS: dict[str, Mapping[str, Any]] = {
    "none": {},
    "priority": {"priority": Priority.LOW},
    "queue": {"queue": "other"},
    "countdown": {"countdown": 60},
    "expires": {"expires": 600},
    "headers": {"headers": {"tenant": "a"}},
}


class Receipt(ImmediateTask):
    """Send one receipt."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, order: int, items: list[str]) -> None:
        """Nothing."""


@pytest.fixture
def app(valkey_url: str, new_database: Callable[[Path], str], tmp_path: Path) -> Iterator[ConventionsApp]:
    """An application with an outbox."""
    with application(
        broker_url=valkey_url, database_url=new_database(tmp_path), key_prefix=f"t{uuid4().hex[:8]}", broker_timeout=0.5
    ) as app:
        app.import_packages()
        yield app
        forget(app.store)


def write(app: ConventionsApp, count: int, **options: Any) -> list[str]:
    """Commit some receipts; their ids."""
    with Session(app.database.engine) as session, session.begin():
        orders = [{"order": 7, "items": ["tea", "cup"]}] * count
        return Receipt.options(**options).enqueue_many_in(session, orders)


def left(app: ConventionsApp) -> dict[str, str | None]:
    """The rows that are there, each with its fault."""
    with app.database.session(read_only=True) as session:
        return {row.id: row.fault for row in session.scalars(select(OutboxRow))}


def relayed(app: ConventionsApp) -> int:
    """One look of the relay."""
    return Relay(app, lambda: True).send_part()


def none_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where the relay sends a row by itself."""
    monkeypatch.setattr(Relay, "_send", lambda _, entry: pytest.fail(f"{entry.id} was sent by itself"))


def shape(sent: Sent) -> tuple[Any, ...]:
    """All of a message but for its id and its times."""
    own = {"x_enqueued_at", "id", "root_id", "origin", "eta", "expires"}
    headers = {name: value for name, value in sent.headers.items() if name not in own}
    return sent.task, sent.queue, sent.priority, sent.arguments, headers, {*sent.headers}, sent.following


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_they_are_what_they_are_one_by_one(
    app: ConventionsApp, monkeypatch: pytest.MonkeyPatch, options: Mapping[str, Any]
) -> None:
    """Also with options for which Celery makes each message."""
    with monkeypatch.context() as patch:
        patch.setattr(relay, "send_together", lambda *_: frozenset())
        single = write(app, 1, **options)
        assert relayed(app) == 1
    none_by_itself(monkeypatch)
    many = write(app, 5, **options)
    assert relayed(app) == 5
    found = {sent.id: sent for sent in messages(app)}
    assert found.keys() == {*single, *many}
    expected = shape(found[single[0]])
    assert [shape(found[one]) for one in many] == [expected] * 5
    assert left(app) == {}


def test_kinds_may_be_mixed(app: ConventionsApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each goes into its own queue, in one look."""
    none_by_itself(monkeypatch)
    ids = [one for options in OPTIONS.values() for one in write(app, 3, **options)]
    assert relayed(app) == len(ids)
    assert {sent.id for sent in messages(app)} == {*ids}
    assert left(app) == {}


def test_a_broker_that_takes_nothing(app: ConventionsApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every row is there, to be sent later, and then each once."""
    ids = write(app, 6)
    with monkeypatch.context() as patch:
        patch.setattr(app.broker, "journal_limit", 0)  # the server says no
        relayed(app)
    assert messages(app) == []
    assert {*left(app)} == {*ids}
    assert any("BrokerUnavailable" in (fault or "") for fault in left(app).values())
    with app.database.session() as session:
        for row in session.scalars(select(OutboxRow)):
            row.due_at = row.written_at
    assert relayed(app) == 6
    assert sorted(sent.id for sent in messages(app)) == sorted(ids)


def test_a_later_go_that_is_not_taken(app: ConventionsApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """The earlier ones are sent and deleted; those that are left are tried one by one."""
    monkeypatch.setattr(Templates, "fit", lambda *_: True)  # also where another test has left a receiver of a signal
    ids, taken = write(app, 4), app.broker.publish
    monkeypatch.setattr(many_rows, "BYTES_AT_ONCE", 1)  # each is a go
    goes = list[Any]()

    def publish(publications: Any) -> list[str]:
        goes.append(publications)
        if len(goes) == 3:
            raise BrokerUnavailable("not now")
        return taken(publications)

    monkeypatch.setattr(app.broker, "publish", publish)
    assert relayed(app) == 4
    assert sorted(sent.id for sent in messages(app)) == sorted(ids)
    assert len(goes) == 5  # two, the one that was not taken, and two by themselves
    assert left(app) == {}


def test_rows_that_failed_before_go_by_themselves(app: ConventionsApp) -> None:
    """They would spoil the go of the others."""
    ids = write(app, 3)
    with app.database.session() as session:
        row = session.get_one(OutboxRow, ids[0])
        row.tries, row.task = 1, "elsewhere.Task"
    assert relayed(app) == 3
    assert {sent.id for sent in messages(app)} == {*ids[1:]}
    assert left(app) == {ids[0]: "this worker knows no task of this name"}
