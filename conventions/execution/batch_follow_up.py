"""The follow-up of a batch: its `finish` when all chunks have ended, or its `recovered`.

The process that settles the last chunk sends it. If that process dies first, or the broker is away, a worker's sweep sends it a
minute later. Both send the same message, under one id.
"""

import logging
from typing import Any

from conventions.broker.batch_membership import Join, Member, Outcome, finish_id, recovered_id
from conventions.core.actor import acting_as
from conventions.core.priority import Priority
from conventions.execution.application import Application
from conventions.sealing.sealed_text import note_opened, noting_opened

logger = logging.getLogger(__name__)


def join_of(app: Application, member: Member | None, outcome: Outcome | None) -> Join | None:
    """How a message's batch counts its end; `None` when it is of no batch, or has not ended."""
    return Join(member, outcome, app.batches.keep) if member and outcome else None


def follow_up(app: Application, member: Member) -> None:
    """Send the next message of a batch, after one of its messages has ended. Never raises."""
    try:
        send_next_message(app, member.batch_id)
    except Exception as error:  # noqa: BLE001  # the job has ended, and must not look failed
        logger.warning("what follows the batch %s is sent later: %s: %s", member.batch_id, type(error).__name__, error)


def send_next_message(app: Application, batch_id: str) -> None:
    """Send the next message that the batch needs, if any: `finish` or `recovered`. Raises: RedisError, BrokerUnavailable."""
    needed = app.batches.take_next_message(batch_id)
    origin = app.batches.origin(batch_id) if needed is not None else None
    if needed is None or origin is None:
        return
    task = app.tasks.get(f"{origin.task}.{needed.kind}")
    if task is None:
        logger.error("%s is not registered here: the worker that knows it sends it", f"{origin.task}.{needed.kind}")
        return
    kwargs: dict[str, Any] = {"batch_id": batch_id, "arguments": origin.arguments}
    if needed.kind == "recovered":
        kwargs["repairs"] = needed.number
    task_id = finish_id(batch_id) if needed.kind == "finish" else recovered_id(batch_id, needed.number)
    options = dict(origin.options)
    if "priority" in options:
        options["priority"] = Priority(options["priority"])
    with acting_as(origin.actor), noting_opened():
        if origin.sealed:
            note_opened()
        task.apply_async(kwargs=kwargs, task_id=task_id, **options)
