"""The check of a send whose task is no class of ours: a plain function, a task of Celery's own, one of which only the name is known here."""

from collections.abc import Mapping, Sequence
from typing import Any

import celery
from kombu.utils.json import dumps

from conventions.broker.caller_headers import OwnHeaders, without_ours, without_passed_on
from conventions.broker.header_names import ACTOR, KEY, SEALED
from conventions.core.actor import SYSTEM
from conventions.core.errors import PayloadError
from conventions.core.sealed_mark import SHOWN
from conventions.core.value_bounds import half_character
from conventions.declare.arguments_as_json import check_size
from conventions.execution.attempt_event import own_headers
from conventions.execution.current_job import sends_follow_ups
from conventions.execution.unsent_step import UnsentStep
from conventions.library_internals.celery import current_task
from conventions.security.function_guard import look_at
from conventions.sending.actor_required import refuse_nobody
from conventions.sending.callbacks import freeze_callbacks, list_callbacks, name_sender_of_chord
from conventions.sending.message_headers import check_text, common_headers
from conventions.sending.named_task import NamedTask
from conventions.sending.option_checks import check_function, check_options
from conventions.sending.sealed_sends import seal_header
from conventions.sending.send import refuse_no_arguments

_RUN_ANOTHER = frozenset(["celery.map", "celery.starmap", "celery.chunks"])


def take_own_options(options: dict[str, Any]) -> dict[str, Any]:
    """Take the options that Celery does not have out of those of a send."""
    how = {"actor": "actor", "key": "idempotency_key", "planned_at": "planned_at"}
    return {name: options.pop(option, None) for name, option in how.items()}


def checked_as_far(task: celery.Task | NamedTask, args: Any, kwargs: Any, options: dict[str, Any]) -> Any:
    """Check a send of a task that is not ours or not known here, and write its headers into its options.

    A function is checked only for what every worker refuses, and for credentials. It may use its own priorities and delays.

    Returns:
        The headers. `None` for a faulty step after a finished job: the step is then recorded as a dead letter.
    """
    task_id = options["task_id"]
    running = current_task()
    is_known = not isinstance(task, NamedTask)
    if (
        is_known and running is not None and (running.name, running.request.id) == (task.name, task_id)
    ):  # Celery's retry
        found = {ACTOR: SYSTEM} | without_ours(options.get("headers")) | own_headers(running.request)
        options["headers"] = OwnHeaders(found)
        if SEALED in found:
            options |= {"argsrepr": SHOWN, "kwargsrepr": SHOWN}
        return options["headers"]
    how = take_own_options(options)
    try:
        if is_known and sends_follow_ups():  # an older release wrote our headers into waiting steps
            options["headers"] = without_ours(options.get("headers"))
        elif running is not None and options.get("headers"):
            options["headers"] = without_passed_on(options["headers"], running.request.headers)
        list_callbacks(options)
        max_delay = task.app.settings.max_delay
        if not isinstance(task, NamedTask):
            check_function(task, options, max_delay)
            _refuse_sealed_within(task, kwargs)
            _check_text(task.name, args, kwargs)
            look_at(task.name, task, args or (), kwargs or {}, task.app.settings.function_credentials)
        else:
            check_options(task, options, max_delay)
            freeze_callbacks(task, str(task_id), options)
            _check_arguments(task, args, kwargs)
            look_at(task.name, None, args or (), kwargs or {}, task.app.settings.function_credentials)
        refuse_nobody(task, options, how["actor"])
        name_sender_of_chord(options)
        check_text(task, "task_id", task_id)
        check_text(task, "idempotency_key", how["key"])
        given = options.get("headers") or {}
        headers = common_headers(task, given, actor=how["actor"], planned_at=how["planned_at"])
        if sealed := seal_header(task, options):
            headers |= sealed
            options |= {"argsrepr": SHOWN, "kwargsrepr": SHOWN}
    except (TypeError, ValueError, PayloadError) as error:
        if not sends_follow_ups():
            raise
        UnsentStep(task.app, task.name, str(task_id), args, kwargs, options, UnsentStep.headers_of(**how)).refuse(error)
        return None
    options["headers"] = OwnHeaders(headers | ({KEY: how["key"]} if how["key"] else {}))
    return options["headers"]


def _check_text(name: str, args: Any, kwargs: Any) -> None:
    """Refuse what no message can say of itself. Raises: PayloadError."""
    where = half_character({"args": [*(args or ())], "kwargs": {**(kwargs or {})}})
    if where is not None:
        raise PayloadError(f"{name}: argument '{where}' holds half a character (a lone surrogate)")


def _refuse_sealed_within(task: celery.Task, kwargs: Any) -> None:
    """Refuse a task of Celery that runs a sealed one: it would tell its results in clear. Raises: TypeError."""
    within = (kwargs or {}).get("task") if task.name in _RUN_ANOTHER else None
    known = task.app.tasks.get(within.get("task")) if isinstance(within, Mapping) else None
    if known is not None and getattr(known, "encrypt", False):
        raise TypeError(f"{task.name}: it does not seal what {known.name} returns; use its own starmap, or a BatchTask")


def _check_arguments(task: NamedTask, args: Any, kwargs: Any) -> None:
    """Check arguments without knowing the task. Raises: TypeError, PayloadError."""
    args, kwargs = args or (), kwargs or {}
    refuse_no_arguments(task.name, args, kwargs)
    if wrong := next((name for name in kwargs if not isinstance(name, str)), None):
        raise TypeError(f"{task.name}: the name of an argument is text, not {wrong!r}")
    try:
        written: Sequence[str] = dumps([list(args), dict(kwargs)], allow_nan=False)  # type: ignore[no-untyped-call]  # kombu has few types
    except (TypeError, ValueError, RecursionError) as error:
        raise PayloadError(f"{task.name}: its arguments cannot be written as JSON ({error})") from None
    _check_text(task.name, args, kwargs)
    check_size(task.name, str(written).encode(), task.app.settings.payload_limit)
