"""Who sent a job again, when and why: by redrives of one letter, of several and by a filter, and with the chunks of a batch (R18, R22)."""

# ruff: noqa: F811  # pytest passes fixtures as arguments of their names

from collections.abc import Iterator
from typing import Any

import pytest

from conventions import Job
from conventions.app import ConventionsApp
from conventions.broker.header_names import BATCH
from conventions.core.error_text import describe
from conventions.dead_letters.filter import Filter
from conventions.dead_letters.redrive_rows import RedriveOrder
from conventions.dead_letters.resend import redrive
from conventions.jobs.job_actions import JobAction
from conventions.recording.recorder import Recorder
from conventions.records import audit
from conventions.records.audit_entry import AuditEntry
from conventions.records.journal import Event
from conventions.storage.database import Database
from conventions.storage.tables import DeadLetterRow
from tests.databases import database  # noqa: F401  # a fixture
from tests.failures import failure, record
from tests.redriving import Pay, begin, step
from tests.workers import application, forget, messages


@pytest.fixture
def app(valkey_url: str, database: Database) -> Iterator[ConventionsApp]:
    """An application on each kind of database in turn, with two dead letters."""
    url = database.url.render_as_string(hide_password=False)
    with application([Pay.__module__], broker_url=valkey_url, database_url=url, key_prefix=f"t{id(database)}") as app:
        app.load_tasks()
        for number, id_ in enumerate(("m1", "m2")):
            error = ValueError("the first")
            values: dict[str, Any] = {
                "task": Pay.name,
                "queue": "payments",
                "arguments": {"bill": number},
                "headers": {},
            }
            record(app.database, failure(id_, error, **values))
        yield app
        forget(app.store)


def begun(app: ConventionsApp, which: Filter, actor: str, reason: str | None = None) -> str:
    """A redrive that has sent its letters."""
    id_ = begin(app, RedriveOrder(which, actor, reason, canary=0, stop_at=100))
    step(app, id_)
    return id_


def fail(app: ConventionsApp, id_: str, error: str) -> None:
    """What was sent dies again; its redrive hears of it."""
    (one,) = [one for one in messages(app) if one.id == id_]
    values: dict[str, Any] = {"generation": one.headers["x_generation"], "enqueued_at": one.headers["x_enqueued_at"]}
    failed = describe(Pay.name, ValueError(error))
    forget(app.store)  # a worker has taken it
    values |= {
        "arguments": one.arguments,
        "headers": {name: one.headers[name] for name in (BATCH,) if name in one.headers},
    }
    app.journal.append([Event(id_, "dead", task=Pay.name, queue="payments", attempt=1, failure=failed, **values)])
    Recorder(app.store, lambda: app.database).drain_once()


def of(app: ConventionsApp, id_: str) -> list[tuple[str, str | None, str | None]]:
    """Who redrove a job, why, and by which redrive."""
    return [(one.actor, one.reason, one.redrive) for one in Job.of(id_, app).actions()]


def test_every_redrive_that_sent_it_is_in_its_story(app: ConventionsApp) -> None:
    """One of it alone, one of several and one by a filter; none that chose others, or that came too late."""
    alone = begun(app, Filter(ids=("m1",)), "u-1", "the bank is back")
    other = begun(app, Filter(ids=("m2",)), "u-2")
    fail(app, "m1", "the second")
    step(app, alone)
    both = begun(app, Filter(ids=("m1", "m3")), "u-3", "again")
    fail(app, "m1", "the third")
    step(app, both)
    by_task = begun(app, Filter(task="Pay"), "u-4")
    assert begun(app, Filter(task=Pay.name), "u-5") not in (alone, both, by_task)
    assert of(app, "m1") == [("u-1", "the bank is back", alone), ("u-3", "again", both), ("u-4", None, by_task)]
    assert of(app, "m2") == [("u-2", None, other)]
    first = Job.of("m1", app).actions()[0]
    assert (first.action, first.at.tzinfo is not None) == ("dead-letters redrive", True)


def test_also_without_its_letter(app: ConventionsApp) -> None:
    """A letter that went well is deleted after its time; what it chose by is what its execution says."""
    with app.database.session() as session:
        group = session.get_one(DeadLetterRow, "m1").fingerprint
    by_group = begun(app, Filter(group=group), "u-1")
    fail(app, "m1", "again")
    with app.database.session() as session:
        session.delete(session.get_one(DeadLetterRow, "m1"))
    assert of(app, "m1") == [("u-1", None, by_group)]


def test_of_two_that_may_have_sent_it_neither_is_named(app: ConventionsApp) -> None:
    """But the last one, which the letter knows; and none that has taken it and not sent it."""
    begin(app, RedriveOrder(Filter(task="Pay"), "u-1", canary=0))
    second = begun(app, Filter(ids=("m1",)), "u-2")
    assert of(app, "m1") == [("u-2", None, second)]
    fail(app, "m1", "again")
    assert of(app, "m1") == [("u-2", None, second)]
    with app.database.session() as session:
        session.get_one(DeadLetterRow, "m1").answer = "left"
    assert of(app, "m1") == []


def test_of_a_redrive_and_a_batch_that_may_have_sent_it_neither_is_named(app: ConventionsApp) -> None:
    """The redrive is under way and has not come to this letter; somebody sends the failed chunks of its batch."""
    headers = {BATCH: ["b1", "chunk", 0, 5]}
    arguments = {"bill": 9}
    died = failure("c1", ValueError("x"), task=Pay.name, queue="payments", arguments=arguments, headers=headers)
    record(app.database, died)
    begin(app, RedriveOrder(Filter(task="Pay"), "ann", "all of them", canary=1, stop_at=100))
    with app.database.session() as session:
        audit.record(session, AuditEntry("bob", "batch retry-failed", "b1", "the batch", None, {"letters": 1}))
    assert redrive(app, "c1", "ann")
    assert [actor for actor, *_ in of(app, "c1")] == ["bob"], "the letter says that no redrive has sent it"
    fail(app, "c1", "again")
    assert of(app, "c1") == []


def test_a_chunk_that_was_sent_with_its_batch(app: ConventionsApp) -> None:
    """The batch has the row of the audit."""
    headers = {BATCH: ["b1", "chunk", 0, 5]}
    record(app.database, failure("c1", ValueError("x"), task=Pay.name, queue="payments", arguments={"bill": 9}, headers=headers))  # fmt: skip
    with app.database.session() as session:
        audit.record(session, AuditEntry("u-1", "batch retry-failed", "b1", "it is back", None, {"letters": 1}))
        audit.record(session, AuditEntry("u-1", "batch retry-failed", "b2", "another", None, {"letters": 1}))
    assert Job.of("c1", app).actions() == ()
    assert redrive(app, "c1", "ann")
    (found,) = Job.of("c1", app).actions()
    assert found == JobAction(found.at, "u-1", "batch retry-failed", "it is back", None, {"letters": 1})
    fail(app, "c1", "again")
    assert Job.of("c1", app).actions() == (found,)
