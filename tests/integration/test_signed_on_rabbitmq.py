"""RabbitMQ: its workers believe only what somebody with the keys has sent, also what waits for its time in Redis (R20)."""

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import amqp  # type: ignore[import-untyped]  # it has no types
import pytest
from celery import chain

from conventions import acting_as
from conventions.app import ConventionsApp
from conventions.broker.header_names import ACTOR, KEY, SIGNATURE
from tests.integration.rabbitmq_tasks import Fails, Items, Note
from tests.rabbitmq_servers import Rabbit
from tests.support import wait_until
from tests.workers import Installation, letters


@pytest.fixture
def host(rabbit: Rabbit) -> str:
    """A virtual host of the test's own."""
    return rabbit.add_host()


@pytest.fixture
def installation(
    rabbit: Rabbit, host: str, valkey_url: str, new_database: Callable[[Path], str], tmp_path: Path
) -> Installation:
    """An application there."""
    tasks = ["tests.integration.rabbitmq_tasks"]
    return Installation(
        tmp_path, tasks, broker_url=rabbit.url_of(host), redis_url=valkey_url, database_url=new_database(tmp_path)
    )


@pytest.fixture
def app(installation: Installation) -> Iterator[ConventionsApp]:
    """The sending side."""
    with installation.application() as app:
        yield app


def numbers(folder: Path) -> list[int]:
    """What has run."""
    path = folder / "note"
    return sorted(int(line.split()[0]) for line in path.read_text().splitlines()) if path.exists() else []


def taken(rabbit: Rabbit, host: str, queue: str) -> Any:
    """Take one message out of a queue."""
    with rabbit.connection(host) as connection:
        channel = connection.channel()

        def got() -> Any:
            return channel.basic_get(queue, no_ack=True)

        return wait_until(got, 20, "a message is there")


def put(rabbit: Rabbit, host: str, queue: str, message: Any) -> None:
    """Put it back, as anybody who reaches RabbitMQ can."""
    with rabbit.connection(host) as connection:
        channel = connection.channel()
        channel.basic_publish_confirm(amqp.Message(message.body, **message.properties), "", queue)


def test_what_our_senders_send(installation: Installation, app: ConventionsApp) -> None:
    """One, many, one that is not due, a retry, a batch, a chain: each arrives with its actor."""
    with installation.worker(), acting_as("u-1"):
        Note.delay(1)
        Note.enqueue_many([{"number": number} for number in (2, 3)])
        Note.apply_async((4,), countdown=0.5, headers={"tenant": "t-1", "count": 2, "nothing": None})
        Fails.delay(5, 1)
        chain(Note.si(6), Note.si(7)).delay()
        Items.delay(count=5)
        wait_until((installation.folder / "finish").exists, 60, "the batch has ended")
        wait_until(lambda: {1, 2, 3, 4, 5, 6, 7} <= set(numbers(installation.folder)), 60, "all have run")
    assert letters(app) == []


@pytest.mark.parametrize("how", ["no signature", "actor", "key", "body", "added"])
def test_an_altered_one(rabbit: Rabbit, host: str, installation: Installation, app: ConventionsApp, how: str) -> None:
    """It does not run, and is a letter of nobody; a header that was added is dropped."""
    sent = Note.delay(7)
    queue = next(
        name
        for name, count in wait_until(lambda: {n: c for n, c in rabbit.queues(host).items() if c}, 30).items()
        if count
    )
    message = taken(rabbit, host, queue)
    headers = message.properties["application_headers"]
    assert headers[SIGNATURE]
    match how:
        case "no signature":
            del headers[SIGNATURE]
        case "actor":
            headers[ACTOR] = "ceo"
        case "key":
            headers[KEY] = "another"
        case "body":
            args, kwargs, embed = json.loads(message.body)
            message.body = json.dumps([args, kwargs | {"number": 8}, embed])
        case _:
            headers["tenant"] = "t-9"
    put(rabbit, host, queue, message)
    with installation.worker():
        if how == "added":
            wait_until(lambda: numbers(installation.folder) == [7], 30)
            return
        (letter,) = wait_until(lambda: letters(app), 30)
    assert (letter.error, letter.actor, letter.id == sent.id) == ("SignatureRefused", "unsigned", False)
    assert numbers(installation.folder) == []


def test_values_that_brokers_write_in_their_own_way(installation: Installation, app: ConventionsApp) -> None:
    """In headers of the caller: at once, after a delay, which Redis keeps, and at the next attempt."""
    values = {"at": datetime.now(UTC), "price": Decimal("1.50"), "raw": b"abc", "nested": {"b": [1, None], "a": 2.5}}
    for number, value in enumerate(values.values()):
        Note.apply_async((number,), headers={"other": value})
        Note.apply_async((10 + number,), headers={"other": value}, countdown=0.5)
        Fails.apply_async((20 + number, 1), headers={"other": value})
    wanted = [tens + number for tens in (0, 10, 20) for number in range(len(values))]
    with installation.worker("--concurrency=2"):
        wait_until(lambda: numbers(installation.folder) == sorted(wanted), 60, "all have run")
    assert letters(app) == []


ODD: dict[str, dict[str, Any]] = {
    "an id of half a character": {"id": "\ud800", "task": Note.name},
    "a task of half a character": {"id": "m", "task": "\ud800"},
    "no task": {"id": "m"},
    "an unknown key, and a moment before all": {
        "id": "m", "task": Note.name, SIGNATURE: "other.x", "x_unknown": 1, "x_unknown_since": "0001-01-01T00:00:00+14:00"
    },
    "limits that no number holds": {"id": "m", "task": Note.name, SIGNATURE: "tests.x", "timelimit": [2**63 - 1, "x"]},
}  # fmt: skip


def test_odd_ones(rabbit: Rabbit, host: str, installation: Installation, app: ConventionsApp) -> None:
    """None of them ends the worker."""
    Note.delay(1)
    with installation.worker("--concurrency=1") as worker:
        wait_until(lambda: numbers(installation.folder) == [1], 30, "it works")
        with rabbit.connection(host) as connection:
            channel = connection.channel()
            for headers in ODD.values():
                odd = amqp.Message(
                    b'[[], {"number": 9}, {}]',
                    application_headers=headers,
                    content_type="application/json",
                    content_encoding="utf-8",
                )
                channel.basic_publish_confirm(odd, "", "immediate")
        Note.delay(2)
        wait_until(lambda: numbers(installation.folder) == [1, 2], 30, "it works on")
        assert worker.process.poll() is None
    assert all(one.id.startswith("unsigned-") for one in letters(app))


@pytest.mark.parametrize("how", ["no signature", "body"])
def test_what_waits_in_redis(installation: Installation, app: ConventionsApp, how: str) -> None:
    """A message that is not due lies there: whoever forwards it does not sign it."""
    sent = Note.apply_async((7,), countdown=1)
    redis: Any = app.broker.store.redis
    key = app.broker.store.key("message", sent.id)
    before, raw = redis.get(key).rsplit(b"\x1f", 1)
    message = json.loads(raw)
    if how == "body":
        args, kwargs, embed = json.loads(b64decode(message["body"]))
        message["body"] = b64encode(json.dumps([args, kwargs | {"number": 8}, embed]).encode()).decode()
    else:
        del message["headers"][SIGNATURE]
    redis.set(key, before + b"\x1f" + json.dumps(message).encode(), keepttl=True)
    with installation.worker():
        (letter,) = wait_until(lambda: letters(app), 40)
    assert (letter.error, letter.actor) == ("SignatureRefused", "unsigned")
    assert numbers(installation.folder) == []
