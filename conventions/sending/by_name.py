"""`send_task`: sends by task name. Each is checked as far as its task is known here: ours as always, others by `plain_send.py`.

All of Celery's ways to send end in `send_task` of the application. It passes checked messages on: see `by_celery.py`.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from celery import uuid

from conventions.core.value_bounds import fault_of_name
from conventions.execution.application import Application
from conventions.execution.unsent_step import UnsentStep
from conventions.library_internals.celery import SEND_TASK_POSITIONS
from conventions.sending.by_celery import was_checked
from conventions.sending.named_task import NamedTask
from conventions.sending.plain_send import checked_as_far, take_own_options
from conventions.sending.publish import publish
from conventions.sending.refused_sends import telling_refusals
from conventions.sending.send import checked_send
from conventions.sending.sent_or_refused import sent_or_refused
from conventions.sending.shown_arguments import shown_arguments
from conventions.sending.traced_send import traced, with_trace
from conventions.tracing.spans import SendSpan


def name_positions(values: Sequence[Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The positional options of `send_task`, by name. Raises: TypeError."""
    if len(values) > len(SEND_TASK_POSITIONS):
        raise TypeError(
            f"send_task: it takes {3 + len(SEND_TASK_POSITIONS)} arguments by position, not {3 + len(values)}; name the others"
        )
    found = dict(zip(SEND_TASK_POSITIONS, values, strict=False))
    if twice := next((name for name in found if name in options), None):
        raise TypeError(f"send_task: {twice} is given twice, by position and by name; leave one out")
    return found


def send_by_name(
    app: Application, name: Any, arguments: tuple[Any, Any], options: dict[str, Any], send: Callable[..., Any]
) -> Any:
    """Check a send by name, unless it was checked, and send it.

    Args:
        app: the application.
        name: of the task.
        arguments: of `run`, positional ones and those by name.
        options: as `apply_async` takes them.
        send: Celery's `send_task` for this name.

    Raises:
        TypeError, ValueError, PayloadError, BrokerUnavailable: as `apply_async`.
    """
    task_id, (args, kwargs) = options.get("task_id"), arguments
    if was_checked(task_id):
        return send(args, kwargs, **options)
    if not isinstance(name, str) or not name:
        raise TypeError(f"send_task: the name of a task is text, such as 'tasks.SendEmail', not {name!r}")
    if fault := fault_of_name(name):
        raise ValueError(f"send_task: the name of the task {fault}")
    task = app.tasks.get(name)
    options["task_id"] = uuid() if task_id is None else task_id
    one = NamedTask(app, name) if task is None else task
    with telling_refusals(app, name, options), traced(app, one, options["task_id"], options) as span:
        return _send(app, name, task, arguments, options, send=send, span=span)


def _send(
    app: Application,
    name: str,
    task: Any,
    arguments: tuple[Any, Any],
    options: dict[str, Any],
    *,
    send: Callable[..., Any],
    span: SendSpan,
) -> Any:
    task_id, (args, kwargs) = options["task_id"], arguments
    accepted: Any
    if hasattr(task, "arguments"):
        accepted = checked_send(task, args or (), kwargs or {}, task_id, options, **take_own_options(options))
        if accepted is not None:
            args, (kwargs, options["headers"]) = (), accepted
            options |= shown_arguments(task, kwargs, options, options["headers"])
            options.setdefault("ignore_result", task.ignore_result)
    else:
        celerys = {"task_type": task} if task is not None and options.get("task_type") is task else {}
        one = NamedTask(app, name) if task is None else task
        rest = {name: value for name, value in options.items() if name not in celerys}
        accepted = checked_as_far(one, args, kwargs, rest)
        options = rest | celerys
    if accepted is None:
        return app.AsyncResult(task_id)
    options["headers"] = with_trace(options["headers"], span)
    options["retry"] = False  # `publish` retries, not Celery
    sent = functools.partial(send, args, kwargs, **options)
    with_result = not options.get("ignore_result")
    published = functools.partial(
        publish, sent, app, task_id, with_result=with_result, producer=options.get("producer")
    )
    step = functools.partial(UnsentStep, app, name, task_id, args, kwargs, options, options["headers"])
    return sent_or_refused(published, step, functools.partial(app.AsyncResult, task_id))
