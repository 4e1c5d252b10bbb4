"""What people do to a batch, with a row in the audit for each (R18, R22)."""

from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from conventions import EVERY_ARGUMENT, BatchTask
from conventions.app import ConventionsApp
from conventions.batches.batch_actions import cancel_batch, retry_failed
from conventions.batches.batch_state import Origin
from conventions.broker.batch_membership import chunk_id, finish_id
from conventions.core.errors import BrokerUnavailable
from conventions.records import audit
from tests.batching import Ending
from tests.failures import failure, record
from tests.workers import messages


class Import(BatchTask):
    """Import lines."""

    idempotent_on = EVERY_ARGUMENT

    def items(self, path: str) -> list[str]:
        return [path]

    def process(self, chunk: list[str], path: str) -> None:
        """Do nothing."""


def begin(app: ConventionsApp, dead: int = 0) -> None:
    """A batch whose first chunks are dead letters."""
    app.batches.create("b", Origin(Import.name, {"path": "x"}, "u-1"), 9)
    for index in range(dead):
        Ending(app.store, app.batches, "b").chunk(index, "dead", 1)
        arguments = {
            "batch_id": "b",
            "chunk_index": index,
            "total_chunks": 9,
            "items": ["x"],
            "arguments": {"path": "x"},
        }
        record(app.database, failure(chunk_id("b", index), task=f"{Import.name}.chunk", arguments=arguments))


def deeds(app: ConventionsApp) -> list[tuple[str, str, str, str | None]]:
    """The rows of the audit."""
    with app.database.session() as session:
        return [(one.actor, one.action, one.target, one.reason) for one in audit.listing(session, 9)]


def test_a_cancel_is_written_down(app: ConventionsApp) -> None:
    """Once: what has ended is not cancelled again, and nothing is written."""
    begin(app)
    assert cancel_batch(app, "b", "u-9", "the wrong file")
    assert app.batches.state("b") == "cancelled"
    assert not cancel_batch(app, "b", "u-9")
    assert not cancel_batch(app, "nobody", "u-9")
    assert deeds(app) == [("u-9", "batch cancel", "b", "the wrong file")]


def test_nothing_is_cancelled_that_cannot_be_written_down(app: ConventionsApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database is away: the batch goes on."""

    def away(*_: Any) -> None:
        raise OperationalError("", {}, Exception("away"))

    begin(app)
    monkeypatch.setattr(audit, "record", away)
    with pytest.raises(OperationalError):
        cancel_batch(app, "b", "u-9")
    assert app.batches.state("b") == "splitting"


def test_dead_chunks_are_sent_again(app: ConventionsApp) -> None:
    """Those whose letters are there; the audit says who wanted it, once for all of them."""
    begin(app, dead=3)
    Ending(app.store, app.batches, "b").chunk(3, "dead", 1)  # its letter is not recorded yet
    assert retry_failed(app, "b", "u-9", "mended") == (3, 4)
    assert {one.id for one in messages(app)} == {chunk_id("b", index) for index in range(3)}
    assert retry_failed(app, "b", "u-9") == (0, 4)
    assert deeds(app)[-1] == ("u-9", "batch retry-failed", "b", "mended")


def test_one_that_does_not_fit_any_more_stops_no_other(app: ConventionsApp) -> None:
    """As after a deploy that changed a chunk's arguments."""
    begin(app, dead=3)
    record(
        app.database,
        failure(chunk_id("b", 1), task=f"{Import.name}.chunk", arguments={"other": 1}, attempt=2, generation=1),
    )
    sent, wanted = retry_failed(app, "b", "u-9")
    assert (sent, wanted) == (2, 3)


def test_a_broker_that_is_away_ends_it(app: ConventionsApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was sent is sent, and counted."""
    begin(app, dead=3)
    asked: list[str] = []

    def once(_: Any, id_: str, _by: str) -> bool:
        asked.append(id_)
        if len(asked) == 2:
            raise BrokerUnavailable("away")
        return True

    monkeypatch.setattr("conventions.batches.batch_actions.redrive", once)
    assert retry_failed(app, "b", "u-9") == (1, 3)
    assert len(asked) == 2


def test_without_a_dead_chunk_nothing_is_done(app: ConventionsApp) -> None:
    """Nor written down."""
    begin(app)
    assert retry_failed(app, "b", "u-9") == (0, 0)
    assert retry_failed(app, "nobody", "u-9") == (0, 0)
    assert deeds(app) == []


@pytest.mark.parametrize("role", ["splitter", "finish"])
def test_what_ended_a_batch_is_sent_again(app: ConventionsApp, role: Any) -> None:
    """Its splitter, whose items could not be read, or its finish: each makes the whole batch dead."""
    begin(app)
    id_ = "b" if role == "splitter" else finish_id("b")
    if role == "finish":
        app.batches.note_is_cut("b", chunks=0, total=0)
    Ending(app.store, app.batches, "b").role(role, "dead")
    arguments: dict[str, Any] = {"path": "x"} if role == "splitter" else {"batch_id": "b", "arguments": {"path": "x"}}
    record(app.database, failure(id_, task=Import.name + (".finish" if role == "finish" else ""), arguments=arguments))
    assert retry_failed(app, "b", "u-9") == (1, 1)
    assert [one.id for one in messages(app)] == [id_]


def test_nothing_of_a_cancelled_batch_is_sent_again(app: ConventionsApp) -> None:
    """Its chunks would end at once, and their letters would say that they had ended well."""
    begin(app, dead=2)
    app.batches.cancel("b")
    assert retry_failed(app, "b", "u-9") == (0, 2)
    assert messages(app) == []
