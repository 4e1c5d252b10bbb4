"""The dead letter of a step that cannot be sent."""

import json
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from conventions.core import error_text
from conventions.core.errors import PayloadError
from conventions.execution.current_job import inherited_actor
from conventions.execution.declared_task import DeclaredTask
from conventions.execution.failure_log import log_unsendable
from conventions.records.journal import Event
from conventions.sending.named_task import NamedTask


def refuse_step(
    task: DeclaredTask | NamedTask, message_id: str, arguments: Mapping[str, Any], error: Exception
) -> None:
    """Record a dead letter for the next step of a chain, or a callback, that cannot be sent as it is.

    The job before it has ended, so the error cannot be raised to anybody. Raises: RedisError.
    """
    log_unsendable(message_id, task.name, error)
    readable: dict[str, Any] = json.loads(json.dumps(dict(arguments), default=repr))
    refused = error if isinstance(error, PayloadError) else PayloadError(str(error))
    event = Event(
        message_id=message_id,
        kind="dead",
        task=task.name,
        queue=task.queue_name,
        actor=inherited_actor(),
        token=uuid4().hex,
        failure=error_text.describe(task.name, refused),
        arguments=readable,
        headers={},
    )
    task.app.journal.append([event])
