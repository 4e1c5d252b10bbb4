"""The results that Celery keeps of sealed jobs, and passes to chords: sealed, and open again for whoever has the key (R21)."""

from typing import Any

from celery import states

from conventions.broker.codec import json_of_kombu, parsed
from conventions.core.errors import CannotOpen, JobFailed
from conventions.core.sealed_mark import is_sealed_text
from conventions.execution.application import Application
from conventions.execution.sealed_outcomes import failed
from conventions.sealing.sealed_body import SEALED_BODY
from conventions.sealing.sealed_text import RESULT, open_text, seal_text


def is_sealed_request(request: Any) -> bool:
    """Whether the message of a request was sealed."""
    return getattr(request, SEALED_BODY, None) is not None


def sealed_part(app: Application, request: Any, task_id: str, state: str, result: Any) -> Any:
    """What is kept of the result of a job; `task_id`: under which it is kept."""
    if not is_sealed_request(request):
        return result
    if isinstance(result, BaseException):
        return result if isinstance(result, JobFailed) else failed(str(request.task), result)
    if is_sealed_text(result):  # the job of a class of ours has sealed it
        return result
    keys = app.payload_keys
    return (
        seal_text(keys, json_of_kombu(result), RESULT, task_id)
        if keys is not None and state == states.SUCCESS
        else None
    )


def opened_part(app: Application, task_id: str, result: Any) -> Any:
    """The result, open where it was sealed and its key is here; else as it is kept."""
    if not is_sealed_text(result):
        return result
    try:
        return parsed(open_text(app.payload_keys, result, RESULT, task_id))
    except CannotOpen:
        return result
