"""Move the messages of a queue of plain Celery into queues of ours: those of tasks that this application knows."""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from conventions.adoption.old_queue import OldMessage, OldQueue
from conventions.adoption.rabbitmq_queue import RabbitMQQueue
from conventions.adoption.redis_queue import RedisQueue
from conventions.broker.header_names import ACTOR, ENQUEUED_AT
from conventions.core.actor import SYSTEM
from conventions.core.settings import is_redis
from conventions.execution.application import Application
from conventions.execution.steps_within import every_task
from conventions.sending.publish import publish
from conventions.tasks.plain_task import is_celerys

FOLLOWING = ("callbacks", "errbacks", "chain")  # in the body of a message
KEPT = ("correlation_id", "reply_to")


UNKNOWN = "this application has no task of this name"
NO_TASK = "it names no task, or has no id"
NO_JSON = "it is no JSON"
IN_CHORD = "it is a part of a chord, which its own application counts"
BEFORE_UNKNOWN = "a step after it is of a task that this application does not know"


@dataclass(frozen=True, slots=True)
class Drained:
    """What became of the messages.

    Attributes:
        moved: how many are in queues of ours.
        left: how many are where they were, by the reason.
    """

    moved: int
    left: Mapping[str, int]


def old_queue(address: str, name: str, prefix: str = "") -> OldQueue:
    """A queue of plain Celery, by the address of its broker. Raises: ValueError."""
    return RedisQueue(address, name, prefix) if is_redis(address) else RabbitMQQueue(address, name)


def destination(app: Application, task: str) -> str | None:
    """The queue of ours for the messages of a task; `None`: they stay, since no worker of this application runs it."""
    known: Any = app.tasks.get(task)
    if known is None or is_celerys(known):
        return None
    return getattr(known, "queue_name", None) or str(app.conf.task_default_queue)


def reason_to_stay(app: Application, message: OldMessage) -> str:
    """Why a message must stay; empty where it may be moved."""
    if not message.task or not message.id:
        return NO_TASK
    if destination(app, message.task) is None:
        return UNKNOWN
    embed = _embed(message)
    if embed is None:
        return NO_JSON
    if embed.get("chord"):
        return IN_CHORD
    following = [step for name in FOLLOWING for step in embed.get(name) or () if isinstance(step, dict)]
    known = all(destination(app, str(one.get("task"))) for step in following for one in every_task(step))
    return "" if known else BEFORE_UNKNOWN


def _embed(message: OldMessage) -> dict[str, Any] | None:
    """What follows it; `None`: its body is not that of a message that we can read."""
    if message.content_type != "application/json":
        return None
    try:
        _, _, embed = json.loads(message.body)
    except (TypeError, ValueError):
        return None
    return embed if isinstance(embed, dict) else {}


def drain(app: Application, source: OldQueue, told: Callable[[int, int], None]) -> Drained:
    """Move the messages that wait now.

    Each is in our queue before it leaves its own, under its id. So a drain that is killed may send one twice, which runs once.

    Args:
        app: this application, with its tasks loaded.
        source: the queue. It is closed at the end.
        told: called after each message, with how many are moved and left so far.

    Raises:
        BrokerUnavailable: our broker takes no messages; those that are not moved are where they were.
    """
    moved, left = 0, Counter[str]()
    try:
        for message in source.take():
            if reason := reason_to_stay(app, message):
                source.leave(message)
                left[reason] += 1
            else:
                _send(app, message, str(destination(app, message.task)))
                source.moved(message)
                moved += 1
            told(moved, left.total())
    finally:
        source.close()
    return Drained(moved, left)


def _send(app: Application, message: OldMessage, queue: str) -> None:
    headers = {ACTOR: SYSTEM, ENQUEUED_AT: datetime.now(UTC).isoformat(), **message.headers}
    kept = {name: message.properties[name] for name in KEPT if message.properties.get(name)}
    with app.producer_or_acquire() as producer:
        publish(
            lambda producer=producer, **how: producer.publish(
                message.body,
                exchange="",
                routing_key=queue,
                content_type=message.content_type,
                content_encoding=message.content_encoding,
                headers=headers,
                priority=int(message.priority),
                retry=False,
                **kept,
                **how,
            ),
            app,
            message.id,
            producer=producer,
        )
