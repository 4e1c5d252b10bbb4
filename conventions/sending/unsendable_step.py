"""The dead letter of a step that cannot be sent."""

import json
from collections.abc import Callable, Mapping
from typing import Any
from uuid import uuid4

from conventions.core import error_text
from conventions.core.errors import ConfigurationError, NewerLayout, PayloadError
from conventions.execution.current_job import inherited_actor, sends_follow_ups
from conventions.execution.declared_task import DeclaredTask
from conventions.execution.failure_log import log_unsendable
from conventions.records.journal import Event
from conventions.sending.named_task import NamedTask

# Errors of a message, which no other moment mends.
FAULTS = (
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
    PayloadError,
    ConfigurationError,
)


def sent_or_refused[T](
    send: Callable[[], T],
    task: DeclaredTask | NamedTask,
    message_id: str,
    arguments: tuple[Any, Any],
    instead: Callable[[], T],
) -> T:
    """Send; a step after a finished job that no broker takes as it is becomes a dead letter.

    Args:
        send: sends.
        task: of the message.
        message_id: its id.
        arguments: of `run`, positional ones and those by name; looked at only for a letter.
        instead: makes what is returned for a letter.

    Raises:
        Exception: whatever `send` raises, where no step is sent, or where another moment may mend it.
    """
    try:
        return send()
    except FAULTS as error:
        if isinstance(error, NewerLayout) or not sends_follow_ups():
            raise
        refuse_step(task, message_id, as_letter_shows(*arguments), error)
        return instead()


def as_letter_shows(args: Any, kwargs: Any) -> dict[str, Any]:
    """The arguments of a step, whatever they are, as its letter has them."""
    arguments = dict(kwargs) if isinstance(kwargs, Mapping) else {"kwargs": kwargs} if kwargs else {}
    return arguments | ({"args": list(args)} if args else {})


def refuse_step(
    task: DeclaredTask | NamedTask, message_id: str, arguments: Mapping[str, Any], error: BaseException
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
