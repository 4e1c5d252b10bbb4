"""Starts without an outcome in the history of a job, and in the journal where the job ends without another start."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from conventions import ImmediateTask, Job
from conventions.app import ConventionsApp
from conventions.broker.delivery import Delivery
from conventions.broker.delivery_names import MARK, DeliveryNames
from conventions.execution.attempt import Attempt
from conventions.execution.end_waiting import WaitingEnds
from conventions.execution.record_interrupted import record_interrupted
from conventions.execution.waiting_selection import Search, Selection
from conventions.idempotency.claims import ClaimRequest
from conventions.records.journal import Event, JournalEntry
from tests.claiming import end_lease, end_wait, granted, handed_out, held, kept_by, take
from tests.workers import application


class Pay(ImmediateTask):
    """Nobody runs it here."""

    idempotent_on = ("bill",)
    queue_name = "payments"

    def run(self, bill: int) -> None:
        """Do nothing."""


@pytest.fixture
def app(valkey_url: str, new_database: Callable[[Path], str], tmp_path: Path) -> Iterator[ConventionsApp]:
    """An application with that task."""
    prefix = f"t{uuid4().hex[:8]}"
    with application([__name__], broker_url=valkey_url, database_url=new_database(tmp_path), key_prefix=prefix) as app:
        app.load_tasks()
        yield app


def begun(app: ConventionsApp) -> tuple[ClaimRequest, Delivery]:
    """A job that runs here."""
    Pay.apply_async(kwargs={"bill": 1}, task_id="m1", actor="ada")
    delivery = handed_out(app.broker, "payments")
    headers = json.loads(delivery.payload)["headers"]
    request = ClaimRequest(Pay.name, headers["x_key"], delivery.receipt, "m1", "f", held=held(delivery))
    granted(app.claims, request)
    return request, delivery


def lapse(app: ConventionsApp, request: ClaimRequest) -> None:
    """Its worker says nothing for so long that its message is back."""
    end_lease(app.store, request)
    end_wait(app.store, "m1", "inflight", "payments")
    app.broker.sweep()


def outcomes(app: ConventionsApp) -> list[tuple[str | None, str | None]]:
    """How its attempts ended, and where."""
    return [(one.outcome, one.worker) for one in Job.of("m1", app).history()]


def recorded(app: ConventionsApp) -> list[Event]:
    """The journal."""
    redis: Any = app.store.redis
    return [
        JournalEntry.read(id_, fields, app.store.entry_signatures).event
        for id_, fields in redis.xrange(app.journal.key)
    ]


def test_it_is_shown_before_it_is_recorded(app: ConventionsApp) -> None:
    """With the worker of the delivery."""
    DeliveryNames(app.store).say("w1@host", "r1")
    request, _ = begun(app)
    assert outcomes(app) == [("running", "w1@host")]
    lapse(app, request)
    assert outcomes(app) == [("interrupted", "w1@host")]
    assert recorded(app) == []


def test_a_job_that_hung_is_shown_once(app: ConventionsApp) -> None:
    """The journal has it; a thread that cannot be ended still has the claim."""
    request, _ = begun(app)
    app.claims.record_hung(
        request.claim, request.token, Event("m1", "hung", task=Pay.name, token=request.token, attempt=1)
    )
    lapse(app, request)
    assert outcomes(app) == [("hung", None)]


@pytest.mark.parametrize("how", ["lapsed", "returned"])
def test_a_message_that_is_removed_leaves_its_start(app: ConventionsApp, how: str) -> None:
    """By `messages cancel`, or a purge: of its worker, and of its sender; once, however often it is tried."""
    DeliveryNames(app.store).say("w1@host", "r1")
    request, delivery = begun(app)
    if how == "lapsed":
        lapse(app, request)
    else:
        app.broker.give_back([held(delivery, request)], counted=True, why="its process was killed by signal 9")
    found = list(Search(app, Selection(("payments",)), 10, ("queue",)))
    ends = WaitingEnds(app, "cancelled", "Cancelled", "by ada")
    assert ends.end(found) == [True]
    assert ends.end(found) == [False]
    start, end = recorded(app)
    assert (start.kind, start.worker, start.release, start.actor, start.attempt, start.queue) == (
        "interrupted", "w1@host", "r1", "ada", 1, "payments",
    )  # fmt: skip
    assert start.failure is not None
    assert ("signal 9" in start.failure.error_message) is (how == "returned")
    assert end.kind == "cancelled"
    assert sorted(outcomes(app)) == [("cancelled", None), ("interrupted", "w1@host")]


@pytest.mark.parametrize("written", ["{", "[" * 200_000, "{}", "[1]", "hash"])
def test_what_another_program_wrote_for_a_worker_is_no_worker(app: ConventionsApp, written: str) -> None:
    """Who looks, and who runs the job, goes on."""
    request, _ = begun(app)
    key = app.store.key("deliveries_of", request.token[:MARK])
    if written == "hash":
        app.store.redis.hset(key, "a", "b")
    else:
        app.store.redis.set(key, written)
    lapse(app, request)
    assert outcomes(app) == [("interrupted", None)]


def test_a_start_that_cannot_be_recorded_stops_no_job(app: ConventionsApp) -> None:
    """The journal cannot be written in the moment between claim and run: the job goes on, and its claim keeps the start."""
    request, _ = begun(app)
    lapse(app, request)
    again = replace(request, token=(delivery := handed_out(app.broker, "payments")).receipt, held=held(delivery))
    answer = take(app.claims, again)
    app.store.redis.set(app.journal.key, "another program")
    job = Attempt(
        id="m1", task=Pay.name, payload={}, key=request.key, fingerprint="f", actor="ada", attempt=1, planned_at=None, counts={}
    )  # fmt: skip
    record_interrupted(app.tasks[Pay.name], job, answer)
    app.store.redis.delete(app.journal.key)
    assert [one[0] for one in outcomes(app)] == ["interrupted", "running"]
    record_interrupted(app.tasks[Pay.name], job, answer)
    assert [(one.kind, one.token, one.actor) for one in recorded(app)] == [("interrupted", request.token, "ada")]
    assert kept_by(app.claims, request) == ()
