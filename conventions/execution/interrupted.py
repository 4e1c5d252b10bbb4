"""Starts of a job without an outcome, because its process or its worker ended: the next start writes them to the journal."""

import logging
from dataclasses import replace

from conventions.broker.delivery_names import DeliveryNames
from conventions.execution.attempt import Attempt
from conventions.execution.attempt_event import event_of
from conventions.execution.declared_task import DeclaredTask
from conventions.idempotency.claim_answers import Answer, Cancelled, Done, Granted, Poison
from conventions.idempotency.interrupted_start import InterruptedStart
from conventions.records.journal import Event

logger = logging.getLogger(__name__)

KIND = "interrupted"


def record_interrupted(task: DeclaredTask, job: Attempt, answer: Answer) -> None:
    """Write to the journal what the answer to a claim tells of earlier starts of this message, each once.

    Raises:
        RedisError: it does not answer. The claim keeps them.
    """
    if not isinstance(answer, (Granted, Poison, Done, Cancelled)) or not answer.interrupted:
        return
    own = [(one, _event_of(task, job, one)) for one in answer.interrupted if one.message_id == job.id]
    if own:  # of another message with this key: that one writes it
        task.app.claims.record_interrupted(job.claim.claim, own)


def _event_of(task: DeclaredTask, job: Attempt, start: InterruptedStart) -> Event:
    who = DeliveryNames(task.app.claims.store).worker_of(start.token)
    worker, release = (None, None) if who is None else who
    logger.warning(
        "interrupted: id=%s task=%s attempt=%s worker=%s: %s", job.id, job.task, start.attempt, worker, start.why
    )
    return replace(
        event_of(task, job, KIND),
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
