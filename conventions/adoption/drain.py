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
from conventions.adoption.unfinished_drains import note_begin, note_end
from conventions.broker.caller_headers import of_another_program
from conventions.broker.header_names import ACTOR, ENQUEUED_AT
from conventions.broker.message_form import fault_of
from conventions.core.actor import SYSTEM
from conventions.core.errors import PayloadError
from conventions.core.settings import is_redis
from conventions.execution.application import Application
from conventions.execution.purge_queues import known_queues
from conventions.execution.steps_within import every_task
from conventions.sending.publish import publish_written
from conventions.tasks.plain_task import is_celerys

FOLLOWING = ("callbacks", "errbacks", "chain")  # in the body of a message
RABBITMQ = ("amqp://", "amqps://", "pyamqp://")

UNKNOWN = "this application has no task of this name"
NO_TASK = "it names no task, or has no id"
NO_JSON = "it is no JSON"
IN_CHORD = "it is a part of a chord, which its own application counts"
MALFORMED = "no worker would take it"
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


def old_queue(app: Application, address: str, name: str, prefix: str = "") -> OldQueue:
    """A queue of plain Celery, by the address of its broker. Raises: ValueError, which never repeats the address."""
    if is_redis(address):
        return RedisQueue(address, name, prefix)
    if not address.startswith(RABBITMQ):
        raise ValueError(f"a queue is read from Redis, or from RabbitMQ ({', '.join(RABBITMQ)})")
    if address == app.broker_address and name in known_queues(app):
        raise ValueError(f"{name} is a queue of this application there; what waits in it runs in our workers")
    return RabbitMQQueue(address, name)


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
    try:
        return _fault_of_body(app, message)
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError):
        return MALFORMED


def _fault_of_body(app: Application, message: OldMessage) -> str:
    if message.content_type != "application/json":
        return NO_JSON
    args, kwargs, embed = json.loads(message.body)
    if fault_of(of_another_program(message.headers), message.properties, args, kwargs, embed):
        return MALFORMED
    if embed and embed.get("chord"):
        return IN_CHORD
    following = [step for name in FOLLOWING for step in (embed or {}).get(name) or ()]
    known = all(destination(app, one["task"]) for step in following for one in every_task(step))
    return "" if known else BEFORE_UNKNOWN


def drain(app: Application, source: OldQueue, told: Callable[[int, int], None]) -> Drained:
    """Move the messages that wait now.

    Each is in our queue before it leaves its own, under its id. So a drain that is killed may send one twice, which runs once.

    Args:
        app: this application, with its tasks loaded.
        source: the queue. It is closed at the end.
        told: called after each message, with how many are moved and left so far.

    Raises:
        BrokerUnavailable: our broker takes no messages; those that are not moved are where they were.
        ConfigurationError: our Redis does not answer, or another drain runs; nothing is moved.
    """
    moved, left = 0, Counter[str]()
    try:
        source.begin()
    except BaseException:
        source.close()
        raise
    try:
        if source.leaves_aside:
            note_begin(app.store, source.place)
        for message in source.take():
            reason = reason_to_stay(app, message)
            if not reason and not _is_sent(app, message):
                reason = MALFORMED
            if reason:
                source.leave(message)
                left[reason] += 1
            else:
                source.moved(message)
                moved += 1
            told(moved, left.total())
    finally:
        if source.close():  # else the note says that something is left
            note_end(app.store, source.place)
    return Drained(moved, left)


def kinds(app: Application, source: OldQueue) -> Counter[tuple[str, str]] | None:
    """How many messages wait, by their task and what would become of each; `None`: this broker cannot look into a queue."""
    messages = source.look()
    if messages is None:
        return None
    return Counter((one.task, reason_to_stay(app, one) or f"to {destination(app, one.task)}") for one in messages)


def _is_sent(app: Application, message: OldMessage) -> bool:
    """Send it. False: it is none that can be sent. Raises: BrokerUnavailable."""
    headers = {**of_another_program(message.headers), ACTOR: SYSTEM, ENQUEUED_AT: datetime.now(UTC).isoformat()}
    try:
        publish_written(
            app,
            message.id,
            str(destination(app, message.task)),
            message.body,
            content=(message.content_type, message.content_encoding),
            headers=headers,
            properties=message.properties,
            priority=message.priority,
        )
    except (PayloadError, RecursionError, TypeError, ValueError):
        return False
    return True
