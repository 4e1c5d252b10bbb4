"""One send, step by step: check options, arguments and headers, make the message, publish it."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from conventions.broker.caller_headers import AcceptedHeaders
from conventions.broker.header_names import ACTOR
from conventions.core.errors import PayloadError
from conventions.declare.arguments_as_json import check_size
from conventions.execution.current_job import sends_follow_ups
from conventions.execution.declared_task import DeclaredTask
from conventions.execution.unsent_step import UnsentStep
from conventions.security.payload_guard import refuse_credentials
from conventions.sending.actor_required import refuse_nobody
from conventions.sending.application import SendingApplication
from conventions.sending.by_celery import by_celery
from conventions.sending.callbacks import freeze_callbacks, list_callbacks, name_sender_of_chord
from conventions.sending.message_headers import headers_for
from conventions.sending.option_checks import check_options
from conventions.sending.publish import publish
from conventions.sending.refused_sends import telling_refusals
from conventions.sending.sealed_sends import seal_header
from conventions.sending.sendable_task import SendableTask
from conventions.sending.sent_or_refused import sent_or_refused
from conventions.sending.shown_arguments import shown_arguments
from conventions.sending.traced_send import traced, with_trace


def send(
    task: SendableTask,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    task_id: str,
    options: dict[str, Any],
    **how: Any,
) -> Any:
    """Send one message of a task. Arguments, result and errors are those of `apply_async`; `how` is as in `checked_send`."""
    app = task._application()  # noqa: SLF001  # the same layer
    with telling_refusals(app, task.name, how), traced(app, task, task_id, options) as span:
        accepted = checked_send(task, args, kwargs, task_id, options, **how)
        if accepted is None:
            return task.AsyncResult(task_id)
        return _publish(app, task, accepted[0], task_id, with_trace(accepted[1], span), options=options)


def _publish(
    app: SendingApplication,
    task: SendableTask,
    payload: dict[str, Any],
    task_id: str,
    headers: dict[str, Any],
    *,
    options: dict[str, Any],
) -> Any:
    instead = functools.partial(task.AsyncResult, task_id)
    step = functools.partial(UnsentStep, app, task.name, task_id, (), payload, options, headers)
    if not options.pop("headers", None) and app.templates.fit(options):
        from_template = functools.partial(app.templates.send, task, payload, task_id, headers, options)
        sent = functools.partial(publish, from_template, app, task_id, with_result=not task.ignore_result)
        return sent_or_refused(sent, step, instead)
    options |= shown_arguments(task, payload, options, headers)
    options |= {"headers": headers, "retry": False}  # `publish` retries, not Celery
    with_result = not options.get("ignore_result", task.ignore_result)
    made_by_celery = functools.partial(by_celery, task, payload, task_id, **options)
    if app.conf.task_always_eager:  # the job runs here, so there is no time-out
        return made_by_celery()
    sent = functools.partial(
        publish, made_by_celery, app, task_id, with_result=with_result, producer=options.get("producer")
    )
    return sent_or_refused(sent, step, instead)


def checked_send(
    task: DeclaredTask,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    message_id: str,
    options: dict[str, Any],
    **how: Any,
) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The payload and the headers of a send.

    `None` for a faulty step after a finished job: the step is then recorded as a dead letter.

    Args:
        task: the task.
        args: positional arguments of `run`.
        kwargs: arguments of `run` by name.
        message_id: the message's id.
        options: of the send; its callbacks get their ids here.
        how: `actor`, `key` and `planned_at`, as `headers_for` takes them.

    Raises:
        TypeError, ValueError, PayloadError, PermissionDenied: as `apply_async`.
    """
    try:
        settings = task.app.settings
        list_callbacks(options)
        check_options(task, options, settings.max_delay)
        freeze_callbacks(task, message_id, options)
        given = options.get("headers") or {}
        if isinstance(given, AcceptedHeaders):  # a retry, for example: it was checked before
            return payload_of(task, args, kwargs, None)[0], dict(given)
        refuse_nobody(task, options, how.get("actor") or given.get(ACTOR))
        name_sender_of_chord(options)
        payload, written = payload_of(task, args, kwargs, getattr(settings, task.payload_limit_setting))
        sealed = seal_header(task, options)
        return payload, headers_for(task, payload, written, message_id, given, **how) | sealed
    except (TypeError, ValueError, PayloadError) as error:
        if not sends_follow_ups():
            raise
        UnsentStep(task.app, task.name, message_id, args, kwargs, options, UnsentStep.headers_of(**how)).refuse(error)
        return None


def payload_of(
    task: DeclaredTask, args: Sequence[Any], kwargs: Mapping[str, Any], limit: int | None
) -> tuple[dict[str, Any], bytes]:
    """The payload of a send and its canonical JSON.

    Args:
        task: the task.
        args: positional arguments of `run`.
        kwargs: arguments of `run` by name.
        limit: bytes; `None`: the payload was accepted before, perhaps under a higher limit.

    Raises:
        TypeError, PayloadError: as `checked`.
    """
    refuse_no_arguments(task.name, args, kwargs)
    payload, written = task.arguments.written(args, kwargs)
    if limit is not None:
        refuse_credentials(task, payload, written)
        check_size(task.name, written, limit)
    return payload, written


def refuse_no_arguments(task: str, args: Any, kwargs: Any) -> None:
    """Refuse values that cannot be arguments. Raises: TypeError."""
    for given, kind in ((args, Sequence), (kwargs, Mapping)):
        if not isinstance(given, kind) or isinstance(given, (str, bytes)):
            raise TypeError(
                f"{task}: args is a list and kwargs a mapping of run's arguments, not {type(given).__name__}"
            )
