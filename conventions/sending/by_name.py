"""Sends by task name, and sends of functions and Celery's own tasks. Each is checked as far as its task is known here.

All of Celery's ways to send end in `send_task` of the application. It passes checked messages on: see `by_celery.py`.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import celery
from celery import uuid
from kombu.utils.json import dumps

from conventions.broker.caller_headers import OwnHeaders, without_ours
from conventions.broker.header_names import KEY
from conventions.core.errors import PayloadError
from conventions.core.value_bounds import fault_of_name, half_character
from conventions.declare.payload import check_size
from conventions.execution.application import Application
from conventions.execution.attempt_event import own_headers
from conventions.execution.current_job import sends_follow_ups
from conventions.library_internals.celery import SEND_TASK_POSITIONS, current_task
from conventions.sending.by_celery import was_checked
from conventions.sending.callbacks import freeze_callbacks, list_callbacks
from conventions.sending.message_headers import check_text, common_headers
from conventions.sending.named_task import NamedTask
from conventions.sending.options import check_function, check_options
from conventions.sending.publish import publish
from conventions.sending.send import checked_send, refuse_no_arguments
from conventions.sending.shown_arguments import shown_arguments
from conventions.sending.unsendable_step import refuse_step

FAULTS = (TypeError, ValueError, PayloadError)


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
    task_id = options["task_id"] = uuid() if task_id is None else task_id
    if hasattr(task, "arguments"):
        accepted = checked_send(task, args or (), kwargs or {}, task_id, options, **_how(options))
        if accepted is not None:
            args, (kwargs, options["headers"]) = (), accepted
            options |= shown_arguments(task, kwargs, options)
            options.setdefault("ignore_result", task.ignore_result)
    else:
        celerys = {"task_type": task} if task is not None and options.get("task_type") is task else {}
        one = NamedTask(app, name, options.get("queue")) if task is None else task
        rest = {name: value for name, value in options.items() if name not in celerys}
        accepted = checked_as_far(one, args, kwargs, rest)
        options = rest | celerys
    if accepted is None:
        return app.AsyncResult(task_id)
    options["retry"] = False  # `publish` retries, not Celery
    sent = functools.partial(send, args, kwargs, **options)
    with_result = not options.get("ignore_result")
    return publish(sent, app, task_id, with_result=with_result, producer=options.get("producer"))


def checked_as_far(task: celery.Task | NamedTask, args: Any, kwargs: Any, options: dict[str, Any]) -> Any:
    """Check a send of a task that is not ours or not known here, and write its headers into its options.

    A function is checked only for what every worker refuses. It may use its own priorities and delays.

    Returns:
        The headers. `None` for a faulty step after a finished job: the step is then recorded as a dead letter.
    """
    task_id = options["task_id"]
    running = current_task()
    is_known = not isinstance(task, NamedTask)
    if (
        is_known and running is not None and (running.name, running.request.id) == (task.name, task_id)
    ):  # Celery's retry
        found = without_ours(options.get("headers")) | own_headers(running.request)
        options["headers"] = OwnHeaders(found)
        return options["headers"]
    how = _how(options)
    try:
        if is_known and sends_follow_ups():  # an older release wrote our headers into waiting steps
            options["headers"] = without_ours(options.get("headers"))
        list_callbacks(options)
        max_delay = task.app.settings.max_delay
        if not isinstance(task, NamedTask):
            check_function(task, options, max_delay)
        else:
            check_options(task, options, max_delay)
            freeze_callbacks(task, options)
            _check_arguments(task, args, kwargs)
        check_text(task, "task_id", task_id)
        check_text(task, "idempotency_key", how["key"])
        given = options.get("headers") or {}
        headers = common_headers(task, given, actor=how["actor"], planned_at=how["planned_at"])
    except FAULTS as error:
        if not sends_follow_ups():
            raise
        arguments = dict(kwargs) if isinstance(kwargs, Mapping) else {"kwargs": kwargs}
        one = NamedTask(task.app, task.name, options.get("queue"))
        refuse_step(one, str(task_id), arguments | {"args": list(args or ())}, error)
        return None
    options["headers"] = OwnHeaders(headers | ({KEY: how["key"]} if how["key"] else {}))
    return options["headers"]


def _how(options: dict[str, Any]) -> dict[str, Any]:
    how = {"actor": "actor", "key": "idempotency_key", "planned_at": "planned_at"}
    return {name: options.pop(option, None) for name, option in how.items()}


def _check_arguments(task: NamedTask, args: Any, kwargs: Any) -> None:
    """Check arguments without knowing the task. Raises: TypeError, PayloadError."""
    args, kwargs = args or (), kwargs or {}
    refuse_no_arguments(task.name, args, kwargs)
    if wrong := next((name for name in kwargs if not isinstance(name, str)), None):
        raise TypeError(f"{task.name}: the name of an argument is text, not {wrong!r}")
    try:
        written: Sequence[str] = dumps([list(args), dict(kwargs)], allow_nan=False)  # type: ignore[no-untyped-call]  # kombu has few types
        where = half_character({"args": list(args), "kwargs": dict(kwargs)})
    except (TypeError, ValueError, RecursionError) as error:
        raise PayloadError(f"{task.name}: its arguments cannot be written as JSON ({error})") from None
    if where is not None:
        raise PayloadError(f"{task.name}: argument '{where}' holds half a character (a lone surrogate)")
    check_size(task.name, str(written).encode(), task.app.settings.payload_limit)
