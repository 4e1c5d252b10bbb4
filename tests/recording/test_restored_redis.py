"""The comparison of a Redis that is older than SQL, without a worker; the drill is in `tests/crash/test_restored.py`."""

import json
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from celery import chain, group, shared_task, signature

from conventions import EVERY_ARGUMENT, ImmediateTask
from conventions.app import ConventionsApp
from conventions.recording.restored_redis import compare
from conventions.records import journal_position
from conventions.records.journal import Journal
from conventions.storage.redis_store import run_of
from conventions.storage.tables import ExecutionRow
from tests.claiming import asking, granted, settle
from tests.recorded import contents, drain, event, recorder
from tests.support import wait_until
from tests.workers import messages


class Count(ImmediateTask):
    """Count."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, number: int) -> None:
        """Nothing runs here."""


def held_done(app: ConventionsApp, id_: str) -> None:
    """A job whose message is there still, as where what follows it is being sent."""
    (delivery,) = app.broker.reserve(["immediate"], 1)
    assert delivery.tag.decode() == id_
    headers = json.loads(delivery.payload)["headers"]
    key, fingerprint = headers["x_key"], headers["x_fingerprint"]
    request = asking(delivery, task=Count.name, key=key, message_id=id_, fingerprint=fingerprint)
    granted(app.claims, request)
    assert settle(app.claims, request, "done", 5, action="keep") == "recorded"


def pass_a_moment(app: ConventionsApp) -> None:
    """An end counts that comes after the send, and the server has milliseconds."""
    sent = datetime.now(UTC).timestamp()
    redis: Any = app.store.redis
    wait_until(lambda: redis.time() > (int(sent), int(sent % 1 * 1e6) + 1000), 10, "the next millisecond")


def step(id_: str) -> Any:
    """Something that follows a job."""
    return Count.si(9).set(task_id=id_)


def test_what_follows_a_job_is_sent_or_lost_and_never_forgotten(app: ConventionsApp) -> None:
    """A claim that is done and says of nothing that it was sent leaves its message to a worker; else what has no row is lost."""
    held = Count.apply_async((1,), link=step("callback"), chain=[step("next")]).id
    held_done(app, held)
    forgotten = [Count.apply_async((number,), link=step(f"step-{number}")).id for number in (2, 3, 4)]
    steps = group(step("first"), chain(step("second"), step("third")))
    forgotten.append((Count.s(5).set(task_id="begins") | steps | step("body")).apply_async() and "begins")
    failed = Count.apply_async((6,), link_error=step("told"), link=step("not sent")).id
    waits = Count.apply_async((7,), task_id="step-4").id
    ended = [event(id_, task=Count.name) for id_ in (held, *forgotten)]
    pass_a_moment(app)
    Journal(app.store).append([*ended, event(failed, "dead", task=Count.name), event("step-3", task=Count.name)])
    drain(recorder(app.store, app.database))
    for _ in range(2):
        journal_position.write(app.store, 0, "before")
        assert compare(app)
    assert {one.id for one in messages(app)} == {held, waits}
    drain(recorder(app.store, app.database))
    lost = [(row["message_id"], row["task"]) for row in contents(app.database, ExecutionRow) if row["kind"] == "lost"]
    assert sorted(lost) == [(id_, Count.name) for id_ in ("first", "second", "step-2", "told")]


def _plain(number: int = 0) -> int:
    """A function."""
    return number


FUNCTIONS = SimpleNamespace(  # pytest would ask each name of this module what it is, which makes the task, without an application
    plain=shared_task(name="test_restored_pulse.plain")(_plain),
)


def test_what_leaves_no_row_is_not_lost(app: ConventionsApp, caplog: pytest.LogCaptureFixture) -> None:
    """A function, one that Celery calls in place as an errback, and a task of another service may have run: the log says that nobody can tell."""
    after = [
        FUNCTIONS.plain.si(1).set(task_id="function"),
        signature("other.Task", app=app).set(task_id="elsewhere"),
        step("ours"),
    ]
    done = Count.apply_async((1,), link=after).id
    failed = Count.apply_async((2,), link_error=FUNCTIONS.plain.s().set(task_id="in place")).id
    pass_a_moment(app)
    Journal(app.store).append([event(done, task=Count.name), event(failed, "dead", task=Count.name)])
    drain(recorder(app.store, app.database))
    journal_position.write(app.store, 0, "before")
    assert compare(app)
    drain(recorder(app.store, app.database))
    lost = [row["message_id"] for row in contents(app.database, ExecutionRow) if row["kind"] == "lost"]
    assert lost == ["ours"]
    for id_, task, first in (
        ("function", FUNCTIONS.plain.name, done),
        ("elsewhere", "other.Task", done),
        ("in place", FUNCTIONS.plain.name, failed),
    ):
        assert caplog.text.count(f"nobody can tell whether it ran: id={id_} task={task}: it follows {first}") == 1
    assert caplog.text.count("nobody can tell") == 3


def test_each_step_is_told(app: ConventionsApp) -> None:
    """So that the keeper of a recorder sees it come forward, however many messages there are."""
    ended, waits = Count.delay(1).id, Count.delay(2).id
    Journal(app.store).append([event(ended, task=Count.name)])
    drain(recorder(app.store, app.database))
    run = run_of(app.store)
    journal_position.write(app.store, 0, "before")
    steps: list[bool] = []
    assert compare(app, lambda: steps.append(True))
    assert [one.id for one in messages(app)] == [waits]
    assert len(steps) >= 2, "of the claims, and of the messages"
    assert compare(app, lambda: steps.append(False))
    assert all(steps)
    mark = journal_position.read(app.store)
    assert mark is not None
    assert (mark.number, mark.run) == (1, run)
