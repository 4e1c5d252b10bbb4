"""Starts of a job without an outcome, because its process or its worker ended: the next start writes them to the journal."""

import logging
from collections.abc import Sequence
from dataclasses import replace

from redis.exceptions import RedisError

from conventions.broker.delivery_names import DeliveryNames
from conventions.core.error_text import clean
from conventions.execution.application import Application
from conventions.execution.attempt import Attempt
from conventions.execution.attempt_event import event_of
from conventions.execution.claim_names import claim_name
from conventions.execution.declared_task import DeclaredTask
from conventions.idempotency.claim_answers import Answer, Cancelled, Done, Granted, Poison
from conventions.idempotency.interrupted_start import InterruptedStart
from conventions.records.journal import INTERRUPTED, Event

logger = logging.getLogger(__name__)


def record_interrupted(task: DeclaredTask, job: Attempt, answer: Answer) -> None:
    """Write to the journal what the answer to a claim tells of earlier starts of this message, each once.

    Where Redis does not answer the job goes on all the same: its claim keeps them, and the page of the job shows them.
    """
    if not isinstance(answer, (Granted, Poison, Done, Cancelled)) or not answer.interrupted:
        return
    try:
        _record(task.app, job.claim.claim, answer.interrupted, event_of(task, job, INTERRUPTED))
    except RedisError as error:
        logger.warning("not in the journal yet: earlier starts of id=%s task=%s: %s", job.id, job.task, error)


def record_kept(app: Application, ends: Sequence[Event]) -> None:
    """The same of messages that end without another start, before their ends are recorded. Raises: RedisError."""
    named = [(claim_name(app, clean(one.task), clean(one.key)), one) for one in ends if one.task and one.key]
    if not named:
        return
    kept = app.claims.kept_interrupted([(claim, clean(end.message_id), end.token) for claim, end in named])
    for (claim, end), starts in zip(named, kept, strict=True):
        _record(app, claim, starts, replace(end, kind=INTERRUPTED, arguments=None, headers=None, message=None))


def _record(app: Application, claim: str, starts: Sequence[InterruptedStart], event: Event) -> None:
    """`event`: of the message; what differs is of each start."""
    own = [(one, _event_of(app, one, event)) for one in starts if one.message_id == event.message_id]
    if own:  # of another message with this key: that one writes it
        app.claims.record_interrupted(claim, own)


def _event_of(app: Application, start: InterruptedStart, event: Event) -> Event:
    worker, release = DeliveryNames(app.claims.store).worker_of(start.token)
    logger.warning(
        "interrupted: id=%s task=%s attempt=%s worker=%s: %s",
        event.message_id,
        event.task,
        start.attempt,
        worker,
        start.why,
    )
    return replace(
        event,
        generation=start.generation,
        attempt=start.attempt,
        token=start.token,
        worker=worker,
        release=release,
        started_at=start.began_at,
        wait=None,
        runtime=None,
        failure=start.failure,
    )
