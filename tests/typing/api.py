"""Never run, only checked: how the public interface looks to a type checker."""

from collections.abc import Iterator
from datetime import date, datetime, timedelta
from typing import Any, assert_type

import celery
from sqlalchemy.orm import Session

from conventions import (
    EVERY_ARGUMENT,
    BatchTask,
    BusinessError,
    ImmediateTask,
    LongRunningTask,
    Priority,
    Progress,
    RetryPolicy,
    ScheduledTask,
    Settings,
    acting_as,
    chunked,
    create_app,
)
from conventions.app import ConventionsApp
from conventions.batches import BatchSummary

app = create_app("typed", packages=["typed"], schedule=None, concurrency=3)
assert_type(app, ConventionsApp)
assert_type(app.settings, Settings)
assert_type(app.settings.max_delay, timedelta)


class SendEmail(ImmediateTask):
    """Send one e-mail."""

    queue_name = "mail"
    idempotent_on = ("user_id", "day")
    retry_policy = RetryPolicy(network_attempts=10, first_wait=timedelta(seconds=1))
    aliases = ("old.SendEmail",)
    soft_time_limit = 30
    ignore_result = False

    def run(self, user_id: int, day: date, template_vars: dict[str, str]) -> str:
        assert_type(self.actor, str)
        assert_type(self.attempt, int)
        assert_type(self.idempotency_key, str)
        assert_type(self.planned_at, datetime | None)
        if not template_vars:
            raise BusinessError("nothing to say")
        with self.transaction() as session:
            assert_type(session, Session)
        return f"{user_id} {day}"


class Report(ScheduledTask):
    """Write one report."""

    not_idempotent = "it overwrites its file"

    def should_retry(self, error: Exception, attempts_made: int) -> bool:
        return attempts_made < 3 and not isinstance(error, OSError)

    def run(self, day: date) -> None: ...


class Rebuild(LongRunningTask):
    """Rebuild an index."""

    idempotent_on = EVERY_ARGUMENT
    stall_after = 60

    def run(self, index: str) -> None:
        assert_type(self.resumed_from, Any)
        self.progress.total = 10
        self.progress.advance(1, failed=1, note=index)
        self.checkpoint({"page": 1})
        self.extend_lease(30)


class Import(BatchTask):
    """Import rows."""

    idempotent_on = ("path",)
    chunk_size = 50

    def items(self, path: str) -> Iterator[dict[str, str]]:
        yield {"path": path}

    def count(self, path: str) -> int:
        return len(path)

    def process(self, chunk: list[dict[str, str]], path: str) -> int:
        return len(chunk) + len(path)

    def finish(self, summary: BatchSummary, path: str) -> None:
        assert_type(summary.percent * len(path), int)
        assert_type(summary.failed_chunks, list[int])

    def recovered(self, summary: BatchSummary, path: str) -> None: ...


def send() -> None:
    """Every path by which a message is sent."""
    today = date(2026, 1, 31)
    SendEmail.delay(7, today, template_vars={})
    SendEmail.apply_async((7,), {"day": today}, countdown=5, priority=Priority.HIGH, actor="u-42")
    SendEmail.apply_async(kwargs={"user_id": 7}, idempotency_key="order-7", task_id="chosen", planned_at=None)
    ids = SendEmail.enqueue_many([{"user_id": 7, "day": today, "template_vars": {}}], priority=Priority.LOW)
    assert_type(ids, list[str])
    assert_type(SendEmail.enqueue_chunks(range(250), 100, kwargs={"day": today}, actor="u-42"), list[str])
    celery.chain(SendEmail.s(7, today, {}), Report.si(today)).apply_async()
    celery.chord([SendEmail.s(n, today, {}) for n in range(3)], Report.si(today)).apply_async()
    celery.group(SendEmail.signature((n, today)) for n in range(3)).apply_async()
    SendEmail.map([1, 2]).apply_async()
    SendEmail.starmap([(1, today), (2, today)]).apply_async()
    SendEmail.chunks([(1, today)], 10).apply_async()
    SendEmail.cancel("an id")
    Import.delay(path="a.csv")
    with acting_as("u-42"):
        Rebuild.delay("names")


def read() -> None:
    """What is read from outside of a job."""
    progress = Progress.of("an id")
    assert_type(progress, Progress)
    assert_type(progress.percent, int | None)
    assert_type(progress.eta, float | None)
    for chunk in chunked(range(250), 100):
        assert_type(chunk, list[int])


def refused() -> Any:
    """What a type checker finds; an error that is not found makes its `type: ignore` unused, which is an error."""
    SendEmail.apply_async((7,), actor=42)  # type: ignore[arg-type]
    SendEmail.apply_async("seven", task_id=7)  # type: ignore[arg-type]
    SendEmail.enqueue_many([7])  # type: ignore[list-item]
    SendEmail.enqueue_chunks([1], size="ten")  # type: ignore[arg-type]
    SendEmail.cancel()  # type: ignore[call-arg]
    RetryPolicy(attempts="5")  # type: ignore[arg-type]
    create_app("typed", packages=7)  # type: ignore[arg-type]
    return Priority.HIGHEST  # type: ignore[attr-defined]
