"""What disappears from Redis behind our back: it has its place again, or it is recorded as lost, once, and only if it is."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from conventions import EVERY_ARGUMENT, BatchTask, ImmediateTask, acting_as
from conventions.app import ConventionsApp
from conventions.batches.batch_actions import cancel_batch
from conventions.batches.batch_state import Origin
from conventions.broker.batch_membership import chunk_id, finish_id
from conventions.broker.redis_broker import Sizes
from conventions.cli.cancel import cancel
from conventions.dead_letters.resend import redrive
from conventions.recording import lost_message_rows, lost_message_search
from conventions.recording.lost_message_search import LostMessages
from conventions.records import audit, executions
from conventions.records.journal import Event, Journal
from conventions.storage.tables import ExecutionRow
from tests.claiming import asking, granted, settle
from tests.recorded import FAILURE, contents, drain, recorder
from tests.workers import letters, messages


class Count(ImmediateTask):
    """Count."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, number: int) -> None:
        """Nothing runs here."""


class Halves(BatchTask):
    """Count halves."""

    idempotent_on = EVERY_ARGUMENT
    chunk_size = 2

    def items(self, n: int) -> list[int]:
        return list(range(n))

    def process(self, chunk: list[int], n: int) -> None:
        """Nothing runs here."""


@pytest.fixture
def looks(app: ConventionsApp, monkeypatch: pytest.MonkeyPatch) -> LostMessages:
    """What the recorder that leads does, a round at a time; nothing is left for later."""
    monkeypatch.setattr(lost_message_search, "LEFT_FOR", -60.0)
    monkeypatch.setattr(lost_message_search, "SETTLED_AFTER", timedelta(0))
    monkeypatch.setattr(lost_message_search, "HISTORY_EVERY", 0.0)
    return LostMessages(app, lambda: True)


def record(app: ConventionsApp) -> None:
    """Put what happened into SQL."""
    drain(recorder(app.store, app.database))


def lost(app: ConventionsApp) -> list[tuple[str, str | None]]:
    """Ids and tasks that are recorded as lost."""
    record(app)
    rows = contents(app.database, ExecutionRow)
    return sorted((row["message_id"], row["task"]) for row in rows if row["kind"] == "lost")


def delete(app: ConventionsApp, *parts: str) -> None:
    """Delete a key."""
    assert app.store.redis.delete(app.store.key(*parts)) == 1


def test_messages_that_are_in_no_set_have_their_places_again(app: ConventionsApp, looks: LostMessages) -> None:
    """At once, in the order of before; one that was to wait waits. Nothing is lost."""
    ids = [Count.delay(number).id for number in range(3)]
    Count.apply_async((9,), countdown=600)
    assert looks.round()["misplaced"] == 0
    delete(app, "queue", "immediate")
    delete(app, "delayed", "immediate")
    assert looks.round()["misplaced"] == 4
    assert app.broker.sizes("immediate") == Sizes(3, 1, 0)
    assert [one.tag.decode() for one in app.broker.reserve(["immediate"], 5)] == ids
    assert looks.round() == {"misplaced": 0, "claims": 0, "members": 0, "jobs": 0, "batches": 0}
    assert lost(app) == []


def test_a_job_that_nobody_ends_is_lost(app: ConventionsApp, looks: LostMessages) -> None:
    """Its lease was over long ago, and its message is gone; a second round says so, a third one not again."""
    app.claims.lease = 0.001
    sent = Count.delay(1)
    (delivery,) = app.broker.reserve(["immediate"], 1)
    request = asking(delivery, task=Count.name, message_id=sent.id)
    granted(app.claims, request)
    looks.round()
    assert looks.round()["claims"] == 0, "its message is there"
    delete(app, "message", sent.id)
    assert looks.round()["claims"] == 0, "nobody can tell yet"
    assert looks.round()["claims"] == 1
    assert looks.round()["claims"] == 0
    assert lost(app) == [(sent.id, Count.name)]
    assert settle(app.claims, request, "done") == "recorded", "it had not ended after all"


def batch(app: ConventionsApp, sealed: int = 0) -> list[str]:
    """A batch of five items with so many chunks; returns their ids."""
    origin = Origin(Halves.name, {"n": 5}, "u-7")
    app.batches.create("b", origin, 5)
    ids = [chunk_id("b", index) for index in range(sealed)]
    for index, id_ in enumerate(ids):
        kwargs = {"batch_id": "b", "chunk_index": index, "total_chunks": sealed, "items": [1], "arguments": {"n": 5}}
        Halves.chunk_task.apply_async(kwargs=kwargs, task_id=id_)
    if sealed:
        app.batches.note_is_cut("b", chunks=sealed, total=5)
    return ids


def test_a_lost_chunk_joins_its_batch(app: ConventionsApp, looks: LostMessages) -> None:
    """As failed, with its items; the others go on, and then it finishes."""
    ids = batch(app, sealed=3)
    looks.round()
    for id_ in ids[1:]:
        delete(app, "message", id_)
    assert looks.round()["members"] == 0
    assert looks.round()["members"] == 2
    summary = app.batches.summary("b")
    assert summary is not None
    assert (summary.failed, summary.cancelled_chunks, summary.state) == (3, [1, 2], "running")
    assert looks.round()["members"] == 0
    assert lost(app) == sorted((id_, f"{Halves.name}.chunk") for id_ in ids[1:])


def test_a_batch_without_its_splitter_is_dead(app: ConventionsApp, looks: LostMessages) -> None:
    """It can be sent again."""
    batch(app)
    looks.round()
    assert app.batches.state("b") == "splitting"
    assert looks.round()["members"] == 1
    assert app.batches.state("b") == "dead"
    assert lost(app) == [("b", Halves.name)]


def test_a_finish_is_sent_whatever_was_deleted(app: ConventionsApp, looks: LostMessages) -> None:
    """Also where nothing is left that says so."""
    batch(app, sealed=1)
    app.store.redis.hset(app.store.key("batch", "b", "outcomes"), "0", "done")
    app.store.redis.delete(app.store.key("closing"))
    looks.round()
    assert app.store.redis.zscore(app.store.key("closing"), "b")
    assert finish_id("b") not in [one.id for one in messages(app)], "a worker sends it in a minute"


def bury(app: ConventionsApp) -> None:
    """A dead letter."""
    headers = {"x_key": "k", "x_fingerprint": "f"}
    failed = Event("m1", "dead", task=Count.name, queue="immediate", attempt=1, token="t", failure=FAILURE,
                   arguments={"number": 1}, headers=headers)  # fmt: skip
    Journal(app.store).append([failed])
    record(app)


def test_a_letter_that_was_lost_on_its_way_is_dead_again(app: ConventionsApp, looks: LostMessages) -> None:
    """As often as that happens; one whose end is not recorded yet is left."""
    bury(app)
    for _ in range(2):
        assert redrive(app, "m1", "ann")
        looks.round()
        assert looks.round()["jobs"] == 0
        delete(app, "message", "m1")
        looks.round()
        assert looks.round()["jobs"] == 1
        record(app)
        assert [one.id for one in letters(app)] == ["m1"]
    assert redrive(app, "m1", "ann")
    delete(app, "message", "m1")
    looks.round()
    Journal(app.store).append([Event("m1", "succeeded", task=Count.name, generation=1, attempt=1, token="t2")])
    looks.round()
    record(app)
    assert (looks.round()["jobs"], [one.state for one in letters(app, state=None)]) == (0, ["redriven"])


def test_a_letter_whose_job_was_taken_over_goes_on(app: ConventionsApp) -> None:
    """By another worker, in which it failed: it will be tried again."""
    bury(app)
    assert redrive(app, "m1", "ann")
    now = datetime.now(UTC)
    for token, kind in (("t1", "superseded"), ("t2", "retried")):
        event = Event(
            "m1", kind, task=Count.name, generation=1, attempt=1, token=token, started_at=now, failure=FAILURE
        )
        Journal(app.store).append([event])
    record(app)
    assert [(one.state, one.answer) for one in letters(app, state=None)] == [("redriving", "retried")]


@pytest.mark.parametrize("ran", [True, False])
def test_a_letter_whose_job_was_replaced_is_not_lost(app: ConventionsApp, looks: LostMessages, ran: bool) -> None:
    """It ran, and `self.replace` has put another job in its place; a copy that never ran says nothing of it."""
    bury(app)
    assert redrive(app, "m1", "ann")
    started = datetime.now(UTC) if ran else None
    superseded = Event("m1", "superseded", task=Count.name, generation=1, attempt=1, token="t1", started_at=started)
    Journal(app.store).append([superseded])
    delete(app, "message", "m1")
    record(app)
    for _ in range(3):
        looks.round()
    assert bool(lost(app)) is not ran
    states = [(one.state, one.answer) for one in letters(app, state=None)]
    assert states == [("redriven", "superseded") if ran else ("dead", "lost")]


def tried(id_: str, attempt: int, kind: str = "retried", **values: Any) -> Event:
    """An attempt."""
    return Event(id_, kind, task=Count.name, queue="immediate", attempt=attempt, token=f"t{attempt}", **values)


def test_a_job_that_was_to_be_tried_again_is_lost_when_it_is_gone(app: ConventionsApp, looks: LostMessages) -> None:
    """As after everything was deleted; those that ended, or wait, are not."""
    waits = Count.apply_async((1,), countdown=600).id
    Journal(app.store).append([
        tried("gone", 1), tried("gone", 2), tried("ended", 1), tried("ended", 2, "succeeded"), tried(waits, 1),
    ])  # fmt: skip
    record(app)
    looks.round()
    assert looks.round()["jobs"] == 1
    assert lost(app) == [("gone", Count.name)]
    assert looks.round()["jobs"] == 0
    with app.database.session() as session:
        assert [row.attempt for row in executions.of_message(session, "gone")] == [1, 2, 3]
        assert lost_message_rows.count_lost(session, datetime.now(UTC) - timedelta(hours=1)) == 1
    Count.apply_async((2,), task_id="gone")
    assert {one.id for one in messages(app)} == {waits, "gone"}


def test_what_is_not_recorded_yet_is_not_lost(app: ConventionsApp, looks: LostMessages) -> None:
    """The end of a job may wait in the journal for hours."""
    Journal(app.store).append([tried("m1", 1)])
    record(app)
    Journal(app.store).append([tried("m1", 2, "succeeded")])
    for _ in range(3):
        assert not looks.round().get("jobs")
    assert lost(app) == []


def test_a_copy_under_another_tag_is_there(app: ConventionsApp, looks: LostMessages) -> None:
    """As `self.replace` makes it."""
    Journal(app.store).append([tried("m1", 1)])
    record(app)
    first = Count.apply_async((1,), task_id="m1")
    Count.apply_async((2,), task_id=first.id)
    delete(app, "message", "m1")
    for _ in range(3):
        looks.round()
    assert lost(app) == []


def test_a_job_that_was_replaced_is_not_lost(app: ConventionsApp, looks: LostMessages) -> None:
    """What `self.replace` has put in its place, under its id, has ended with fewer attempts."""
    Journal(app.store).append([tried("m1", 1), tried("m1", 2), tried("m1", 3, "superseded")])
    record(app)
    Journal(app.store).append([Event("m1", "succeeded", task="Other", attempt=1, token="t")])
    record(app)
    for _ in range(3):
        assert not looks.round().get("jobs")
    assert lost(app) == []


def test_an_empty_server_is_noticed(app: ConventionsApp, looks: LostMessages, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it is time to look at the history again."""
    monkeypatch.setattr(lost_message_search, "HISTORY_EVERY", 3600.0)
    waits = Count.apply_async((1,), countdown=600).id
    Journal(app.store).append([tried(waits, 1)])
    record(app)
    looks.round()
    assert "jobs" not in looks.round()
    app.store.redis.delete(*app.store.redis.keys(app.store.key("*")))
    looks.round()
    assert looks.round()["jobs"] == 1
    assert lost(app) == [(waits, Count.name)]


def test_what_was_tried_just_before_is_noticed_too(
    app: ConventionsApp, looks: LostMessages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is too young for the first look at an empty server, and not for the next ones."""
    monkeypatch.setattr(lost_message_search, "HISTORY_EVERY", 3600.0)
    looks.round()
    waits = Count.apply_async((1,), countdown=600).id
    Journal(app.store).append([tried(waits, 1)])
    record(app)
    app.store.redis.delete(*app.store.redis.keys(app.store.key("*")))
    monkeypatch.setattr(lost_message_search, "SETTLED_AFTER", timedelta(hours=1))
    looks.round()
    monkeypatch.setattr(lost_message_search, "SETTLED_AFTER", timedelta(0))
    looks.round()
    assert looks.round()["jobs"] == 1
    assert lost(app) == [(waits, Count.name)]


def cut(id_: str, **values: Any) -> Event:
    """A batch was cut."""
    return Event(id_, "succeeded", task=Halves.name, queue="long", actor="u-7", attempt=1, token=f"t-{id_}", **values)


def test_a_batch_that_redis_has_forgotten_is_lost(
    app: ConventionsApp, looks: LostMessages, caplog: pytest.LogCaptureFixture
) -> None:
    """As after FLUSHALL, where SQL knows that it was cut: once, unless it has finished or was cancelled; and the log says what happened."""
    batch(app, sealed=2)
    finished = Event(finish_id("finished"), "dead", task=f"{Halves.name}.finish", token="t", failure=FAILURE)
    other = Event("other", "succeeded", task=Count.name, attempt=1, token="t")
    Journal(app.store).append([cut("b"), cut("finished"), finished, cut("cancelled"), other])
    app.batches.create("cancelled", Origin(Halves.name, {"n": 5}, "u-7"))
    assert cancel_batch(app, "cancelled", "u-7")
    record(app)
    for _ in range(3):
        assert not looks.round().get("batches")
    app.store.redis.delete(*app.store.redis.keys(app.store.key("*")))
    assert "emptied" not in caplog.text
    looks.round()
    assert caplog.text.count("it was emptied") == 1
    assert looks.round()["batches"] == 1
    assert lost(app) == [("b", Halves.name)]
    assert looks.round()["batches"] == looks.round()["batches"] == 0
    assert caplog.text.count("it was emptied") == 1


def test_a_batch_that_was_cancelled_by_any_name_is_not_lost(app: ConventionsApp, looks: LostMessages) -> None:
    """In code, and by `celery cancel`, also before and after a try that came too late; such a try alone cancels nothing."""
    ids = ["code", "command", "late"]
    for id_ in ids[:2]:
        app.batches.create(id_, Origin(Halves.name, {"n": 5}, "u-7"))
    Journal(app.store).append([cut(id_) for id_ in ids])
    with acting_as("u-9"):
        assert [Halves.cancel("code"), Halves.cancel("code")] == ["running", "too late"]
    for id_ in ("command", "command", "late"):
        CliRunner().invoke(cancel, [id_, "--actor", "u-9"], obj=SimpleNamespace(app=app), catch_exceptions=False)
    record(app)
    with app.database.session() as session:
        deeds = sorted((one.actor, one.action, one.target) for one in audit.listing(session, 10))
    assert deeds == [("u-9", "cancel", id_) for id_ in ("code", "command", "command", "late")]
    app.store.redis.delete(*app.store.redis.keys(app.store.key("*")))
    for _ in range(3):
        looks.round()
    assert lost(app) == [("late", Halves.name)]


def test_a_batch_that_was_sent_again_may_be_lost_again(app: ConventionsApp, looks: LostMessages) -> None:
    """And nothing that waits for a batch is lost with it."""
    for number in range(2):
        Journal(app.store).append([replace(cut("b"), token=f"t{number}")])
        record(app)
        sent = Halves.finish_task.apply_async(kwargs={"batch_id": "b", "arguments": {"n": 5}}, task_id=finish_id("b"))
        for _ in range(3):
            assert not looks.round().get("batches"), "its finish waits"
        delete(app, "message", sent.id)
        looks.round()
        assert looks.round()["batches"] == 1
        record(app)
    assert lost(app) == [("b", Halves.name)] * 2


def test_batches_are_looked_at_a_few_at_a_time(
    app: ConventionsApp, looks: LostMessages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server rests after each look at some of them, and the round ends there when it is time."""
    monkeypatch.setattr(lost_message_search, "BATCHES", 2)
    for number in range(5):
        app.batches.create(f"b{number}", Origin(Halves.name, {"n": 5}, "u-7"))
    looks.round()
    rests: list[float] = []
    looks.round(lambda took: rests.append(took) or len(rests) > 4)  # type: ignore[func-returns-value]  # or is enough
    assert len(rests) == 5
    assert looks.round()["members"] == 5
