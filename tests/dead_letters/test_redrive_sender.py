"""Redrives beside the recorder: steps that two may take, that may die anywhere, and whose faults are their own (R18)."""

# ruff: noqa: F811  # pytest passes fixtures as arguments of their names

import base64
import json
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from redis.exceptions import RedisError

from conventions.app import ConventionsApp
from conventions.core.error_text import describe
from conventions.core.errors import BrokerUnavailable, PayloadError
from conventions.dead_letters import letters as dead_letters
from conventions.dead_letters import record_letters, redrive_rows, resent_letters
from conventions.dead_letters.filter import Filter
from conventions.dead_letters.redrive_rows import RedriveOrder
from conventions.dead_letters.redrive_sender import Redriver, who_steps
from conventions.dead_letters.redrive_status import NO_LEADER, RedriveStatus, Watch, doubts
from conventions.dead_letters.resend import redrive
from conventions.metrics.worker_reports import WorkerReports
from conventions.records import executions
from conventions.records.journal import Event, JournalEntry
from conventions.storage.database import Database, utc_now
from conventions.storage.tables import DeadLetterRow, RedriveRow
from tests.databases import database  # noqa: F401  # a fixture
from tests.failures import failure
from tests.redriving import Pay, begin, step
from tests.support import patient, wait_until
from tests.workers import application, forget, messages


@pytest.fixture
def app(valkey_url: str, database: Database) -> Iterator[ConventionsApp]:
    """An application on each kind of database in turn."""
    url = database.url.render_as_string(hide_password=False)
    with application([Pay.__module__], broker_url=valkey_url, database_url=url, key_prefix=f"t{id(database)}") as app:
        app.load_tasks()
        yield app
        forget(app.store)


def bury(app: ConventionsApp, count: int, first: int = 0) -> None:
    """Dead letters, all of which failed a while ago."""
    at = utc_now() - timedelta(hours=1)
    with app.database.session() as session:
        entries = [
            failure(
                f"m{n:05}", ValueError("x"), at=at, task=Pay.name, queue="payments", arguments={"bill": n}, headers={}
            )
            for n in range(first, first + count)
        ]
        executions.record(session, entries)
        record_letters.record(session, entries)


def answer(app: ConventionsApp, kind: str, ids: list[str] | None = None, attempt: int = 1) -> int:
    """Record that what was sent and has no answer yet, or these, ended like this; returns how many that were."""
    with app.database.session() as session:
        row = DeadLetterRow
        found = session.query(row.id, row.generation).filter(row.state == "redriving").order_by(row.id)
        waiting = found.filter(row.answer.is_(None)) if ids is None else found.filter(row.id.in_(ids))
        failed = describe(Pay.name, TimeoutError("the bank is away")) if kind in ("dead", "retried") else None
        entries = []
        for id_, generation in waiting:
            event = Event(
                id_, kind, task=Pay.name, queue="payments", generation=generation + 1, attempt=attempt, failure=failed
            )
            if kind == "dead":
                event.arguments, event.headers = {"bill": int(id_[1:])}, {}
            entries.append(JournalEntry(b"1-1", event, 1, utc_now(), None))
        new = executions.record(session, entries)
        record_letters.record(session, [one for one in entries if one.event.kind == "dead"])
        resent_letters.note_answers(session, [one for one in entries if one.event.id in new])
    return len(entries)


def row(app: ConventionsApp, id_: str) -> RedriveRow:
    """A redrive."""
    with app.database.session(read_only=True) as session:
        session.expire_on_commit = False
        return session.get_one(RedriveRow, id_)


def redriver(app: ConventionsApp) -> Redriver:
    """One that leads."""
    return Redriver(app, "the test", lambda: True)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Time that passes when the test says so."""

    class Clock:
        now = utc_now()

        def __call__(self) -> Any:
            return self.now

        def wait(self, seconds: float) -> None:
            self.now += timedelta(seconds=seconds)

    clock = Clock()
    for place in ("conventions.storage.database.utc_now", "conventions.dead_letters.redrive_rows.utc_now"):
        monkeypatch.setattr(place, clock)
    monkeypatch.setattr("tests.dead_letters.test_redrive_sender.utc_now", clock)
    return clock


@pytest.mark.parametrize("before", [205, pytest.param(1205, marks=pytest.mark.thorough)])
def test_a_service_that_dies_in_the_middle_stops_it_soon(app: ConventionsApp, clock: Any, before: int) -> None:
    """At ten a second, after so many: while nothing answers, 50 more are sent at the most, and 60 when each one fails."""
    spare = 300
    bury(app, before + spare)
    clock.wait(1)
    id_, steps = begin(app, RedriveOrder(Filter(), "u-9", rate=10)), redriver(app)
    begun_at = clock.now
    while row(app, id_).sent < before:
        step(app, id_, steps)
        assert row(app, id_).fault is None
        assert row(app, id_).sent <= 10 * ((clock.now - begun_at).total_seconds() + 2), "at its rate"
        answer(app, "succeeded")
        clock.wait(1)
    died_at = row(app, id_).sent
    for _ in range(30):  # it takes connections, and does not answer
        step(app, id_, steps)
        clock.wait(1)
    assert (row(app, id_).state, row(app, id_).sent - died_at) == ("sending", 50)
    with app.database.session() as session:
        watch = Watch(app)
        (one,) = watch.look([session.get_one(RedriveRow, id_)], session)
        assert (one.counts.unanswered, one.counts.succeeded, one.waiting) == (
            50,
            died_at,
            before + spare - died_at - 50,
        )
    while row(app, id_).state == "sending":  # one after another is given up
        with app.database.session() as session:
            query = session.query(DeadLetterRow.id).filter_by(state="redriving", answer=None).order_by(DeadLetterRow.id)
            letter = query.limit(1).scalar()
        answer(app, "retried", [letter])
        step(app, id_, steps)
        clock.wait(1)
    found = row(app, id_)
    assert (found.state, found.failed) == ("stopped", 0)
    assert "11 of the last 50 failed again; that is more than 20 %" in found.note
    assert found.sent - died_at <= 60
    with app.database.session() as session:
        assert redrive_rows.last_error(session, session.get_one(RedriveRow, id_)) == (
            "TimeoutError",
            "the bank is away",
        )
        assert redrive_rows.tally(session, id_).retrying == 11


def status(app: ConventionsApp, id_: str) -> RedriveStatus:
    """How a redrive stands, as a new look says."""
    with app.database.session() as session:
        (one,) = Watch(app).look([session.get_one(RedriveRow, id_)], session)
        session.expunge_all()
    return one


def test_what_others_have_sent_does_not_wait_for_one_that_stopped(app: ConventionsApp) -> None:
    """Of those that it has left, what is dead still; those that failed in it are its own, and it has its last error."""
    bury(app, 9)
    stopped = begin(app, RedriveOrder(Filter(), "u-9"))
    step(app, stopped)
    answer(app, "dead")
    step(app, stopped)
    names = ("waiting", "by_others", "dead", "sent_again")

    def numbers() -> tuple[int, ...]:
        found = status(app, stopped).numbers()
        assert found["total"] == found["waiting"] + found["by_others"] + found["sent"]
        return tuple(found[name] for name in names)

    assert (row(app, stopped).state, *numbers()) == ("stopped", 4, 0, 5, 0)
    few = begin(app, RedriveOrder(Filter(ids=("m00005", "m00006")), "u-9", canary=0))
    step(app, few)
    assert numbers() == (2, 2, 5, 0)
    every = begin(app, RedriveOrder(Filter(), "u-9", canary=0, stop_at=100))
    step(app, every)
    assert numbers() == (0, 4, 5, 5)
    assert status(app, stopped).error == ("TimeoutError", "the bank is away")
    answer(app, "succeeded")
    step(app, every)
    assert status(app, every).error is None
    assert status(app, every).numbers()["by_others"] == 0


def test_an_open_one_says_what_waits(app: ConventionsApp) -> None:
    """It may send them still: what others have taken is said once it is their turn."""
    bury(app, 9)
    slow = begin(app, RedriveOrder(Filter(), "u-9"))
    step(app, slow)
    step(app, begin(app, RedriveOrder(Filter(ids=("m00008",)), "u-9", canary=0)))
    found = status(app, slow)
    assert (found.is_open, found.waiting, found.by_others) == (True, 4, 0)


@pytest.mark.thorough
def test_two_that_lead_send_no_letter_twice(app: ConventionsApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three of them at once, each of which believes that it is the one."""
    from conventions.dead_letters import resend

    calls: Counter[str] = Counter()
    send = resend.send

    def counted(app: Any, session: Any, letter: Any, *more: Any, **how: Any) -> Any:
        calls[letter.id] += 1
        return send(app, session, letter, *more, **how)

    monkeypatch.setattr(resend, "send", counted)
    bury(app, 250)
    id_ = begin(app, RedriveOrder(Filter(), "u-9", canary=0, rate=10_000, stop_at=100))
    ended = threading.Event()
    threads = [Redriver(app, f"leader {n}", lambda: True).start(ended.is_set) for n in range(3)]
    wait_until(lambda: row(app, id_).sent == 250, 60)
    ended.set()
    for thread in threads:
        thread.join(patient(10))
    assert set(calls.values()) == {1}
    assert len(calls) == 250
    assert len(messages(app)) == 250


def test_a_death_between_sending_and_noting_loses_and_doubles_nothing(
    app: ConventionsApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The letters were taken first: the next one sends them again, under ids that are there, and they count as its own."""
    bury(app, 8)
    id_ = begin(app, RedriveOrder(Filter(), "u-9", canary=4, stop_at=50))
    with monkeypatch.context() as patch:

        def die(*_: Any) -> None:
            raise SystemExit

        patch.setattr(redrive_rows, "note_sent", die)
        with pytest.raises(SystemExit):
            step(app, id_)
    assert 1 <= len(messages(app)) <= 4, "a step ends soon, also on a slow machine"
    assert row(app, id_).sent == 0
    assert begin(app, RedriveOrder(Filter(ids=("m00000",)), "u-8")) != id_
    assert answer(app, "retried", ["m00000"]) == 1, "one has begun, and its answer is there before anybody goes on"
    step(app, id_)
    assert len(messages(app)) == 4
    with app.database.session() as session:
        counts = redrive_rows.tally(session, id_)
    assert (counts.unanswered, counts.retrying, counts.taken) == (3, 1, 0)


def test_a_fault_of_one_redrive_is_its_own(app: ConventionsApp) -> None:
    """It is noted on its row, which goes on when it is mended; the others go on meanwhile."""
    bury(app, 2)
    ids = [begin(app, RedriveOrder(Filter(ids=(f"m0000{n}",)), "u-9")) for n in range(2)]
    with app.database.session() as session:
        session.get_one(RedriveRow, ids[0]).selection = {"from_the_future": 1}
    steps = redriver(app)
    for id_ in ids:
        steps.step(id_)
    assert "from_the_future" in str(row(app, ids[0]).fault)
    assert (row(app, ids[1]).sent, row(app, ids[1]).fault) == (1, None)
    with app.database.session() as session:
        session.get_one(RedriveRow, ids[0]).selection = {"ids": ["m00000"]}
    redriver(app).step(ids[0])
    assert (row(app, ids[0]).sent, row(app, ids[0]).fault) == (1, None)


@pytest.mark.parametrize("error", [BrokerUnavailable("the broker at x did not accept it"), RedisError("refused")])
def test_a_broker_that_is_away(app: ConventionsApp, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Is said on the row, and tried again; the letters are sent when it is back."""
    bury(app, 1)
    id_, steps = begin(app, RedriveOrder(Filter(), "u-9")), redriver(app)
    with monkeypatch.context() as patch:

        def fail(*_: Any, **_how: Any) -> None:
            raise error

        patch.setattr("conventions.dead_letters.resend.send", fail)
        steps.step(id_)
        assert steps.step(id_) == 0, "not at once"
    found = row(app, id_)
    assert (found.state, found.sent) == ("canary", 0)
    assert str(error) in str(found.fault)
    wait_until(lambda: steps.step(id_) or row(app, id_).sent, 10)
    assert row(app, id_).fault is None


def test_arguments_of_another_release(app: ConventionsApp) -> None:
    """During a deploy the recorder that leads may be of the release before: the worker that gets the job says whether they fit."""
    Pay.delay(bill=1)
    (came,) = app.broker.reserve([Pay.queue_name], 1)
    message = json.loads(came.payload)
    forget(app.store)
    message["body"] = base64.b64encode(json.dumps([[], {"invoice": 1}, {}]).encode()).decode()
    letter = failure(
        "m1", task=Pay.name, queue=Pay.queue_name, arguments={"invoice": 1}, stored=json.dumps(message).encode()
    )
    with app.database.session() as session:
        executions.record(session, [letter])
        record_letters.record(session, [letter])
    with pytest.raises(PayloadError, match="bill"):
        redrive(app, "m1", "ann")  # who sends one letter from here hears at once
    id_ = begin(app, RedriveOrder(Filter(), "u-9"))
    step(app, id_)
    assert (row(app, id_).sent, row(app, id_).failed) == (1, 0)
    (sent,) = messages(app)
    assert (sent.arguments, sent.headers["x_generation"]) == ({"invoice": 1}, 1)


def test_a_server_of_a_later_release(app: ConventionsApp) -> None:
    """Nothing can be sent by this one, whatever the letter: none is left for that, and the later release goes on."""
    bury(app, 2)
    id_ = begin(app, RedriveOrder(Filter(), "u-9"))
    app.store.redis.set(app.store.key("layout"), "2")
    redriver(app).step(id_)
    found = row(app, id_)
    assert (found.state, found.failed) == ("canary", 0)
    assert "has layout 2" in str(found.fault)
    app.store.redis.delete(app.store.key("layout"))
    step(app, id_)
    assert (row(app, id_).sent, row(app, id_).failed, len(messages(app))) == (2, 0, 2)


def test_what_was_taken_is_let_go_when_it_is_cancelled(app: ConventionsApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was not sent: it is dead as before."""
    bury(app, 3)
    id_ = begin(app, RedriveOrder(Filter(), "u-9"))
    with monkeypatch.context() as patch:
        patch.setattr(Redriver, "_send_taken", lambda *_: 0)
        redriver(app).step(id_)
    with app.database.session() as session:
        assert redrive_rows.tally(session, id_).taken == 3
        assert redrive_rows.cancel(session, id_, "u-9", "wrong ones")
    redriver(app).step(id_)
    with app.database.session() as session:
        assert dead_letters.count(session, Filter(state="dead")) == 3
    assert messages(app) == []


def test_a_later_redrive_takes_no_letters_from_the_counts_of_the_first(app: ConventionsApp) -> None:
    """What failed in the first one has failed in it, also when the second one has sent it again, and it went well there."""
    bury(app, 6)
    first, steps = begin(app, RedriveOrder(Filter(), "u-9", canary=0, rate=10_000, stop_at=100)), redriver(app)
    wait_until(lambda: _is_sent(app, first, steps))
    sent = [f"m{number:05}" for number in range(6)]
    answer(app, "succeeded", sent[:2])
    answer(app, "retried", sent[2:4])
    answer(app, "dead", sent[4:])
    assert _counts(app, first) == (6, 2, 2, 2)
    second = begin(app, RedriveOrder(Filter(task=str(Pay.name)), "u-9", canary=0, rate=10_000, stop_at=100))
    wait_until(lambda: _is_sent(app, second, steps))
    answer(app, "succeeded", sent[4:])
    answer(app, "dead", sent[2:4], attempt=2)
    assert _counts(app, first) == (6, 2, 0, 4)
    assert _counts(app, second) == (2, 2, 0, 0)
    step(app, first, steps)
    assert (row(app, first).state, row(app, first).sent, row(app, first).failed) == ("finished", 6, 4)
    third = begin(app, RedriveOrder(Filter(queue="payments"), "u-9", canary=0, rate=10_000, stop_at=100))
    wait_until(lambda: _is_sent(app, third, steps))
    assert _counts(app, first) == (6, 2, 0, 4)


def test_what_vanished_in_the_first_redrive_did_not_fail_in_it(app: ConventionsApp) -> None:
    """Its message was lost, so nobody knows how it ended. A later redrive makes no failure of that."""
    bury(app, 2)
    first, steps = begin(app, RedriveOrder(Filter(), "u-9", canary=0, rate=10_000, stop_at=100)), redriver(app)
    wait_until(lambda: _is_sent(app, first, steps))
    answer(app, "lost", ["m00000"])
    answer(app, "dead", ["m00001"])
    second = begin(app, RedriveOrder(Filter(task=str(Pay.name)), "u-9", canary=0, rate=10_000, stop_at=100))
    wait_until(lambda: _is_sent(app, second, steps))
    with app.database.session(read_only=True) as session:
        assert redrive_rows.tally(session, first).dead == 1


def _is_sent(app: ConventionsApp, id_: str, steps: Redriver) -> bool:
    step(app, id_, steps)
    with app.database.session(read_only=True) as session:
        found = session.get_one(RedriveRow, id_)
        return redrive_rows.tally(session, id_).sent == found.total


def _counts(app: ConventionsApp, id_: str) -> tuple[int, int, int, int]:
    """Sent, succeeded, retrying and dead, as people see them."""
    with app.database.session(read_only=True) as session:
        (found,) = Watch(app).look([session.get_one(RedriveRow, id_)], session)
    counts = found.counts
    assert counts.ended == 0
    return counts.sent, counts.succeeded, counts.retrying, counts.dead


def test_what_a_redrive_waits_for(app: ConventionsApp) -> None:
    """No recorder, an older one, its canary in a queue that nobody consumes; what each letter came to, and the last error."""
    bury(app, 8)
    id_ = begin(app, RedriveOrder(Filter(), "u-9", stop_at=50))
    watch = Watch(app)

    def look() -> Any:
        with app.database.session(read_only=True) as session:
            found = watch.look([session.get_one(RedriveRow, id_)], session)
            session.expunge_all()
        return watch.explain(found)[0]

    with app.database.session() as session:
        assert {NO_LEADER, "no worker consumes the queue payments"} <= set(
            doubts(app, session, Filter(), WorkerReports(app.store).releases)
        )
    assert look().why == NO_LEADER
    app.store.redis.set(app.store.key("recorder"), "host:1", px=60_000)
    assert "host:1, carries out no redrives yet" in look().why
    steps = redriver(app)
    steps._turn(lambda: False, looks=True)
    step(app, id_, steps)
    assert who_steps(app) == "the test"
    why = look().why
    assert "the canary: waits for 5 letters without an answer" in why
    assert "queue payments has 5 waiting, and no worker consumes it" in why
    assert answer(app, "retried", ["m00000"]) == 1
    assert answer(app, "cancelled", ["m00001"]) == 1
    assert answer(app, "dead", ["m00002"]) == 1
    assert answer(app, "succeeded", ["m00003"]) == 1
    names = ("waiting", "unanswered", "retrying", "succeeded", "dead", "ended", "sent")
    found = look()
    assert [found.numbers()[name] for name in names] == [3, 1, 1, 1, 1, 1, 5]
    assert found.error == ("TimeoutError", "the bank is away")
    assert answer(app, "succeeded", ["m00000"], attempt=2) == 1
    assert (look().counts.retrying, look().counts.succeeded) == (0, 2)
