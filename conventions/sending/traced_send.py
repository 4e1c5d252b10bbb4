"""Spans around sends: which one a call gets, and which headers its messages get of it."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

from conventions.broker.caller_headers import AcceptedHeaders
from conventions.broker.header_names import TRACEPARENT
from conventions.core.error_text import NAME_LENGTH
from conventions.execution.application import Application
from conventions.execution.current_job import current_job
from conventions.sending.named_task import Named
from conventions.tracing.spans import NoSpan, Sending, SendSpan

NOT_TRACED: SendSpan = NoSpan()
_NOTHING = nullcontext(NOT_TRACED)


def traced(
    app: Application,
    task: Named,
    message_id: Any,
    options: Mapping[str, Any],
    *,
    step: Literal["send", "create"] = "send",
) -> AbstractContextManager[SendSpan]:
    """A span around a send, if this process makes spans.

    A message that was checked before, such as a retry, keeps the trace of its first send.

    Args:
        app: the application.
        task: whose messages are sent.
        message_id: of its message; `None`: it sends several.
        options: of the send.
        step: see `Sending`.
    """
    tracing = app.tracing
    if tracing is None or isinstance(options.get("headers"), AcceptedHeaders):
        return _NOTHING
    queue = options.get("queue") or getattr(task, "queue_name", None)
    name = None if queue is None else str(getattr(queue, "name", queue))
    call = Sending(task.name, name, None if message_id is None else str(message_id)[:NAME_LENGTH], step)
    job = current_job()
    return tracing.sending(call, job.span if job is not None and job.ended else None)


def with_trace(headers: dict[str, Any], span: SendSpan) -> dict[str, Any]:
    """The headers of a message with those of its span; without, where the caller says in which trace it is."""
    return {**span.headers, **headers} if span.headers and TRACEPARENT not in headers else headers
