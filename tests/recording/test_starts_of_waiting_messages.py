"""Starts without an outcome of messages that wait: in SQL before anybody begins them again, once. Of real processes: tests/crash/test_interrupted.py."""

from typing import Any

import pytest
from redis.exceptions import ResponseError

from conventions import EVERY_ARGUMENT, ImmediateTask
from conventions.app import ConventionsApp
from conventions.broker.delivery import Delivery
from conventions.broker.header_names import KEY
from conventions.idempotency.claim_answers import Granted
from conventions.idempotency.claims import ClaimRequest
from conventions.recording import interrupted_starts
from conventions.recording.interrupted_starts import AT_ONCE, InterruptedStarts
from conventions.records.journal import Event
from conventions.storage.tables import ExecutionRow
from tests.claiming import asking, end_lease, end_wait, granted, held, settle, take
from tests.recorded import contents, drain, recorder

ACTOR = "u-7"


class Count(ImmediateTask):
    """Count."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, number: int) -> None:
        """Nothing runs here."""


@pytest.fixture
def starts(app: ConventionsApp, monkeypatch: pytest.MonkeyPatch) -> InterruptedStarts:
    """What writes them, without the wait for a late outcome."""
    monkeypatch.setattr(interrupted_starts, "SETTLED", -1.0)
    return InterruptedStarts(app, lambda: True)


def begun(app: ConventionsApp, number: int = 1) -> tuple[Delivery, ClaimRequest]:
    """A job that runs."""
    Count.apply_async((number,), actor=ACTOR)
    return _next_start(app)


def _next_start(app: ConventionsApp) -> tuple[Delivery, ClaimRequest]:
    (delivery,) = app.broker.reserve(["immediate"], 1)
    (found,) = [app.port.find(delivery.tag.decode())]
    assert found is not None
    key, id_ = found.headers[KEY], found.headers["id"]
    return delivery, asking(delivery, task=Count.name, key=key, message_id=id_)


def left_by_a_dead_worker(app: ConventionsApp, number: int = 1) -> ClaimRequest:
    """A job whose worker was killed, and whose message others have found."""
    delivery, request = begun(app, number)
    granted(app.claims, request)
    end_lease(app.store, request)
    end_wait(app.store, delivery.tag.decode(), "inflight", "immediate")
    assert app.broker.sweep().recovered >= 1
    return request


def rows(app: ConventionsApp) -> list[tuple[Any, ...]]:
    """What SQL has."""
    drain(recorder(app.store, app.database))
    found = contents(app.database, ExecutionRow)
    return [(row["message_id"], row["kind"], row["actor"], row["queue"], row["attempt"]) for row in found]


def test_of_a_dead_worker(app: ConventionsApp, starts: InterruptedStarts) -> None:
    """Whoever finds its message lets it be written; the next start does not write it again."""
    request = left_by_a_dead_worker(app)
    assert starts.write() == 1
    written = [(request.message_id, "interrupted", ACTOR, "immediate", 1)]
    assert rows(app) == written
    _, again = _next_start(app)
    answer = take(app.claims, again)
    assert isinstance(answer, Granted)
    assert answer.interrupted == ()
    assert starts.write() == 0
    assert rows(app) == written


def test_of_a_dead_process(app: ConventionsApp, starts: InterruptedStarts) -> None:
    """Its worker says what it knows."""
    delivery, request = begun(app)
    granted(app.claims, request)
    app.broker.give_back([held(delivery, request)], counted=True, why="killed by signal 9")
    assert starts.write() == 1
    assert rows(app) == [(request.message_id, "interrupted", ACTOR, "immediate", 1)]
    (row,) = contents(app.database, ExecutionRow)
    assert row["error_message"] == "killed by signal 9"


def test_not_before_a_late_outcome_could_be_there(app: ConventionsApp) -> None:
    """A job that ends in the moment in which its message goes back has its own end."""
    delivery, request = begun(app)
    granted(app.claims, request)
    app.broker.give_back([held(delivery, request)], counted=False, why="stopped")
    starts = InterruptedStarts(app, lambda: True)
    assert starts.write() == 0
    settle(app.claims, request, "done", event=Event(request.message_id, "succeeded", token=request.token))
    assert [kind for _, kind, *_ in rows(app)] == ["succeeded"]


def test_one_that_had_not_begun_has_none(app: ConventionsApp, starts: InterruptedStarts) -> None:
    """Its worker had only read it."""
    delivery, _ = begun(app)
    end_wait(app.store, delivery.tag.decode(), "inflight", "immediate")
    app.broker.sweep()
    assert starts.write() == 1
    assert rows(app) == []


def test_many_and_what_is_no_message(app: ConventionsApp, starts: InterruptedStarts) -> None:
    """Some at a time; a message that is gone, and what other programs have written, hold up nobody."""
    redis, key = app.store.redis, app.store.key("interrupted")
    for number in range(AT_ONCE):
        redis.zadd(key, {f"gone-{number}": 1})
    redis.zadd(key, {b"\xff\x00": 2})
    redis.hset(app.store.key("message", "odd"), "payload", "no message")
    redis.zadd(key, {"odd": 2})
    request = left_by_a_dead_worker(app)
    assert [starts.write(), starts.write(), starts.write()] == [AT_ONCE, 3, 0]
    assert [id_ for id_, *_ in rows(app)] == [request.message_id]


def test_a_list_of_another_program(app: ConventionsApp, starts: InterruptedStarts) -> None:
    """Nothing is noted there, and the message comes back all the same; its claim keeps the start."""
    app.store.redis.set(app.store.key("interrupted"), "x")
    request = left_by_a_dead_worker(app)
    assert (app.broker.sizes("immediate").ready, app.broker.sizes("immediate").in_flight) == (1, 0)
    with pytest.raises(ResponseError):
        starts.write()
    _, again = _next_start(app)
    answer = take(app.claims, again)
    assert isinstance(answer, Granted)
    assert [one.token for one in answer.interrupted] == [request.token]


def test_members_of_another_clock(app: ConventionsApp, starts: InterruptedStarts) -> None:
    """Push nothing out."""
    app.store.redis.zadd(app.store.key("interrupted"), {f"odd-{number}": float("inf") for number in range(10_001)})
    request = left_by_a_dead_worker(app)
    assert starts.write() == 1
    assert [id_ for id_, *_ in rows(app)] == [request.message_id]


def test_one_that_died_before_it_wrote(
    app: ConventionsApp, starts: InterruptedStarts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Leaves it to the next one."""
    request = left_by_a_dead_worker(app)
    with monkeypatch.context() as patch:
        patch.setattr(interrupted_starts, "record_kept", lambda *_: pytest.fail("killed"))
        with pytest.raises(pytest.fail.Exception):
            starts.write()
    assert starts.write() == 1
    assert [id_ for id_, *_ in rows(app)] == [request.message_id]


def test_the_list_has_an_end(app: ConventionsApp, starts: InterruptedStarts) -> None:
    """Where no recorder leads: the latest stay."""
    redis, key = app.store.redis, app.store.key("interrupted")
    redis.zadd(key, {f"old-{number}": number for number in range(10_000)})
    left_by_a_dead_worker(app)
    assert redis.zcard(key) == 10_000
    assert redis.zscore(key, "old-0") is None
    assert 0 < redis.ttl(key) <= 86_400
