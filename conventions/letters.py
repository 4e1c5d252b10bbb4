"""Dead letters as workers make them: of a job that ended, and of a step that cannot be sent."""

import json
import logging
from collections.abc import Mapping
from typing import Any

from conventions.errors import PayloadError
from conventions.job import HEADER_PREFIX, Job, inherited_actor

logger = logging.getLogger(__name__)


def store_letter(task: Any, job: Job, error: Exception) -> Exception | None:
    """Commit the dead letter. Returns what SQL refused it with."""
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415  # it takes 0.6 s to import, and most jobs succeed

    from conventions import dead_letters  # noqa: PLC0415  # the same

    request = task.request
    failure = dead_letters.Failure(
        id=job.id,
        task=job.task,
        queue=(request.delivery_info or {}).get("routing_key"),
        error=error,
        attempts=job.attempt,
        actor=job.actor,
        arguments=dict(job.payload),
        headers=own_headers(request),
    )
    try:
        with task.app.database.session() as session:
            dead_letters.record(session, failure)
    except SQLAlchemyError as refused:
        return refused
    return None


def own_headers(request: Any) -> dict[str, Any]:
    """The headers that this platform put into the message."""
    return {name: value for name, value in (request.headers or {}).items() if name.startswith(HEADER_PREFIX)}


def refuse_step(task: Any, message_id: str, arguments: Mapping[str, Any], error: Exception) -> None:
    """Record a dead letter for the next step of a chain, or a callback, that cannot be sent as it is.

    The step before has ended, so nobody is left to whom the error could be raised. Raises: SQLAlchemyError.
    """
    from conventions import dead_letters  # noqa: PLC0415  # SQLAlchemy takes 0.6 s to import

    logger.warning(
        "failed: id=%s task=%s error=%s: %s: dead letter", message_id, task.name, type(error).__name__, error
    )
    readable: dict[str, Any] = json.loads(json.dumps(dict(arguments), default=repr))
    failure = dead_letters.Failure(
        id=message_id,
        task=task.name,
        queue=task.queue_name,
        error=error if isinstance(error, PayloadError) else PayloadError(str(error)),
        attempts=0,
        actor=inherited_actor(),
        arguments=readable,
        headers={},
    )
    with task.app.database.session() as session:
        dead_letters.record(session, failure)
