"""Messages that wait, chosen by what they are: cancelled with a row each, or moved in their order; the others stay as they are."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from celery import chain
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conventions import EVERY_ARGUMENT, BatchTask, ImmediateTask, Priority, RetryPolicy, acting_as
from conventions.app import ConventionsApp
from conventions.broker import waiting_messages
from conventions.broker.codec import headers_in
from conventions.broker.delivery import Delivery
from conventions.broker.redis_broker import HeldMessage, Publication
from conventions.broker.waiting_messages import Waiting, WaitingPlace, every
from conventions.core.errors import PurgeStopped
from conventions.execution import change_waiting
from conventions.execution.change_waiting import Outcome, cancel_selected, move_selected
from conventions.execution.waiting_selection import Selection, found
from conventions.jobs.job import Job
from conventions.records import audit
from conventions.storage.tables import ExecutionRow
from tests.recorded import contents, drain, recorder
from tests.workers import forget, messages


class Mail(ImmediateTask):
    """Send a mail."""

    idempotent_on = EVERY_ARGUMENT
    queue_name = "mail"
    aliases = ("old.mail",)
    retry_policy = RetryPolicy(attempts=1)

    def run(self, number: int, to: str = "a@example.com") -> None:
        """Nothing runs here."""


class Letter(ImmediateTask):
    """Send a letter; in the same queue."""

    idempotent_on = EVERY_ARGUMENT
    queue_name = "mail"

    def run(self, number: int) -> None:
        """Nothing runs here."""


class Numbers(BatchTask):
    """Add numbers."""

    idempotent_on = EVERY_ARGUMENT

    def items(self, n: int) -> list[int]:
        return list(range(n))

    def process(self, chunk: list[int], n: int) -> None:
        """Nothing runs here."""


MAIL = Selection(("mail",), frozenset([str(Mail.name), "old.mail"]))


def waiting(app: ConventionsApp, queue: str) -> list[str]:
    """The ids of the messages that wait in a queue, in the order in which they come; those that are not due last."""
    places: tuple[WaitingPlace, ...] = ("queue", "delayed")
    return [one.message_id for place in places for some in every(app.broker, queue, place) for one in some]


def rows(app: ConventionsApp) -> list[dict[str, Any]]:
    """Executions, once everything is recorded."""
    drain(recorder(app.store, app.database))
    return contents(app.database, ExecutionRow)


def actions(app: ConventionsApp) -> list[tuple[str, str, str, Any, Any]]:
    """What the audit has, in order."""
    with app.database.session() as session:
        return [
            (row.actor, row.action, row.target, row.before, row.after) for row in reversed(audit.listing(session, 100))
        ]


def test_cancelled_ones_have_a_row_and_the_others_stay(app: ConventionsApp) -> None:
    """By task, with its aliases, ready and delayed ones; and the audit has who, why and how many."""
    mails = [Mail.delay(number=number).id for number in range(3)]
    mails.append(Mail.apply_async(kwargs={"number": 3}, countdown=3600).id)
    letters = [Letter.delay(number=number).id for number in range(3)]
    done = cancel_selected(app, MAIL, "u-7", "the wrong template")
    assert (done.total, done.told, done.left) == (4, 0, 0)
    assert waiting(app, "mail") == letters
    recorded = {row["message_id"]: row for row in rows(app)}
    assert {*recorded} == {*mails}
    assert {row["kind"] for row in recorded.values()} == {"cancelled"}
    assert {Job.of(one).state for one in mails} == {"cancelled"}
    begins, ended = actions(app)
    words = {"queues": ["mail"], "tasks": sorted(MAIL.tasks)}
    assert begins == ("u-7", "messages cancel begins", "mail", words, None)
    assert ended == ("u-7", "messages cancel", "mail", words, {"done": {"mail": 4}, "left": 0})


@pytest.mark.parametrize(
    ("narrow", "expected"),
    [
        ({"arguments": (("number", "1"),)}, {1}),
        ({"arguments": (("to", "b@example.com"),)}, {2}),
        ({"arguments": (("to", '"b@example.com"'),)}, {2}),
        ({"arguments": (("number", "2"), ("to", "b@example.com"))}, {2}),
        ({"arguments": (("number", "1"), ("to", "b@example.com"))}, set()),
        ({"arguments": (("absent", "1"),)}, set()),
        ({"actor": "u-1"}, {1}),
        ({"older_than": timedelta(hours=1)}, {0}),
        ({"tasks": frozenset(["Nothing"])}, set()),
    ],
)
def test_what_narrows_a_selection(app: ConventionsApp, narrow: dict[str, Any], expected: set[int]) -> None:
    """Arguments as text or as JSON, the sender, and the age."""
    with time_machine.travel("2026-11-29 00:00:00+00:00"):
        ids = {Mail.delay(number=0).id: 0}
    with acting_as("u-1"):
        ids[Mail.delay(number=1).id] = 1
    ids[Mail.delay(number=2, to="b@example.com").id] = 2
    chosen = Selection(("mail",), **narrow)
    assert {ids[one.message_id] for one in found(app, chosen)} == expected
    assert cancel_selected(app, chosen, "u", "x").total == len(expected)
    assert {ids[one] for one in waiting(app, "mail")} == {0, 1, 2} - expected


def test_moved_ones_keep_order_priority_and_time(app: ConventionsApp) -> None:
    """They run as those of the other queue, also after a retry; the place of a job is the other queue."""
    low, usual, urgent = (
        Mail.apply_async(kwargs={"number": number}, priority=priority).id
        for number, priority in enumerate((Priority.LOW, Priority.NORMAL, Priority.URGENT))
    )
    later = Mail.apply_async(kwargs={"number": 3}, countdown=3600)
    due = Job.of(later.id).due_at
    there = Mail.apply_async(kwargs={"number": 4}, queue="other").id
    letter = Letter.delay(number=1).id
    assert move_selected(app, MAIL, "other", "u-7", "a worker of its own").total == 4
    assert waiting(app, "mail") == [letter]
    assert waiting(app, "other") == [urgent, usual, there, low, later.id]
    assert (Job.of(later.id).queue, Job.of(later.id).state, Job.of(later.id).due_at) == ("other", "delayed", due)
    (delivery, *_) = app.broker.reserve(["other"], 1)
    assert (delivery.queue, headers_in(delivery.payload)["id"]) == ("other", urgent)
    app.broker.give_back([HeldMessage(delivery.tag, delivery.queue, delivery.receipt)])
    assert waiting(app, "other")[0] == urgent
    assert {one.queue for one in messages(app) if one.id != letter} == {"other"}


def test_one_that_others_wait_for_is_marked(app: ConventionsApp) -> None:
    """A worker ends it, and tells the chain; it is counted once, however often it is seen."""
    first = chain(Mail.si(number=1), Mail.si(number=2)).apply_async().parent.id
    alone = Mail.delay(number=3).id
    done = cancel_selected(app, MAIL, "u-7", "x")
    assert (done.total, done.told) == (2, 1)
    assert waiting(app, "mail") == [first]
    assert app.store.redis.exists(app.store.key("cancel", first)) == 1
    assert [row["message_id"] for row in rows(app)] == [alone]


def test_a_batch_that_has_not_begun(app: ConventionsApp) -> None:
    """Its splitter is cancelled, and so is the batch."""
    sent = Numbers.delay(n=3)
    done = cancel_selected(app, Selection(("scheduled", "immediate", "long"), frozenset([str(Numbers.name)])), "u", "x")
    assert done.total == 1
    rows(app)
    assert Job.of(sent.id).state == "cancelled"


def test_what_a_worker_holds_is_left(app: ConventionsApp) -> None:
    """Nobody takes it from its hands."""
    held, waits = (Mail.delay(number=number).id for number in range(2))
    (delivery,) = app.broker.reserve(["mail"], 1)
    assert headers_in(delivery.payload)["id"] == held
    assert move_selected(app, MAIL, "other", "u", "x").total == 1
    assert waiting(app, "other") == [waits]
    assert app.broker.sizes("mail").in_flight == 1


def test_one_that_moves_meanwhile_is_left_to_who_took_it(app: ConventionsApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker takes some between the look and the change: those are not counted, and nothing is lost or doubled."""
    ids = [Mail.delay(number=number).id for number in range(5)]
    original = waiting_messages.look
    taken: list[Delivery] = []

    def look(*args: Any, **kwargs: Any) -> list[Waiting]:
        seen = original(*args, **kwargs)
        if seen and not taken:
            taken.extend(app.broker.reserve(["mail"], 2))
        return seen

    monkeypatch.setattr(change_waiting, "look", look)
    done = move_selected(app, MAIL, "other", "u", "x")
    assert (done.total, done.left) == (3, 0)
    assert waiting(app, "other") == ids[2:]
    assert app.broker.sizes("mail").in_flight == 2


def test_what_another_program_wrote_is_no_message(app: ConventionsApp) -> None:
    """It is neither counted, nor cancelled, nor moved: a worker makes a dead letter of it."""
    mail = Mail.delay(number=1).id
    for number, payload in enumerate(
        ("no message", '{"headers": {}}', '{"headers": {"id": 5, "task": "x"}, "body": "!"}')
    ):
        app.broker.publish([Publication(f"odd-{number}", "mail", payload, 4)])
    everything = Selection(("mail",))
    assert [one.message_id for one in found(app, everything)] == [mail]
    assert cancel_selected(app, everything, "u", "x").total == 1
    assert move_selected(app, everything, "other", "u", "x").total == 0
    assert app.broker.sizes("mail").ready == 3


@pytest.mark.parametrize("what", ["messages cancel", "messages move"])
def test_one_that_is_stopped(app: ConventionsApp, what: str) -> None:
    """After the step at hand. What it has done is told, and the audit does not say that nothing is left; the next one does the rest."""
    for number in range(3):
        Mail.apply_async(kwargs={"number": number}, countdown=3600 * (number == 0))

    def change(stops: Callable[[], bool]) -> Outcome:
        if what == "messages cancel":
            return cancel_selected(app, MAIL, "u", "x", stops=stops)
        return move_selected(app, MAIL, "other", "u", "x", stops=stops)

    asked = iter([False, True])  # before the delayed one, and before the others
    done = change(lambda: next(asked))
    assert (done.total, done.complete) == (1, False)
    assert len(waiting(app, "mail")) == 2
    rest = change(lambda: False)
    assert (rest.total, rest.left, rest.complete) == (2, 0, True)
    rows(app)
    ended = [after for _, action, _, _, after in actions(app) if action == what]
    first, second = sorted(ended, key=lambda one: one["done"]["mail"])  # both may be of one millisecond
    assert first == {"done": {"mail": 1}, "cut short": True}
    assert second == {"done": {"mail": 2}, "left": 0}


def test_the_audit_has_the_selection_as_it_was_written(app: ConventionsApp) -> None:
    """First what narrows it; queues only where somebody has named them."""
    Mail.delay(number=1)
    which = replace(MAIL, queues=("immediate", "mail"), all_queues=True, task="Mail", arguments=(("number", "1"),))
    move_selected(app, which, "other", "u", "x")
    rows(app)
    for _, _, target, before, _ in actions(app):
        assert target == "all queues"
        assert before == {
            "to": "other",
            "task": "Mail",
            "arguments": [["number", "1"]],
            "tasks": sorted(MAIL.tasks),
        }


def test_a_full_journal_stops_a_cancel(app: ConventionsApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says how many went; nothing goes without its row."""
    for number in range(3):
        Mail.delay(number=number)
    monkeypatch.setattr(app.broker, "journal_limit", 1)
    with pytest.raises(PurgeStopped, match="0 messages are cancelled"):
        cancel_selected(app, MAIL, "u", "x")
    assert len(waiting(app, "mail")) == 3


@pytest.mark.thorough
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # each example forgets what the last one left
@given(
    here=st.lists(st.tuples(st.sampled_from(Priority), st.booleans(), st.booleans()), max_size=8),
    there=st.lists(st.sampled_from(Priority), max_size=4),
)
def test_any_mixture(app: ConventionsApp, here: list[tuple[Priority, bool, bool]], there: list[Priority]) -> None:
    """All are in one place in the end, and the queue is what it had been if all had been sent there."""
    forget(app.store)
    order: list[tuple[int, int, str]] = []
    stays, delayed = [], set()
    for number, (priority, is_delayed, is_mail) in enumerate(here):
        task: Any = Mail if is_mail else Letter
        more = {"countdown": 3600 + number} if is_delayed else {}
        id_ = task.apply_async(kwargs={"number": number}, priority=priority, **more).id
        if not is_mail:
            stays.append(id_)
        elif is_delayed:
            delayed.add(id_)
        else:
            order.append((-int(priority), number, id_))
    for number, priority in enumerate(there, start=len(here)):
        id_ = Mail.apply_async(kwargs={"number": number}, priority=priority, queue="other").id
        order.append((-int(priority), number, id_))
    done = move_selected(app, MAIL, "other", "u", "x")
    expected = [id_ for *_, id_ in sorted(order)]
    assert done.total == len(delayed) + len(order) - len(there)
    assert waiting(app, "other")[: len(expected)] == expected
    assert {*waiting(app, "other")[len(expected) :]} == delayed
    assert Counter(waiting(app, "mail")) == Counter(stays)
