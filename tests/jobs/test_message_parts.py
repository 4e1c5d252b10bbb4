"""What a job is made of, while its message is kept: in the broker and in its dead letter, also where others wrote it."""

from typing import Any

from celery import chain, chord

from conventions import EVERY_ARGUMENT, BatchTask, ImmediateTask
from conventions.app import ConventionsApp
from conventions.broker.redis_broker import Publication
from conventions.jobs.message_parts import MessageParts, Step, parts_of
from conventions.storage.tables import DeadLetterRow
from tests.failures import failure, record
from tests.stored_messages import stored
from tests.workers import messages


class One(ImmediateTask):
    """Do nothing."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, number: int) -> None:
        """Nothing runs here."""


class Sum(ImmediateTask):
    """Do nothing."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, numbers: list[int]) -> None:
        """Nothing runs here."""


class Numbers(BatchTask):
    """Do nothing."""

    idempotent_on = EVERY_ARGUMENT

    def items(self, n: int) -> list[int]:
        return list(range(n))

    def process(self, chunk: list[int], n: int) -> None:
        """Nothing runs here."""


def test_of_a_message_that_waits(app: ConventionsApp) -> None:
    """Its arguments, and what comes after it, in order."""
    last = chain(One.si(number=1), One.si(number=2), Sum.si(numbers=[3])).apply_async()
    first = last.parent.parent.id
    found = parts_of(app, first)
    assert found is not None
    assert found.arguments == {"number": 1}
    assert [step.task for step in found.following] == [str(One.name), str(Sum.name)]
    assert [step.id for step in found.following] == [last.parent.id, last.id]
    assert (found.parent, found.root, found.batch) == ("", "", "")
    part = chord([One.si(number=7)])(Sum.s()).parent[0].id
    parts = parts_of(app, part)
    assert parts is not None
    assert [step.task for step in parts.following] == [str(Sum.name)]


def test_of_a_chunk(app: ConventionsApp) -> None:
    """The batch that it belongs to."""
    sent = Numbers.delay(n=3)
    found = parts_of(app, sent.id)
    assert found is not None
    assert (found.batch, found.arguments) == (sent.id, {"n": 3})


def test_of_a_dead_letter(app: ConventionsApp) -> None:
    """With its present arguments, which may have been edited since."""
    sent = One.delay(number=1)
    (message,) = messages(app)
    import json

    raw: dict[str, Any] = json.loads(stored(app.broker.store, sent.id)["payload"])
    app.broker.drop("immediate")
    record(
        app.database,
        failure(
            sent.id, ValueError("x"), task=str(One.name), arguments={"number": 1}, headers=message.headers, message=raw
        ),
    )
    with app.database.session() as session:
        session.get_one(DeadLetterRow, sent.id).arguments = {"number": 2}
    assert parts_of(app, sent.id) == MessageParts({"number": 2})
    assert parts_of(app, sent.id, sql=False) is None


def test_of_nothing(app: ConventionsApp) -> None:
    """As of a job that has ended well."""
    assert parts_of(app, "nobody") is None


def test_what_another_program_wrote(app: ConventionsApp) -> None:
    """Says as much as can be read."""
    for number, payload in enumerate(
        ("no message", '{"headers": {"id": "x", "parent_id": 7}, "body": "!"}', "[" * 100_000)
    ):
        app.broker.publish([Publication(f"odd-{number}", "immediate", payload, 4)])
        found = parts_of(app, f"odd-{number}")
        assert found in (None, MessageParts())
    assert Step("a", "b").id == "b"
