"""A job that has not ended: where it is, and why it waits there. No worker runs here but by hand."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import _state
from redis.exceptions import ConnectionError as RedisConnectionError
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from conventions import EVERY_ARGUMENT, ImmediateTask, Job, create_app
from conventions.app import ConventionsApp
from conventions.broker.redis_broker import HeldMessage
from conventions.core.lease_timings import USUAL
from conventions.idempotency.claim_answers import Parked
from conventions.idempotency.claims import ClaimRequest, Settlement
from conventions.records.journal import SEARCHED, Event
from conventions.storage.layout_version import LAYOUT, LOWEST, member_name
from tests.recorded import drain, recorder
from tests.support import wait_until
from tests.workers import application, close, forget_applications

QUEUE = "immediate"


class Note(ImmediateTask):
    """Take a note."""

    idempotent_on = ("text",)

    def run(self, text: str) -> None:
        """Nothing runs here."""


class Seldom(ImmediateTask):
    """The same, once an hour."""

    idempotent_on = EVERY_ARGUMENT
    rate_limit = "1/h"

    def run(self, number: int) -> None:
        """Nothing runs here."""


def taken(app: ConventionsApp, id_: str, key: str | None = None) -> tuple[HeldMessage, ClaimRequest]:
    """The next message, in hand; and the request for its claim."""
    (delivery,) = app.broker.reserve([QUEUE], 1)
    held = HeldMessage(delivery.tag.decode(), delivery.queue, delivery.receipt)
    assert held.tag == id_
    claim = key or Job.of(id_).key
    assert claim is not None
    return held, ClaimRequest(Note.name, claim, delivery.receipt, id_, "f", held=held)


def test_a_queued_job(app: ConventionsApp) -> None:
    """It says how many come before it, and whether there is a worker at all."""
    first, second = (Note.apply_async((f"{n}",), actor="u-42").id for n in range(2))
    job = Job.of(first)
    assert (job.state, job.task, job.queue, job.actor) == ("queued", Note.name, QUEUE, "u-42")
    assert (job.attempts, job.redrives, job.has_result, job.error, job.due_at) == (0, 0, False, None, None)
    assert job.enqueued_at is not None
    assert abs(datetime.now(UTC) - job.enqueued_at) < timedelta(minutes=1)
    assert job.waits_because == f"it is the next one of the queue {QUEUE}, and no worker of this application runs"
    assert Job.of(second).waits_because.startswith(f"1 messages of the queue {QUEUE} come before it")
    app.store.redis.hset(
        app.store.key("members"),
        member_name("worker a"),
        f"{LOWEST}:{LAYOUT}:{int(datetime.now(UTC).timestamp() * 1000)}",
    )
    assert Job.of(first).waits_because == f"it is the next one of the queue {QUEUE}"
    assert not job.ended
    assert not job.went_well


def test_a_delayed_job(app: ConventionsApp) -> None:
    """It says when it is due."""
    sent = Note.apply_async(("a",), countdown=100)
    job = Job.of(sent.id)
    assert (job.state, job.waits_because) == ("delayed", "it is not due yet")
    assert job.due_at is not None
    assert abs(job.due_at - datetime.now(UTC) - timedelta(seconds=100)) < timedelta(seconds=30)
    assert app.AsyncResult(sent.id).state == "PENDING"


def test_a_job_in_hand(app: ConventionsApp) -> None:
    """Read, begun, begun by a worker that is silent, ended but not acknowledged."""
    sent = Note.delay("a")
    held, request = taken(app, sent.id)
    assert (Job.of(sent.id).state, Job.of(sent.id).attempts) == ("queued", 0)
    assert Job.of(sent.id).waits_because == "a worker has read it, and has no free process for it yet"
    before = datetime.now(UTC)
    app.claims.take([request])
    job = Job.of(sent.id)
    assert (job.state, job.attempts, job.waits_because) == ("running", 1, "")
    assert job.started_at is not None
    assert abs(job.started_at - before) < timedelta(seconds=30)
    assert app.AsyncResult(sent.id).state == "STARTED"
    app.claims.renew([request], 0.001)
    silent = wait_until(lambda: one if (one := Job.of(sent.id)).state != "running" else None)
    assert (silent.state, silent.attempts) == ("queued", 1)
    assert silent.waits_because == "the worker that ran it is silent, and its lease is over: another worker takes it"
    app.claims.renew([request], USUAL.lease)
    event = Event(sent.id, "succeeded", task=Note.name, key=request.key, attempt=1, token=request.token)
    assert app.claims.settle([Settlement(request, "done", event, 7, action="keep")]) == ["recorded"]
    job = Job.of(sent.id)
    assert (job.state, job.has_result, job.result, job.went_well) == ("succeeded", True, 7, True)
    # Its worker may still store a result that is kept; Celery must not be told of an end that it then finds otherwise.
    assert app.AsyncResult(sent.id).state == "STARTED"
    app.broker.acknowledge([held])
    assert (app.AsyncResult(sent.id).state, app.AsyncResult(sent.id).get(timeout=1)) == ("SUCCESS", 7)


def test_a_parked_job(app: ConventionsApp) -> None:
    """It says which message has its key."""
    first, second = Note.delay("a"), Note.delay("a")
    _, one = taken(app, first.id)
    app.claims.take([one])
    _, two = taken(app, second.id)
    (answer,) = app.claims.take([two])
    assert isinstance(answer, Parked)
    job = Job.of(second.id)
    assert (job.state, job.waits_because) == ("parked", f"its idempotency key is in use by the message {first.id}")
    assert job.due_at is not None


def test_a_job_that_its_rate_limit_holds_back(app: ConventionsApp) -> None:
    """It says so."""
    sent = Seldom.delay(1)
    (delivery,) = app.broker.reserve([QUEUE], 1)
    held = HeldMessage(delivery.tag.decode(), delivery.queue, delivery.receipt)
    app.broker.hold_back([held], task=Seldom.name, period=3600)
    assert (Job.of(sent.id).state, Job.of(sent.id).waits_because) == (
        "delayed",
        "the rate limit of its task holds it back",
    )


def test_a_job_whose_task_no_worker_knows(app: ConventionsApp) -> None:
    """It says which, and since when."""
    sent = app.send_task("elsewhere.Other", kwargs={"a": 1}, queue=QUEUE)
    (delivery,) = app.broker.reserve([QUEUE], 1)
    held = HeldMessage(delivery.tag.decode(), delivery.queue, delivery.receipt)
    changes = {"x_unknown": 2, "x_unknown_since": "2026-01-05T00:00:00+00:00"}
    app.broker.put_off(held, 30, changes, "elsewhere.Other")
    assert Job.of(sent.id).state == "delayed"
    assert Job.of(sent.id).waits_because == (
        "no worker that has read it knows the task elsewhere.Other, since 2026-01-05T00:00:00+00:00"
    )


def test_a_job_in_the_outbox(app: ConventionsApp) -> None:
    """Unknown until its transaction has ended, then unsent, then queued."""
    engine = create_engine(app.database.url)
    with Session(engine) as session:
        id_ = Note.enqueue_in(session, "a").id
        session.flush()
        session.commit()
        job = Job.of(id_)
        assert (job.state, job.task, job.waits_because) == (
            "unsent",
            Note.name,
            "it waits in the outbox: a worker sends it",
        )
    engine.dispose()
    assert app.AsyncResult(id_).state == "PENDING"


def test_a_job_that_nobody_knows(app: ConventionsApp) -> None:
    """Its state is unknown, which says what that may mean."""
    job = Job.of("no-such-id")
    assert (job.state, job.ended) == ("unknown", False)
    assert job.waits_because == (
        "nothing is known of it: it was never sent, its sender has not committed yet, or its records are gone"
    )
    assert app.AsyncResult("no-such-id").state == "PENDING"


@pytest.mark.parametrize("wrong", [7, None, object()])
def test_what_is_no_id(app: ConventionsApp, wrong: Any) -> None:
    """It is refused by name."""
    with pytest.raises(TypeError, match=r"Job\.of takes the id of a message as text, not \w+: Job\.of\(result\.id\)"):
        Job.of(wrong)
    with pytest.raises(ValueError, match="not empty"):
        Job.of("")


@pytest.mark.parametrize("wrong", [None, "1", True, -1, float("nan")])
def test_what_is_no_timeout(app: ConventionsApp, wrong: Any) -> None:
    """It is refused, before anything is asked."""
    with pytest.raises(ValueError, match="timeout must be a number of seconds"):
        Job.of("a").wait(wrong)


def test_a_wait_that_is_over(app: ConventionsApp) -> None:
    """Its error says where the job is."""
    sent = Note.apply_async(("a",), countdown=100)
    with pytest.raises(
        TimeoutError, match=rf"the job {sent.id} has not ended within 0\.1 s; it is delayed: it is not due yet"
    ):
        Job.of(sent.id).wait(0.1)
    with pytest.raises(TimeoutError, match="within 0 s; it is delayed"):
        Job.of(sent.id).wait(0)


def test_the_end_is_in_the_journal_until_it_is_in_sql(app: ConventionsApp) -> None:
    """It is found in each, also behind others."""
    app.journal.append([Event("m1", "dead", task=Note.name, attempt=3)])
    app.journal.append([Event(f"n{number}", "succeeded", task=Note.name) for number in range(2500)])
    assert (Job.of("m1").state, Job.of("m1").attempts) == ("dead", 3)
    assert Job.of("n").state == "unknown"  # a part of other ids
    drain(recorder(app.store, app.database), 3000)
    assert (Job.of("m1").state, Job.of("n2499").state) == ("dead", "succeeded")
    assert SEARCHED > 2500


def test_an_id_that_json_writes_otherwise(app: ConventionsApp) -> None:
    """It is found, too."""
    for id_ in ('a"b', "日本", "\\"):
        app.journal.append([Event(id_, "succeeded", task=Note.name)])
        app.journal.append([Event(id_, "succeeded", task=Note.name, arguments={"a": 1})])
        assert Job.of(id_).state == "succeeded"


def test_an_execution_of_another_copy_is_none(app: ConventionsApp) -> None:
    """`superseded` says that another copy is further on."""
    app.journal.append([Event("m1", "succeeded", task=Note.name), Event("m1", "superseded", task=Note.name, attempt=2)])
    app.journal.append([Event("m2", "superseded", task=Note.name, attempt=2)])
    assert (Job.of("m1").state, Job.of("m2").state) == ("succeeded", "unknown")


def test_an_attempt_whose_message_is_gone(app: ConventionsApp) -> None:
    """It is not called lost before the search for lost messages has looked twice."""
    app.journal.append([Event("m1", "retried", task=Note.name, attempt=1)])
    job = Job.of("m1")
    assert (job.state, job.ended) == ("unknown", False)
    assert job.waits_because.startswith("its message is gone from the broker")


def test_a_key_that_was_restored_has_no_result(app: ConventionsApp) -> None:
    """What Redis had is gone: the result is not known, and is not shown as none."""
    app.journal.append([Event("m1", "succeeded", task=Note.name, key="k", attempt=1)])
    app.store.run("remember_done", [f"{Note.name}:k", "m1", 100_000])
    job = Job.of("m1")
    assert (job.state, job.has_result, job.result) == ("succeeded", False, None)


def test_no_database_is_made_by_a_look(valkey_url: str, tmp_path: Path) -> None:
    """An SQLite file that is not there stays so."""
    file = tmp_path / "none.sqlite3"
    with application(broker_url=valkey_url, database_url=f"sqlite:///{file}", key_prefix="t-none") as app:
        assert Job.of("a").state == "unknown"
        assert app.AsyncResult("a").state == "PENDING"
    assert not file.exists()


def test_a_database_that_does_not_answer(valkey_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """`Job.of` says so; Celery's state is its word for what is not known, and SQL is left alone for a moment."""
    url = "postgresql://nobody@127.0.0.1:1/none"
    with application(broker_url=valkey_url, database_url=url, key_prefix="t-away") as app:
        with pytest.raises(Exception, match="connection"):
            Job.of("a")
        assert [app.AsyncResult("a").state for _ in range(3)] == ["PENDING"] * 3
        assert sum("SQL does not answer" in line for line in caplog.messages) == 1
        sent = Note.delay("a")
        assert Job.of(sent.id).state == "queued"
        app.journal.append([Event("m1", "succeeded", task=Note.name)])
        assert app.AsyncResult("m1").state == "SUCCESS"  # what is in the journal is known without SQL


def test_a_redis_that_does_not_answer(tmp_path: Path, new_database: Callable[[Path], str]) -> None:
    """Nothing is known, and nothing is said."""
    with application(broker_url="redis://127.0.0.1:1/0", database_url=new_database(tmp_path)) as app:
        with pytest.raises(RedisConnectionError):
            Job.of("a")
        with pytest.raises(RedisConnectionError):
            _ = app.AsyncResult("a").state


def test_which_application_is_asked(app: ConventionsApp, valkey_url: str, tmp_path: Path) -> None:
    """The only one; of several the current one, or the one that is named."""
    sent = Note.delay("a")
    assert Job.of(sent.id) == Job.of(sent.id, app)
    other = create_app(
        "other",
        packages=["tests.support"],
        schedule=None,
        broker_url=valkey_url,
        key_prefix="t-other",
        database_url=f"sqlite:///{tmp_path}/other",
    )
    try:
        assert Job.of(sent.id).state == "queued"  # `app` is Celery's current one
        assert Job.of(sent.id, other).state == "unknown"
        _state._set_current_app(None)
        _state.set_default_app(None)
        with pytest.raises(RuntimeError, match=r"several applications in this process \(other, tests\): pass app="):
            Job.of(sent.id)
    finally:
        close(other)
    forget_applications()
    with pytest.raises(RuntimeError, match=r"no application: call conventions\.create_app first"):
        Job.of(sent.id)
