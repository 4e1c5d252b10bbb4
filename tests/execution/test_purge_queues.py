"""Purge: whatever is removed has a row, a batch counts it, a schedule does not wait for it, a letter is dead again."""

import getpass
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from conventions import EVERY_ARGUMENT, BatchTask, ImmediateTask, RetryPolicy, acting_as
from conventions.app import ConventionsApp
from conventions.batches.batch_state import Origin
from conventions.broker import redis_port
from conventions.broker.batch_membership import chunk_id, finish_id
from conventions.broker.redis_broker import Sizes
from conventions.broker.waiting_messages import end
from conventions.core.errors import PurgeStopped
from conventions.dead_letters import letters as dead_letters
from conventions.dead_letters.resend import redrive
from conventions.execution.purge_queues import purge
from conventions.records import audit, executions
from conventions.records.journal import Event, Journal
from conventions.storage.tables import ExecutionRow
from tests.recorded import FAILURE, contents, drain, recorder
from tests.workers import letters, messages


class Post(ImmediateTask):
    """Post a letter."""

    idempotent_on = EVERY_ARGUMENT
    retry_policy = RetryPolicy(attempts=1)

    def run(self, number: int) -> None:
        """Nothing runs here."""


class Numbers(BatchTask):
    """Add numbers."""

    idempotent_on = EVERY_ARGUMENT

    def items(self, n: int) -> list[int]:
        return list(range(n))

    def process(self, chunk: list[int], n: int) -> None:
        """Nothing runs here."""


def record(app: ConventionsApp) -> None:
    """Put what happened into SQL."""
    drain(recorder(app.store, app.database))


def rows(app: ConventionsApp) -> list[dict[str, Any]]:
    """Executions, once everything is recorded."""
    record(app)
    return contents(app.database, ExecutionRow)


def deeds(app: ConventionsApp) -> list[tuple[str, str, str, Any, Any]]:
    """The audit, once everything is recorded."""
    record(app)
    with app.database.session() as session:
        return [(row.actor, row.action, row.target, row.before, row.after) for row in audit.listing(session, 10)]


def by_channel(app: ConventionsApp, what: str) -> int:
    """A method of kombu's channel, on the three queues that the test uses."""
    with app.connection_for_write() as connection:
        return sum(getattr(connection.default_channel, what)(queue) or 0 for queue in ("immediate", "other", "long"))


def control(app: ConventionsApp, what: str) -> int:
    """A method of Celery's remote control."""
    found: int = getattr(app.control, what)()
    return found


FORMS: dict[str, Callable[[ConventionsApp], int]] = {
    "control.purge": lambda app: control(app, "purge"),
    "control.discard_all": lambda app: control(app, "discard_all"),
    "queue_purge": lambda app: by_channel(app, "queue_purge"),
}


@pytest.mark.parametrize("form", FORMS)
def test_what_is_purged_has_a_row(app: ConventionsApp, form: str) -> None:
    """Ready, delayed and tried messages of every queue, by whom; what a worker holds stays."""
    with acting_as("u-1"):
        held = Post.delay(0).id
    (delivery,) = app.broker.reserve(["immediate"], 1)
    with acting_as("u-7"):
        ids = [Post.delay(1).id, Post.apply_async((2,), countdown=60).id, Post.apply_async((3,), queue="other").id]
    assert FORMS[form](app) == 3
    assert [one.id for one in messages(app)] == [held]
    assert app.broker.sizes("immediate") == Sizes(0, 0, 1)
    found = {row["message_id"]: row for row in rows(app)}
    assert {id_: (row["kind"], row["task"], row["actor"]) for id_, row in found.items()} == dict.fromkeys(
        ids, ("purged", Post.name, "u-7")
    )
    assert found[ids[2]]["error_message"] == f"removed from the queue other by {getpass.getuser()}"
    assert {actor for actor, *_ in deeds(app)} == {getpass.getuser()}
    assert {action for _, action, *_ in deeds(app)} == {"purge begins", "purge"}
    app.in_flight.forget(delivery.receipt)


def test_the_deed_says_what_there_was_and_what_went(app: ConventionsApp) -> None:
    """Two rows for all queues, before and after it, in the name of the actor; more for a queue that is deleted."""
    Post.delay(1)
    Post.apply_async((2,), countdown=60)
    Post.apply_async((3,), queue="other")
    with acting_as("u-9"):
        assert purge(app, ["immediate", "other"], reason="a flood") == {"immediate": 2, "other": 1}
    before = {
        "immediate": {"ready": 1, "delayed": 1, "in flight": 0},
        "other": {"ready": 1, "delayed": 0, "in flight": 0},
    }
    after = {"purged": {"immediate": 2, "other": 1}}
    deed = ("u-9", "purge", "immediate, other", before, after)
    assert sorted(deeds(app), key=str) == [("u-9", "purge begins", "immediate, other", before, None), deed]
    Post.apply_async((4,), queue="other")
    assert by_channel(app, "queue_delete") == 1
    assert messages(app) == []
    assert [row["kind"] for row in rows(app)] == ["purged"] * 4


def test_a_full_journal_stops_a_purge(app: ConventionsApp) -> None:
    """In steps of 500: it says how many went and are left, and what went has its rows."""
    Post.enqueue_many({"number": number} for number in range(1200))
    app.broker.journal_limit = 600
    with pytest.raises(PurgeStopped, match=r"1,000 messages are purged, 200 are left: the journal is full"):
        purge(app, ["immediate"])
    assert app.broker.sizes("immediate").ready == 200
    assert len(rows(app)) == 1000
    assert purge(app, ["immediate"]) == {"immediate": 200}
    assert {row["kind"] for row in rows(app)} == {"purged"}
    assert len(rows(app)) == 1200
    afters = [after for _, action, _, _, after in deeds(app) if action == "purge"]
    assert afters == [{"purged": {"immediate": 200}}, {"purged": {"immediate": 1000}}]


def test_a_purge_that_is_killed_has_its_row(app: ConventionsApp) -> None:
    """The audit says who began it and what there was; the rows of what went say by whom."""
    Post.enqueue_many([{"number": number} for number in range(700)])

    def killed(*args: Any, **options: Any) -> Any:
        end(*args, **options)
        os.kill(os.getpid(), signal.SIGKILL)

    if not (child := os.fork()):
        try:
            with pytest.MonkeyPatch.context() as patch, acting_as("u-9"):
                patch.setattr(redis_port, "end", killed)
                purge(app, ["immediate"])
        finally:
            os._exit(0)  # whatever it raises, this process must not go on with the tests of its parent
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert deeds(app) == [
        ("u-9", "purge begins", "immediate", {"immediate": {"ready": 700, "delayed": 0, "in flight": 0}}, None)
    ]
    whys = {row["error_message"] for row in rows(app)}
    assert (len(rows(app)), whys) == (500, {"removed from the queue immediate by u-9"})


def test_a_purged_chunk_joins_its_batch(app: ConventionsApp) -> None:
    """As failed, so that the batch can finish, whose finish is not purged with the rest."""
    origin = Origin(Numbers.name, {"n": 4}, "system")
    app.batches.create("b", origin, 4)
    app.batches.note_is_cut("b", chunks=2, total=4)
    for index in (0, 1):
        kwargs = {"batch_id": "b", "chunk_index": index, "total_chunks": 2, "items": [1, 2], "arguments": {"n": 4}}
        Numbers.chunk_task.apply_async(kwargs=kwargs, task_id=chunk_id("b", index))
    assert purge(app, ["long"]) == {"long": 2}
    summary = app.batches.summary("b")
    assert summary is not None
    assert (summary.failed, summary.cancelled_chunks, summary.ended_chunks) == (4, [0, 1], 2)
    assert [one.id for one in messages(app)] == [finish_id("b")]
    purge(app, ["long"])
    assert app.batches.state("b") == "cancelled"


def test_a_purged_splitter_ends_its_batch(app: ConventionsApp) -> None:
    """It waits between two turns."""
    sent = Numbers.delay(4)
    app.batches.create(sent.id, Origin(Numbers.name, {"n": 4}, "system"), 4)
    purge(app, ["long"])
    assert app.batches.state(sent.id) == "cancelled"


def test_a_schedule_does_not_wait_for_a_purged_run(app: ConventionsApp) -> None:
    """The mark of a run that has just begun goes with it."""
    sent = Post.delay(1)
    app.store.redis.set(app.store.key("live", sent.id), "daily")
    purge(app, ["immediate"])
    assert not app.store.redis.exists(app.store.key("live", sent.id))


def test_a_letter_that_was_sent_again_and_purged_is_dead_again(app: ConventionsApp) -> None:
    """With all that it needs to be sent once more."""
    headers = {"x_key": "k", "x_fingerprint": "f"}
    failed = Event("m1", "dead", task=Post.name, queue="immediate", attempt=1, token="t", failure=FAILURE,
                   arguments={"number": 1}, headers=headers)  # fmt: skip
    Journal(app.store).append([failed])
    record(app)
    for _ in range(2):
        assert redrive(app, "m1", "ann")
        assert letters(app, state="redriving")
        assert purge(app, ["immediate"]) == {"immediate": 1}
        record(app)
        assert [one.id for one in letters(app)] == ["m1"]
    with app.database.session() as session:
        kinds = [row.kind for row in executions.of_message(session, "m1")]
        assert sorted(kinds) == ["dead", "purged", "purged"]
        assert dead_letters.get(session, "m1") is not None


def test_what_other_programs_put_into_a_queue_is_purged_too(app: ConventionsApp) -> None:
    """Also a member without a message, a message that is no JSON, and a key of another type."""
    redis = app.broker.store.redis
    redis.zadd(app.broker.store.key("queue", "immediate"), {b"alien": 1, b"\xff": 2})
    redis.set(app.broker.store.key("message", "alien"), b"\xfe")
    redis.rpush(app.broker.store.key("queue", "other"), "one", "two")
    assert purge(app, ["immediate", "other"]) == {"immediate": 2, "other": 2}
    assert len(rows(app)) == 4
