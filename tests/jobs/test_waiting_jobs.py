"""A job that has not ended: where it is, and why it waits there. No worker runs here but by hand."""

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import _state
from redis.exceptions import ConnectionError as RedisConnectionError
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from conventions import EVERY_ARGUMENT, ImmediateTask, Job, create_app
from conventions.app import ConventionsApp
from conventions.broker.redis_broker import HeldMessage, Publication
from conventions.core.error_text import describe
from conventions.core.lease_timings import USUAL
from conventions.idempotency.claim_answers import Parked
from conventions.idempotency.claim_reading import read_claim
from conventions.idempotency.claims import ClaimRequest, Settlement
from conventions.jobs.gather_facts import WITHIN
from conventions.pauses.pause_actions import PauseActions
from conventions.pauses.pause_store import Target
from conventions.records.journal import SEARCHED, Event
from conventions.storage.layout_version import LAYOUT, LOWEST, member_name
from conventions.storage.tables import DeadLetterRow
from tests.failures import failure, record
from tests.recorded import append, drain, entry, recorder
from tests.support import at_most
from tests.workers import application, close, forget, forget_applications

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


def written(id_: str, task: str, **headers: Any) -> str:
    """A message as kombu writes it, as far as a look reads it."""
    return json.dumps({"headers": {"id": id_, "task": task, **headers}})


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
    assert Job.of(second).waits_because.startswith(f"one message of the queue {QUEUE} comes before it")
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


CANCELLED = "it is cancelled, and will not run: a worker removes it when its turn comes"


def test_a_cancelled_job_that_waits(app: ConventionsApp) -> None:
    """It says that it will not run, where it waits, and keeps when it would have been due; also in a paused queue, and after a failure."""
    actions = PauseActions(app.store)
    actions.pause(Target("queue", QUEUE), "ops", "the bank is down", None)
    plain, delayed = Note.delay("a").id, Note.apply_async(("b",), countdown=100).id
    due_at = Job.of(delayed).due_at
    assert due_at is not None
    for one in (plain, delayed):
        assert Note.cancel(one) == "queued"
        job = Job.of(one)
        assert (job.state, job.ended) == ("queued", False)
        assert job.waits_because.startswith(f"{CANCELLED}; its queue is paused by ops since")
        assert "come" not in job.waits_because.removeprefix(CANCELLED)
    assert (Job.of(plain).due_at, Job.of(delayed).due_at) == (None, due_at)
    actions.resume(Target("queue", QUEUE), "ops", None)
    assert Job.of(delayed).waits_because == f"{CANCELLED}; no worker of this application runs"


def test_a_cancelled_job_that_was_to_be_tried_again(app: ConventionsApp) -> None:
    """Its last error stays there. A cancel of what went before a redrive says nothing of it."""
    again = app.broker.publish([Publication("m1", QUEUE, written("m1", Note.name, retries=1), 3, wait=60)])
    append(
        app.store,
        entry(Event("m1", "retried", task=Note.name, attempt=1, failure=describe(Note.name, ValueError("no")))),
    )
    due_at = Job.of(again[0]).due_at
    Note.cancel("m1")
    job = Job.of("m1")
    assert (job.state, job.error, job.due_at) == ("queued", "ValueError", due_at)
    assert job.waits_because.startswith(CANCELLED)
    app.broker.publish([Publication("m2", QUEUE, written("m2", Note.name), 3, generation=2)])
    app.store.redis.set(app.store.key("cancel", "m2"), 1)
    assert not Job.of("m2").waits_because.startswith(CANCELLED)


def test_a_cancelled_job_that_the_pause_of_its_task_holds_back(app: ConventionsApp) -> None:
    """The hour after which a worker looks again is no time at which it was due."""
    sent = Note.delay("a")
    (delivery,) = app.broker.reserve([QUEUE], 1)
    held = HeldMessage(delivery.tag.decode(), delivery.queue, delivery.receipt)
    assert app.broker.hold_back([held], task=Note.name, period=0.0, why="paused") == 1
    Note.cancel(sent.id)
    job = Job.of(sent.id)
    assert (job.state, job.due_at, job.waits_because.startswith(CANCELLED)) == ("queued", None, True)


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
    claim = app.store.key("claim", request.claim)
    app.store.redis.hset(claim, "until", 1)  # its lease is over
    silent = Job.of(sent.id)
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
    app.journal.append([Event("m1", "dead", task=Note.name, attempt=3, started_at=datetime.now(UTC))])
    app.journal.append([Event(f"n{number}", "succeeded", task=Note.name) for number in range(2500)])
    assert (Job.of("m1").state, Job.of("m1").attempts) == ("dead", 3)
    assert Job.of("n").state == "unknown"  # a part of other ids
    drain(recorder(app.store, app.database), 3000)
    assert (Job.of("m1").state, Job.of("n2499").state) == ("dead", "succeeded")
    assert SEARCHED > 2500


def test_an_id_that_json_writes_otherwise(app: ConventionsApp) -> None:
    """It is found, too."""
    for id_ in ('a"b', "日本", "\\", 'a"日', "order/7"):
        app.journal.append([Event(id_, "succeeded", task=Note.name)])
        assert Job.of(id_).state == "succeeded"
        app.journal.append([Event(id_, "dead", task=Note.name, arguments={"a": 1})])
        assert Job.of(id_).state == "dead"
    gone = b'{"error":"Lost","error_message":"its message is gone from Redis","traceback":"","fingerprint":""}'
    lost = (
        b'{"message_id":"order\\/8","kind":"lost","queue":"q","token":"lost-1","failure":%b}' % gone
    )  # as a script writes it
    app.store.redis.xadd(app.journal.key, {"event": lost, "fence": 0})
    assert Job.of("order/8").state == "lost"


@pytest.mark.parametrize("id_", ["a\0b", "\ud800", "x" * 300])
def test_an_id_that_no_message_can_have(app: ConventionsApp, id_: str, caplog: pytest.LogCaptureFixture) -> None:
    """No server is asked for it, and SQL is not taken for one that does not answer."""
    job = Job.of(id_)
    assert (job.state, job.waits_because.startswith("no message can have this id: it h")) == ("unknown", True)
    if id_.isprintable() or id_.isascii():  # Celery itself cannot ask for half a character
        assert app.AsyncResult(id_).state == "PENDING"
    assert "SQL does not answer" not in caplog.text


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


LATE, LATER = datetime(2026, 1, 5, 9, tzinfo=UTC), datetime(2026, 1, 5, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    ("first", "second", "state", "attempts"),
    [
        (("retried", 0, 1), ("revoked", 0, 1), "revoked", 1),  # before its second attempt
        (("retried", 0, 1), ("lost", 0, 0), "lost", 1),  # found by the server, which knows no attempt
        (("retried", 1, 1), ("lost", 0, 0), "lost", 1),  # after a redrive
        (("dead", 0, 5), ("succeeded", 0, 1), "succeeded", 5),  # sent again under its id
        (("succeeded", 0, 1), ("retried", 0, 1), "unknown", 1),  # sent again, and on its way
        (("retried", 0, 1), ("cancelled", 0, 2), "cancelled", 1),  # the second attempt has not begun
    ],
)
def test_what_happened_last_counts(
    app: ConventionsApp, first: tuple[str, int, int], second: tuple[str, int, int], state: str, attempts: int
) -> None:
    """Whatever its attempt and its fence; an attempt that was kept from beginning does not count."""
    for fence, at, (kind, generation, attempt) in ((1700, LATE, first), (0, LATER, second)):
        event = Event("m1", kind, task=Note.name, generation=generation, attempt=attempt)
        append(app.store, entry(event, fence=fence, at=int(at.timestamp() * 1000)))
    drain(recorder(app.store, app.database))
    assert (Job.of("m1").state, Job.of("m1").attempts) == (state, attempts)


def test_an_end_that_is_recorded_while_one_looks(app: ConventionsApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """The records were read before, and its progress says already that it has ended."""
    app.store.redis.hset(app.store.key("progress", "m1"), mapping={"started_at": 1, "ended": "done"})
    find, calls = app.journal.find, list[str]()

    def ends_meanwhile(id_: str) -> Any:
        found = find(id_)
        if not calls:
            app.journal.append([Event("m1", "succeeded", task=Note.name, attempt=1, worker="w")])
        calls.append(id_)
        return found

    monkeypatch.setattr(app.journal, "find", ends_meanwhile)
    assert (Job.of("m1").state, Job.of("m1").worker) == ("succeeded", "w")


def test_progress_of_a_job_that_is_gone(app: ConventionsApp) -> None:
    """Its message is nowhere, so it does not run, whatever it said last."""
    app.store.redis.hset(
        app.store.key("progress", "m1"), mapping={"started_at": 1, "updated_at": time.time(), "done": 3}
    )
    job = Job.of("m1")
    assert job.progress is not None
    assert (job.state, job.progress.done) == ("unknown", 3)


def test_a_letter_that_another_message_has_done(app: ConventionsApp) -> None:
    """It is a duplicate; one that was purged after it was sent again is dead again."""
    for id_ in ("m1", "m2"):
        record(app.database, failure(id_, ValueError("no"), task=Note.name))
        assert Job.of(id_).state == "dead"
    with app.database.session() as session:
        session.get_one(DeadLetterRow, "m1").state = "redriven"
    assert Job.of("m1").state == "duplicate"
    append(app.store, entry(Event("m2", "purged", task=Note.name, generation=1), at=int(time.time() * 1000) + 1000))
    assert Job.of("m2").state == "dead"


def test_a_message_under_an_id_that_is_there(app: ConventionsApp) -> None:
    """As `self.replace` sends it: it has another tag, and is found when the first one is gone."""
    app.broker.publish([Publication("m1", QUEUE, written("m1", Note.name), 3, digest="a")])
    (tag,) = app.broker.publish([Publication("m1", QUEUE, written("m1", Note.name), 3, digest="b", wait=60)])
    assert tag != "m1"
    assert Job.of("m1").state == "queued"
    (delivery,) = app.broker.reserve([QUEUE], 1)
    app.broker.acknowledge([HeldMessage(delivery.tag.decode(), QUEUE, delivery.receipt)])
    assert Job.of("m1").state == "delayed"


def test_a_message_under_an_old_name(app: ConventionsApp) -> None:
    """Its claim has the name of the task."""
    app.broker.publish([Publication("m1", QUEUE, written("m1", "old.Note", x_key="k"), 3)])
    (delivery,) = app.broker.reserve([QUEUE], 1)
    held = HeldMessage(delivery.tag.decode(), delivery.queue, delivery.receipt)
    app.import_packages()
    app.tasks["old.Note"] = app.tasks[Note.name]
    app.claims.take([ClaimRequest(Note.name, "k", delivery.receipt, "m1", "f", held=held)])
    assert Job.of("m1").started_at is not None


@pytest.mark.parametrize(
    "fields",
    [
        {"generation": "many"},
        {"attempt": "many"},
        {"changes": "{"},
        {"changes": "[1]"},
        {"payload": "{}"},
        {"payload": '{"headers": {"task": 7, "x_key": "\\ud800", "x_actor": [], "x_enqueued_at": 1}}'},
        {"form": "2"},
    ],
)
@pytest.mark.parametrize("place", ["queue", "delayed"])
def test_a_message_of_another_program(app: ConventionsApp, fields: dict[str, str], place: str) -> None:
    """What it says is taken for what it is, and the look does not fail."""
    app.broker.publish([Publication("m1", QUEUE, written("m1", Note.name), 3)])
    message = {"queue": QUEUE, "score": "1", "priority": "3", "digest": "", "generation": "0", "payload": "{}"}
    app.store.redis.delete(app.store.key("message", "m1"), app.store.key("queue", QUEUE))
    app.store.redis.hset(app.store.key("message", "m1"), mapping=dict[Any, Any](message | fields))
    app.store.redis.zadd(app.store.key(place, QUEUE), {"m1": float("inf")})
    job = Job.of("m1")
    assert job.state in ("queued", "delayed", "retrying")
    if "form" in fields:
        assert job.waits_because == "a later release has written it, and this one cannot read it"


@pytest.mark.parametrize("result", ["{", ""])
def test_a_claim_of_another_program(app: ConventionsApp, result: str) -> None:
    """Its result is not known, and the look does not fail."""
    app.journal.append([Event("m1", "succeeded", task=Note.name, key="k", attempt=1)])
    fields = {"state": "done", "id": "m1", "until": "soon", "fence": "x", "generation": "", "result": result}
    app.store.redis.hset(app.store.key("claim", f"{Note.name}:k"), mapping=dict[Any, Any](fields))
    assert (Job.of("m1").state, Job.of("m1").has_result) == ("succeeded", False)


def test_a_look_leaves_a_claim_as_it_is_stored(app: ConventionsApp) -> None:
    """That of a job in a group is one string, which takes less room."""
    key, name = app.store.key("claim", f"{Note.name}:k"), f"{Note.name}:k"
    app.store.redis.set(key, "D\x1ft\x1fs\x1f1700000000000000\x1f0\x1fm1\x1f1\x1ff\x1f\x1f" + '{"a": "\\u001f"}')
    app.journal.append([Event("m1", "succeeded", task=Note.name, key="k", attempt=1)])
    assert Job.of("m1").result == {"a": "\x1f"}
    assert app.store.redis.type(key) == b"string"
    reading = read_claim(app.store, name)
    assert reading is not None
    assert (reading.state, reading.message_id, reading.attempt) == ("done", "m1", 1)


@pytest.mark.thorough
def test_tables_that_are_locked(migrated_postgres_url: str, valkey_url: str) -> None:
    """As by a migration: a look gives up after two seconds, a wait at its time-out, and a state is not known."""
    with application(broker_url=valkey_url, database_url=migrated_postgres_url, key_prefix="t-locked") as app:
        with app.database.session() as session:
            session.execute(text("LOCK TABLE conventions_executions IN ACCESS EXCLUSIVE MODE"))
            with at_most(WITHIN, slack=2), pytest.raises(OperationalError, match="statement timeout"):
                Job.of("m1")
            with at_most(WITHIN, slack=2):
                assert app.AsyncResult("m1").state == "PENDING"
            # SQL is left alone, in each thread.
            with at_most(0.1, slack=1), ThreadPoolExecutor(2) as threads:
                assert list(threads.map(lambda _: app.AsyncResult("m1").state, range(4))) == ["PENDING"] * 4
        assert Job.of("m1").state == "unknown"
        forget(app.store)
