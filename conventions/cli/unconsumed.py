"""Queues that nobody consumes: what waits there never runs."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from redis.exceptions import RedisError

from conventions.broker.consumers import ask_workers
from conventions.execution.purging import is_reply_queue
from conventions.transport.celery_defaults import queue_names


@dataclass(frozen=True, slots=True)
class Unconsumed:
    """What `celery check` says of queues.

    Attributes:
        waiting: those with messages, ready or delayed, and how many.
        empty: those to which a task of the application sends.
        silent: workers that live, and have not answered which queues they consume.
    """

    waiting: dict[str, int]
    empty: list[str]
    silent: int


def unconsumed(app: Any) -> Unconsumed:
    """Ask the workers. Raises: RedisError, or what an unreachable broker raises."""
    own = {name for name in queue_names(app) if not is_reply_queue(name)}
    known = own | {name for name in app.broker.queues() if not is_reply_queue(name)} if app.broker_is_redis else own
    lengths = _lengths(app, known)
    consumers = ask_workers(app)
    left = known - consumers.queues
    return Unconsumed(
        {name: lengths[name] for name in sorted(left) if lengths.get(name)},
        sorted(name for name in left & own if not lengths.get(name)),
        consumers.silent,
    )


def _lengths(app: Any, queues: Iterable[str]) -> dict[str, int]:
    if app.broker_is_redis:
        return {name: sizes.ready + sizes.delayed for name in queues if (sizes := app.broker.sizes(name))}
    found: dict[str, int] = {}
    with app.connection_for_read() as connection:
        for name in queues:
            try:
                found[name] = connection.channel().queue_declare(name, passive=True).message_count
            except (
                *connection.channel_errors,
                RedisError,
            ):  # there is no such queue yet; the channel is closed by that
                found[name] = 0
    return found
