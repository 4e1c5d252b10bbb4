"""A signal's receiver asks about a message before its job begins, as one does that adds the actor to each line of a log."""

from typing import Any

import pytest
from celery import signals

from conventions import ImmediateTask, RetryPolicy, acting_as
from conventions.app import ConventionsApp
from conventions.records import executions
from tests.support import wait_until


class Asked(ImmediateTask):
    """A job that fails at its first attempt, and about which somebody asks before each."""

    idempotent_on = ("number",)
    retry_policy = RetryPolicy(attempts=3, first_wait=0.1, max_wait=0.2)

    def run(self, number: int) -> None:  # noqa: ARG002
        """Say who runs it."""
        say(self, "ran")
        if self.attempt == 1:
            raise ValueError("not yet")


def say(task: Any, name: str) -> None:
    """Write down what is known of the message."""
    store = task.app.store
    store.redis.rpush(store.key(name), f"{task.actor} {task.attempt} {task.idempotency_key}")


def ask(task: Any = None, **_: Any) -> None:
    """Ask about it."""
    if isinstance(task, Asked):
        say(task, "asked")


@signals.worker_init.connect(weak=False)
def listen(**_: Any) -> None:
    """In the worker alone: other tests of this process would be looked at, too."""
    signals.task_prerun.connect(ask, weak=False)


@pytest.mark.everyday
def test_whoever_asks_early_changes_nothing(live_app: ConventionsApp) -> None:
    """What the receiver reads is what `run` reads; the job is claimed, tried again and recorded as any other."""

    def kinds(message_id: str) -> list[str]:
        with live_app.database.session() as session:
            return [row.kind for row in executions.of_message(session, message_id)]

    with acting_as("u-7"):
        first = Asked.delay(number=1).id
        wait_until(lambda: kinds(first) == ["retried", "succeeded"], 20, "it is tried again")
        second = Asked.delay(number=1).id  # earlier, it might take its turn during the back-off of the first
        wait_until(lambda: kinds(second) == ["duplicate"], 20, "it is a duplicate")
    found: list[Any] = [live_app.store.redis.lrange(live_app.store.key(name), 0, -1) for name in ("ran", "asked")]
    ran, asked = ([line.decode().split() for line in lines] for lines in found)
    assert [line[:2] for line in ran] == [["u-7", "1"], ["u-7", "2"]]
    assert {tuple(line) for line in ran} <= {tuple(line) for line in asked}
