"""A queue of plain Celery in Redis, as kombu writes it: order, priorities, prefix, and what is none of Celery's messages."""

import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery

from conventions.adoption.drain import (
    IN_CHORD,
    MALFORMED,
    NO_JSON,
    NO_TASK,
    UNKNOWN,
    Drained,
    drain,
    old_queue,
    reason_to_stay,
)
from conventions.adoption.redis_queue import AT_ONCE, RedisQueue
from conventions.app import ConventionsApp
from conventions.core.errors import ConfigurationError
from conventions.core.priority import Priority
from tests import raw_messages as raw
from tests.support import wait_until
from tests.workers import close, messages


@pytest.fixture
def queue() -> str:
    """A name that no other test has."""
    return f"old-{uuid4().hex[:8]}"


@pytest.fixture
def plain(app: ConventionsApp) -> Iterator[Celery]:
    """A plain application on the server of ours."""
    with Celery("plain", broker=app.conf.broker_url, set_as_current=False) as plain:
        yield plain
        close(plain)


def source(app: ConventionsApp, queue: str, prefix: str = "") -> RedisQueue:
    """The queue."""
    return RedisQueue(app.broker_address, queue, prefix)


def waiting(app: ConventionsApp, queue: str) -> list[Any]:
    """What lies in the lists of the queue, and beside them."""
    redis: Any = app.store.redis
    return [(key, redis.lrange(key, 0, -1)) for key in sorted(redis.scan_iter(match=f"{queue}*"))]


def add(number: int) -> int:
    """Add one."""
    return number + 1


def test_the_most_urgent_list_comes_first(app: ConventionsApp, plain: Celery, queue: str) -> None:
    """Kombu's 0 is the most urgent one, and that of a send without a priority."""
    for number, priority in enumerate((9, None, 3, 6, 0)):
        plain.send_task("t", (number,), queue=queue, task_id=str(number), priority=priority)
    one = source(app, queue)
    assert (one.count(), sorted(message.id for message in one.look())) == (5, ["0", "1", "2", "3", "4"])
    one.begin()
    taken = [(message.id, message.priority) for message in one.take()]
    low, normal = Priority.LOW, Priority.NORMAL
    assert taken == [("1", normal), ("4", normal), ("2", low), ("3", low), ("0", low)]
    one.close()
    assert source(app, queue).count() == 5


def test_those_that_stay_keep_their_order(app: ConventionsApp, plain: Celery, queue: str) -> None:
    """Also where there are more than are taken in one turn."""
    for number in range(AT_ONCE + 7):
        plain.send_task("unknown", (number,), queue=queue, task_id=str(number))
    before = waiting(app, queue)
    assert drain(app, source(app, queue), lambda *_: None).left == {UNKNOWN: AT_ONCE + 7}
    assert waiting(app, queue) == before


def test_what_is_taken_and_not_settled_comes_back(app: ConventionsApp, plain: Celery, queue: str) -> None:
    """In its order, as after an error in the middle."""
    for number in range(5):
        plain.send_task("t", (number,), queue=queue, task_id=str(number))
    before = waiting(app, queue)
    one = source(app, queue)
    one.begin()
    taking = one.take()
    assert [next(taking).id for _ in range(3)] == ["0", "1", "2"]
    one.close()
    assert waiting(app, queue) == before


def test_a_prefix_of_its_keys(app: ConventionsApp, plain: Celery, queue: str) -> None:
    """Celery's `global_keyprefix`."""
    plain.conf.broker_transport_options = {"global_keyprefix": "shop:"}
    plain.send_task("t", (1,), queue=queue)
    assert source(app, queue).count() == 0
    assert source(app, queue, "shop:").count() == 1
    app.store.redis.delete(f"shop:{queue}", "shop:_kombu.binding." + queue)


@pytest.mark.parametrize(
    "value",
    [b"\xff", b"[]", b"{}", b'{"body": 3}', b'{"headers": 1, "body": "%", "properties": {"body_encoding": "base64"}}'],
)
def test_what_is_no_message_stays(app: ConventionsApp, queue: str, value: bytes) -> None:
    """As it is."""
    app.store.redis.rpush(queue, value)
    assert drain(app, source(app, queue), lambda *_: None).left == {NO_TASK: 1}
    assert app.store.redis.lrange(queue, 0, -1) == [value]
    app.store.redis.delete(queue)


def test_why_a_message_stays(app: ConventionsApp, plain: Celery, queue: str) -> None:
    """What our workers could not run, or would run without what belongs to it."""
    function = app.task(add, name=f"f-{uuid4().hex[:8]}")
    plain.conf.accept_content = ["json", "pickle"]
    sends: dict[str, dict[str, Any]] = {
        "": {},
        NO_JSON: {"serializer": "pickle"},
        IN_CHORD: {"chord": {"task": "t", "args": [], "kwargs": {}, "options": {}}},
    }
    for reason, options in sends.items():
        plain.send_task(function.name, (1,), queue=queue, **options)
        one = source(app, queue)
        one.begin()
        (message,) = one.take()
        assert reason_to_stay(app, message) == reason
        one.moved(message)
        one.close()
    plain.send_task("celery.chord_unlock", (1,), queue=queue)
    assert drain(app, source(app, queue), lambda *_: None).left == {UNKNOWN: 1}
    app.store.redis.delete(queue)


@pytest.mark.parametrize(
    "changes",
    [
        {"chain": 5},
        {"chain": [{"task": "t", "subtask_type": []}]},
        {"callbacks": [{"task": "t", "subtask_type": "group", "kwargs": {"tasks": 3}, "args": [], "options": {}}]},
        {"eta": "junk"},
        {"eta": 3},
        {"id": "\ud800"},
        {"retries": "no"},
    ],
)
def test_a_malformed_message_stays_and_stops_nothing(app: ConventionsApp, queue: str, changes: dict[str, Any]) -> None:
    """The next one is moved."""
    function = app.task(add, name=f"f-{uuid4().hex[:8]}")
    embed = {name: value for name, value in changes.items() if name in ("chain", "callbacks")}
    headers = {name: value for name, value in changes.items() if name not in embed}
    for message_id, more, following in (("1", headers, embed), ("2", {}, {})):
        own = {"task": function.name, "id": message_id, "lang": "py"} | more
        body = raw.body((1,), {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None} | following)
        app.store.redis.lpush(queue, json.dumps(raw.envelope(body, own)))
    assert drain(app, source(app, queue), lambda *_: None) == Drained(1, {MALFORMED: 1})
    assert source(app, queue).count() == 1
    app.store.redis.delete(queue)


def test_headers_of_ours_are_not_taken_over(app: ConventionsApp, queue: str) -> None:
    """Nobody of ours has written them."""
    function = app.task(add, name=f"f-{uuid4().hex[:8]}")
    own = {
        "task": function.name,
        "id": uuid4().hex,
        "lang": "py",
        "x_form": 7,
        "x_key": 3,
        "conventions_later": 1,
        "trace": "7",
    }
    app.store.redis.lpush(queue, json.dumps(raw.envelope(raw.body((1,)), own)))
    assert drain(app, source(app, queue), lambda *_: None).moved == 1
    (sent,) = [one for one in messages(app) if one.id == own["id"]]
    assert (sent.headers["trace"], sent.headers["x_actor"]) == ("7", "system")
    assert not {"x_form", "x_key", "conventions_later"}.intersection(sent.headers)


def test_what_another_drain_has_settled_is_not_put_back(app: ConventionsApp, plain: Celery, queue: str) -> None:
    """As where the lock has lapsed, or an answer was lost and the call is made again."""
    plain.send_task("unknown", (1,), queue=queue)
    one = source(app, queue)
    one.begin()
    (message,) = one.take()
    one.leave(message)
    one.leave(message)
    one.close()
    assert source(app, queue).count() == 1
    app.store.redis.delete(queue)


def test_a_drain_that_stood_still_ends(
    app: ConventionsApp, plain: Celery, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one may have its lock."""
    monkeypatch.setattr("conventions.adoption.redis_queue.LOCKED_FOR", 0.06)
    for number in range(3):
        plain.send_task("unknown", (number,), queue=queue)
    one = source(app, queue)
    one.begin()
    taking = one.take()
    next(taking)
    wait_until(lambda: not app.store.redis.exists(f"{queue}:conventions-drain:lock"), 5, "the lock has lapsed")
    with pytest.raises(ConfigurationError, match="stood still until its lock had lapsed"):
        next(taking)
    assert not one.close()  # it cannot give back what it has taken
    assert source(app, queue).count() == 3
    app.store.redis.delete(queue, f"{queue}:conventions-drain")


def test_what_a_killed_drain_has_left_keeps_its_order(app: ConventionsApp, plain: Celery, queue: str) -> None:
    """And is looked at once."""
    for number in range(6):
        plain.send_task("unknown", (number,), queue=queue, task_id=str(number))
    before = waiting(app, queue)
    for _ in range(2):
        app.store.redis.rpoplpush(queue, f"{queue}:conventions-drain")
    assert drain(app, source(app, queue), lambda *_: None).left == {UNKNOWN: 6}
    ids = [json.loads(value)["headers"]["id"] for value in reversed(app.store.redis.lrange(queue, 0, -1))]
    assert ids == [str(number) for number in range(6)]
    assert waiting(app, queue) == before


@pytest.mark.parametrize(
    ("address", "fault"),
    [
        ("sqs://", "is read from Redis, or from RabbitMQ"),
        ("memory://", "is read from Redis, or from RabbitMQ"),
        ("amqp://u:SECRET?PW@localhost:7399//", "it cannot be read: write"),
        ("redis://u:SECRET/PW@localhost", None),
    ],
)
def test_an_address_that_cannot_be_read(app: ConventionsApp, address: str, fault: str | None) -> None:
    """No part of a password is shown."""
    with pytest.raises(ValueError, match=fault) as found:
        old_queue(app, address, "celery")
    assert "SECRET" not in str(found.value)
