"""Somebody exchanges a message in Redis while its job runs: a dead letter has what the worker has run, and so has its redrive (R20)."""

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from celery import chain

from conventions import EVERY_ARGUMENT, ImmediateTask, Priority, RetryPolicy, acting_as
from conventions.app import ConventionsApp
from conventions.broker.header_names import OURS, SIGNATURE
from conventions.core.named_keys import new_key
from conventions.dead_letters.edit import edit
from conventions.dead_letters.resend import redrive
from conventions.metrics.worker_reports import WorkerReports
from conventions.pauses.pause_actions import PauseActions, those_that_do_not_follow
from conventions.pauses.pause_store import Target
from tests.stored_messages import stored
from tests.support import wait_until
from tests.workers import Installation, acting_through, forget, letters, wait_until_empty

pytestmark = pytest.mark.processes

Message = dict[str, Any]
ONCE = RetryPolicy(attempts=1, network_attempts=1)


class Pay(ImmediateTask):
    """Note who pays."""

    idempotent_on = ("order",)

    def run(self, order: str, amount: int) -> None:
        self.app.store.redis.rpush(self.app.store.key("paid"), f"{order} {amount} by {self.actor}")


class Fragile(ImmediateTask):
    """Wait for a sign, and fail; once it is mended, note who pays."""

    idempotent_on = EVERY_ARGUMENT
    retry_policy = ONCE

    def run(self, order: str, amount: int) -> None:
        redis, key = self.app.store.redis, self.app.store.key
        if not redis.exists(key("mended")):
            redis.set(key("runs"), 1)
            wait_until(lambda: redis.exists(key("go")), 20)
            raise ValueError("broken")
        tenant = (self.request.headers or {}).get("tenant")
        redis.rpush(key("paid"), f"{order} {amount} by {self.actor} as {tenant!r}")


class Foreign(Fragile):
    """The same, for programs that cannot sign."""

    idempotent_on = EVERY_ARGUMENT
    queue_name = "legacy"
    retry_policy = ONCE


@pytest.fixture
def installation(valkey_url: str, new_database: Callable[[Path], str], tmp_path: Path) -> Installation:
    """With a key, and a queue for programs that have none."""
    settings = {
        "broker_url": valkey_url,
        "database_url": new_database(tmp_path),
        "message_keys": new_key("k"),
        "accept_unsigned": "legacy",
    }
    return Installation(tmp_path, [__name__], [Path(__file__).parent], key_prefix=f"t{uuid4().hex[:8]}", **settings)


@pytest.fixture
def app(installation: Installation) -> Iterator[ConventionsApp]:
    """Its application, and a worker."""
    with installation.application() as app, acting_through(app), installation.worker():
        yield app
        forget(app.store)


def paid(app: ConventionsApp) -> list[str]:
    """What has run well."""
    found: Any = app.store.redis.lrange(app.store.key("paid"), 0, -1)
    return [one.decode() for one in found]


def say(app: ConventionsApp, *signs: str) -> None:
    """Let jobs go on."""
    for one in signs:
        app.store.redis.set(app.store.key(one), 1)


def wait_until_it_runs(app: ConventionsApp) -> None:
    """A job has begun."""
    wait_until(lambda: app.store.redis.exists(app.store.key("runs")), 40)


def exchange(app: ConventionsApp, id_: str, how: Callable[[Message], Message]) -> None:
    """Put another message in the place of one that is there, as whoever reaches Redis can."""
    redis: Any = app.store.redis
    key = app.store.key("message", id_)
    text = json.dumps(how(json.loads(stored(app.store, id_)["payload"]))).encode()
    if redis.type(key) == b"hash":
        redis.hset(key, "payload", text)
    else:
        value = redis.get(key)
        redis.set(key, value[: value.index(b"{")] + text, keepttl=True)


def unsigned(message: Message) -> Message:
    """The same without its signature, as another program would send it."""
    return message | {"headers": {name: one for name, one in message["headers"].items() if name != SIGNATURE}}


def of_somebody_else(message: Message) -> Message:
    """Not signed, of another task, with a step after it."""
    step = {
        "task": Pay.name,
        "args": [],
        "kwargs": {"order": "step", "amount": 999},
        "options": {"actor": "ceo"},
        "immutable": True,
        "subtask_type": None,
    }
    body = [
        [],
        {"order": "forged", "amount": 666},
        {"callbacks": [step], "chain": None, "errbacks": None, "chord": None},
    ]
    headers = {name: one for name, one in message["headers"].items() if name not in OURS} | {"task": Pay.name}
    return message | {"headers": headers, "body": b64encode(json.dumps(body).encode()).decode()}


@pytest.mark.parametrize("task", [Fragile, Foreign], ids=lambda task: task.__name__)
def test_another_message(app: ConventionsApp, task: Any) -> None:
    """Neither its task nor its arguments nor its steps run, whoever had sent the job."""
    with acting_as("treasurer"):
        sent = task.apply_async(kwargs={"order": "o", "amount": 7}, countdown=5)
    if task is Foreign:
        exchange(app, sent.id, unsigned)
    wait_until_it_runs(app)
    exchange(app, sent.id, of_somebody_else)
    say(app, "go")
    (letter,) = wait_until(lambda: letters(app), 30)
    say(app, "mended")
    assert redrive(app, letter.id, "ann")
    wait_until(lambda: paid(app), 20)
    wait_until_empty(app)
    assert paid(app) == [f"o 7 by {'unsigned' if task is Foreign else 'treasurer'} as None"]


def test_the_message_of_before_an_edit(app: ConventionsApp) -> None:
    """It is signed, and has the same id."""
    with acting_as("treasurer"):
        sent = Fragile.apply_async(kwargs={"order": "o", "amount": 1000}, countdown=5)
    first = json.loads(stored(app.store, sent.id)["payload"])
    say(app, "go")
    wait_until(lambda: letters(app), 30)
    edit(app, sent.id, {"order": "o", "amount": 1}, "ann")
    app.store.redis.delete(app.store.key("go"), app.store.key("runs"))
    assert redrive(app, sent.id, "ann")
    wait_until_it_runs(app)
    exchange(app, sent.id, lambda _: first)
    say(app, "go")
    wait_until(lambda: [one for one in letters(app) if one.generation == 1], 30)
    say(app, "mended")
    assert redrive(app, sent.id, "ann")
    wait_until(lambda: paid(app), 20)
    wait_until_empty(app)
    assert paid(app) == ["o 1 by treasurer as None"]


@pytest.mark.parametrize("priority", [Priority.LOW, Priority.URGENT])
def test_what_a_redrive_keeps(app: ConventionsApp, priority: Priority) -> None:
    """The priority of the send, what listings show of the arguments, and all that the message said of itself."""
    with acting_as("treasurer"):
        sent = Fragile.apply_async(kwargs={"order": "o", "amount": 7}, countdown=5, priority=priority)
    before = json.loads(stored(app.store, sent.id)["payload"])
    say(app, "go")
    wait_until(lambda: letters(app), 30)
    workers = WorkerReports(app.store).listing
    wait_until(workers, 30, "the worker reports")
    change = PauseActions(app.store).pause(Target("queue", "immediate"), "ann", "to look")
    assert those_that_do_not_follow(workers, change.revision, within=30) == []
    assert redrive(app, sent.id, "ann")
    after = wait_until(lambda: json.loads(stored(app.store, sent.id).get("payload") or "null"), 20)
    assert after["properties"]["priority"] == before["properties"]["priority"] == int(priority)
    changed = {
        name
        for name in {**before["headers"], **after["headers"]}
        if before["headers"].get(name) != after["headers"].get(name)
    }
    assert changed <= {
        "x_generation", "x_enqueued_at", "x_conventions_signature", "x_conventions_signed", "x_conventions_redriven_by", "eta", "x_conventions_ready_at",
    }  # fmt: skip
    assert b64decode(after["body"]) == b64decode(before["body"])


ID = UUID("09cb8c79-0000-4000-8000-000000000002")
DAY = datetime(2026, 12, 1, tzinfo=UTC)


@pytest.mark.parametrize("tenant", ["t-1", ID, DAY, {"a": ID}, b"abc", 1.5], ids=lambda one: type(one).__name__)
def test_headers_of_other_types(app: ConventionsApp, tenant: Any) -> None:
    """They come back as they were, and so does what follows."""
    with acting_as("treasurer"):
        first = Fragile.s(order="o", amount=7).set(headers={"tenant": tenant})
        chain(first, Pay.si(order="next", amount=8)).apply_async()
    say(app, "go")
    (letter,) = wait_until(lambda: letters(app), 30)
    say(app, "mended")
    assert redrive(app, letter.id, "ann")
    wait_until(lambda: len(paid(app)) == 2, 20)
    wait_until_empty(app)
    assert paid(app) == [f"o 7 by treasurer as {tenant!r}", "next 8 by treasurer"]
