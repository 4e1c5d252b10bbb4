"""`apply()` and `task_always_eager`: jobs run in the process that sends them, as tests of a team may have it."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import text

from conventions import BatchTask, BusinessError, ImmediateTask, RetryPolicy
from conventions.app import ConventionsApp
from conventions.batches.batch_summary import BatchSummary
from tests.workers import messages

AT_ONCE = RetryPolicy(attempts=3, first_wait=1)
seen: list[Any] = []


class Note(ImmediateTask):
    """Note a number, once."""

    idempotent_on = ("number",)
    retry_policy = AT_ONCE

    def run(self, number: int) -> int:
        """Fail at first where it is odd, and always where it is 99."""
        seen.append((number, self.attempt, self.actor))
        if number == 99 or (number % 2 and self.attempt < 2):
            raise ValueError("odd")
        return number


class Booked(BatchTask):
    """A batch whose chunks book in a transaction."""

    idempotent_on = ("upto",)
    chunk_size = 10
    retry_policy = AT_ONCE

    def items(self, upto: int) -> Iterator[int]:
        """Numbers; reading fails once, in the second chunk."""
        for number in range(upto):
            if number == 15 and "read" not in seen:
                seen.append("read")
                raise OSError("reading fails once")
            yield number

    def process(self, chunk: list[int], upto: int) -> int:  # noqa: ARG002
        """Book them; the second chunk fails once, and the fourth for ever."""
        seen.append(("chunk", chunk[0], self.attempt, self.actor))
        with self.transaction() as session:
            session.execute(text("INSERT INTO booked SELECT value FROM json_each(:chunk)"), {"chunk": str(chunk)})
            if chunk[0] == 10 and self.attempt == 1:
                raise OSError("once")
            if chunk[0] == 30:
                raise BusinessError("for ever")
        self.progress.advance(len(chunk))
        self.checkpoint(chunk[-1])
        return sum(chunk)

    def finish(self, summary: BatchSummary, upto: int) -> None:  # noqa: ARG002
        """Book that it has finished, as a job of its own."""
        with self.transaction() as session:
            session.execute(text("INSERT INTO booked VALUES (-1)"))
        seen.append(summary)


class Unfinished(Booked):
    """A batch whose finish fails."""

    idempotent_on = ("upto",)

    def finish(self, summary: BatchSummary, upto: int) -> None:  # noqa: ARG002
        """Fail."""
        raise BusinessError("no finish")


@pytest.fixture(autouse=True)
def _booked(app: ConventionsApp) -> None:
    seen.clear()
    with app.database.session() as session:
        session.execute(text("CREATE TABLE booked (number INTEGER)"))


@pytest.fixture
def eager(app: ConventionsApp) -> ConventionsApp:
    """An application that runs what is sent."""
    app.conf.task_always_eager = True
    return app


def booked(app: ConventionsApp) -> list[int]:
    """What is in the table."""
    with app.database.session() as session:
        return sorted(session.scalars(text("SELECT number FROM booked")))


def check_batch(app: ConventionsApp, found: Any, actor: str) -> None:
    """Everything ran once, but for what failed; nothing was sent."""
    assert found["chunks"] == 4
    assert booked(app) == [-1, *range(30)]
    summary = seen[-1]
    assert (summary.total, summary.done, summary.failed, summary.chunks) == (35, 30, 5, 4)
    assert (summary.failed_chunks, summary.cancelled_chunks) == ([3], [])
    assert summary.returns == [sum(range(10)), sum(range(10, 20)), sum(range(20, 30))]
    assert [one for one in seen if isinstance(one, tuple) and one[0] == "chunk"] == [
        ("chunk", 0, 1, actor),
        ("chunk", 10, 1, actor),
        ("chunk", 10, 2, actor),
        ("chunk", 20, 1, actor),
        ("chunk", 30, 1, actor),
    ]
    assert messages(app) == []


def test_a_batch_by_apply(app: ConventionsApp) -> None:
    """Each chunk is a job of its own: transaction, retries, progress, checkpoint; reading is tried again, and cuts nothing twice."""
    check_batch(app, Booked.apply((35,)).get(), "system")


def test_a_batch_that_is_sent(eager: ConventionsApp) -> None:
    """By `delay` and with an actor, as a team's code sends it."""
    check_batch(eager, Booked.apply_async((35,), actor="u-7").get(), "u-7")


def test_a_finish_that_fails(eager: ConventionsApp) -> None:
    """Nobody would see it otherwise; nothing runs again."""
    seen.append("read")
    result = Unfinished.delay(5)
    assert isinstance(result.result, BusinessError)
    assert "its finish has failed: BusinessError: no finish" in str(result.result)
    assert booked(eager) == list(range(5))


def test_many(eager: ConventionsApp) -> None:
    """Each runs, with its retries; an id for each, in order; a job that fails is no failed send."""
    ids = Note.enqueue_many(({"number": number} for number in (2, 3, 99)), actor="u-7")
    assert len(set(ids)) == 3
    assert seen == [(2, 1, "u-7"), (3, 1, "u-7"), (3, 2, "u-7"), (99, 1, "u-7"), (99, 2, "u-7"), (99, 3, "u-7")]
    assert messages(eager) == []


def test_an_error_of_a_job_that_is_let_through(eager: ConventionsApp) -> None:
    """With `task_eager_propagates` it comes out of the send, once, also where it looks like a broker that is away."""
    eager.conf.task_eager_propagates = True

    class Away(ImmediateTask):
        """Cannot connect."""

        not_idempotent = "a test"
        retry_policy = RetryPolicy(attempts=1, network_attempts=1)

        def run(self) -> None:
            """Fail."""
            seen.append("ran")
            raise ConnectionRefusedError("away")

    with pytest.raises(ConnectionRefusedError, match="away"):
        Away.delay()
    assert seen == ["ran"]


def test_nothing_is_claimed(eager: ConventionsApp) -> None:
    """The same job runs each time that it is sent: only the record of a transaction holds."""
    Note.delay(4)
    Note.delay(4)
    assert len(seen) == 2
    assert list(eager.store.redis.scan_iter(match=f"{eager.store.key('claim')}:*")) == []
