"""The options of a send, and checks for those that cannot work."""

import difflib
import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import celery
from kombu.connection import Connection
from kombu.entity import Exchange, Queue
from kombu.messaging import Producer

from conventions.broker.caller_headers import AcceptedHeaders, check_headers
from conventions.broker.message_form import STEPS_WITHIN
from conventions.core.priority import Priority
from conventions.core.value_bounds import LARGEST_COUNT, LONGEST, fault_of_name, is_text, moment_of
from conventions.execution.current_job import sends_follow_ups
from conventions.execution.declared_task import DeclaredTask
from conventions.library_internals.celery import Router
from conventions.security.function_guard import How, look_at
from conventions.security.payload_guard import refuse_in_options, refuse_in_text
from conventions.sending.callbacks import STEPS, signatures_of
from conventions.sending.named_task import NamedTask

OPTIONS = frozenset(
    [
        "actor",
        "add_to_parent",
        "argsrepr",
        "chain",
        "chord",
        "connection",
        "countdown",
        "delivery_mode",
        "eta",
        "exchange",
        "expires",
        "group_id",
        "group_index",
        "headers",
        "idempotency_key",
        "ignore_result",
        "kwargsrepr",
        "link",
        "link_error",
        "mandatory",
        "origin",
        "parent_id",
        "planned_at",
        "priority",
        "producer",
        "publisher",
        "queue",
        "replaced_task_nesting",
        "reply_to",
        "result_cls",
        "retries",
        "retry",
        "retry_policy",
        "root_id",
        "route_name",
        "router",
        "routing_key",
        "serializer",
        "shadow",
        "soft_time_limit",
        "task_id",
        "time_limit",
    ]
)

_SECONDS = ((int, float), "a number of seconds")
_TRUTH = ((bool,), "True or False")
_PRODUCER = ((Producer,), "a producer of kombu, such as app.producer_or_acquire() gives, or left out")
_TYPES: Mapping[str, tuple[tuple[type, ...], str]] = {
    "countdown": _SECONDS,
    "soft_time_limit": _SECONDS,
    "time_limit": _SECONDS,
    "timeout": _SECONDS,
    "eta": ((datetime, str), "a moment, such as datetime.now(UTC) + timedelta(hours=1)"),
    "expires": ((int, float, datetime, str), "a number of seconds, or a moment"),
    "priority": ((int,), "a whole number"),
    "queue": ((str, Queue), "the name of a queue"),
    "retries": ((int,), "how often it was tried"),
    "group_index": ((int,), "a number"),
    "replaced_task_nesting": ((int,), "a number"),
    "chain": ((list, tuple), "a list of signatures, which Celery gives; write chain(First.s(...), Next.s(...))"),
    "add_to_parent": _TRUTH,
    "ignore_result": _TRUTH,
    "mandatory": _TRUTH,
    "retry": _TRUTH,
    "connection": ((Connection,), "a connection of kombu, such as app.connection_for_write(), or left out"),
    "producer": _PRODUCER,
    "publisher": _PRODUCER,
    "router": ((Router,), "a router of Celery, or left out"),
    "route_name": ((str,), "the name by which a route is looked up"),
    "stamped_headers": ((list, tuple, set, frozenset), "a list of names"),
    "chord": ((Mapping,), "a signature, which Celery gives; write chord([Part.s(...)])(Sum.s(...))"),
}
CONNECTIONS = ("connection", "producer", "publisher")
_NAMES = frozenset(
    [
        "correlation_id",
        "exchange",
        "group_id",
        "origin",
        "parent_id",
        "queue",
        "reply_to",
        "root_id",
        "routing_key",
        "shadow",
        "task_id",
    ]
)
_TEXTS = frozenset(["argsrepr", "kwargsrepr"])
_MODES = (None, 1, 2, "transient", "persistent")


def check_options(task: DeclaredTask | NamedTask, options: Mapping[str, Any], max_delay: timedelta) -> None:
    """Refuse options that cannot work, of a send and of its following steps.

    Args:
        task: the task.
        options: of the send.
        max_delay: the longest delay.

    Raises:
        TypeError: a bare integer as priority; `retry_policy`, which is declared on the class; a value of the wrong
            type; a header that is the platform's own; or a following step that is not a signature.
        ValueError: a delay beyond `max_delay`; a time limit below the soft one, so the soft one could never act; a text
            that is not a time; a name that cannot be stored; a number out of range.
        PayloadError: headers that JSON cannot hold, or that are too large.
    """
    if not options:
        return
    _check_priority(task.name, options)
    _check_connection(task, options)
    accepted = isinstance(
        options.get("headers"), AcceptedHeaders
    )  # a retry was accepted before, so its delay is not checked again
    _check_ours(task.name, task, options, None if accepted else max_delay)
    if not accepted:
        _check_steps(task, options, max_delay)


def check_function(task: celery.Task, options: Mapping[str, Any], max_delay: timedelta) -> None:
    """Refuse options of a task that is not ours, but only those that every worker refuses. Raises: as `check_options`."""
    _check_connection(task, options)
    compression = getattr(task, "compression", None) or task.app.conf.task_compression
    _check_common(
        task.name, options if "compression" in options or not compression else {**options, "compression": compression}
    )
    _check_steps(task, options, max_delay)


def _check_steps(
    task: celery.Task | DeclaredTask | NamedTask, options: Mapping[str, Any], max_delay: timedelta
) -> None:
    if (
        STEPS.isdisjoint(options) or sends_follow_ups()
    ):  # the first send checked all steps, and each is checked again when it is sent
        return
    for where, step in signatures_of(task.name, options):
        other = task.app.tasks.get(step["task"])
        if other is not None and not hasattr(other, "arguments"):  # a function, or a task of Celery
            _check_common(where, step["options"])
        else:
            _check_ours(where, other, step["options"], max_delay)
        refuse_step_data(where, other, step, task.app.settings.function_credentials)


def refuse_step_data(where: str, task: Any, step: Mapping[str, Any], how: How = "refuse") -> None:
    """Refuse a step whose arguments or headers look like a credential; steps within it come by themselves.

    Args:
        where: for the error.
        task: the step's; `None`: it is not known here.
        step: a signature.
        how: what becomes of the arguments of a function, and of a task that is not known.

    Raises:
        CredentialInPayload.
    """
    within = STEPS_WITHIN.get(step.get("subtask_type") or "", ())
    named = {name: value for name, value in step["kwargs"].items() if name not in within}
    if hasattr(task, "arguments"):
        _refuse_arguments(where, task, step, named)
    else:
        look_at(where, task, step["args"], named, how, follows=not step.get("immutable"))
    for option in ("task_id", "idempotency_key", "actor", "group_id"):
        if isinstance(text := step["options"].get(option), str):
            refuse_in_text(where, option, text)
    refuse_in_options(where, {"headers": step["options"].get("headers")})


def _refuse_arguments(where: str, task: Any, step: Mapping[str, Any], named: Mapping[str, Any]) -> None:
    names = task.arguments.names
    own = names if step.get("immutable") or len(step["args"]) >= len(names) else names[1:]  # the first one is a result
    rest = step["args"][len(own) :]
    values = dict(zip(own, step["args"], strict=False)) | dict(named) | ({"args": list(rest)} if rest else {})
    refuse_in_options(where, values, getattr(task, "allowed_credentials", {}))


def _check_ours(name: str, task: object, options: Mapping[str, Any], max_delay: timedelta | None) -> None:
    """Refuse options of one message of our task. `None`: a task that is not known here."""
    _check_common(name, options)
    if max_delay is not None:
        _check_delay(name, options, max_delay)
    _check_spelling(name, options)
    if "retry_policy" in options:
        raise TypeError(f"{name}: retry_policy is declared on the task class, not passed to a send")
    soft = options.get("soft_time_limit") or getattr(task, "soft_time_limit", None)
    hard = options.get("time_limit") or getattr(task, "time_limit", None)
    if soft and hard and hard < soft:
        raise ValueError(
            f"{name}: time_limit ({hard:g} s) is below soft_time_limit ({soft:g} s); pass both, the soft one lower"
        )


def _check_common(name: str, options: Mapping[str, Any]) -> None:
    """Refuse options of one message of any task. Raises: TypeError, ValueError, PayloadError, as `check_options`."""
    check_types(name, options)
    check_headers(name, options)
    _check_names(name, options)
    _check_others(name, options)
    if options.get("compression"):
        raise TypeError(
            f"{name}: compressed messages are refused, since a small one may become too large for a worker; leave "
            "compression out, store large data, and pass its id"
        )
    if options.get("serializer") not in (None, "json"):
        raise TypeError(f"{name}: only JSON is accepted; leave serializer={options['serializer']!r} out")
    if (found := options.get("result_cls")) is not None and not callable(found):
        raise TypeError(f"{name}: result_cls is a class of results, not {found!r}; leave it out")
    if options.get("task_type") is not None:
        raise TypeError(f"{name}: task_type is what Celery says to itself; leave it out, and send the task itself")


def _check_connection(task: celery.Task | DeclaredTask | NamedTask, options: Mapping[str, Any]) -> None:
    """Refuse a connection that another application has made. Celery would send by it, by its transport."""
    for name in CONNECTIONS:
        given = options.get(name)
        connection = given if isinstance(given, Connection) else getattr(given, "connection", None)
        if connection is None:
            continue
        link = (connection.transport_options or {}).get("link")
        if getattr(link, "app", None) is not task.app:
            raise TypeError(
                f"{task.name}: {name} was made by another application, so the message would go where no worker of {task.app.main} looks for "
                f"it: leave {name} out, and send a group with tasks of several applications in parts"
            )


def check_types(task: str, options: Mapping[str, Any]) -> None:
    """Refuse values of the wrong type, and numbers and times out of range. Raises: TypeError, ValueError."""
    for name, value in options.items():
        if value is not None and (found := _TYPES.get(name)) is not None:
            types, wanted = found
            _check_type(f"{task}: {name} is {wanted}", name, value, types)


def _check_type(rule: str, name: str, value: Any, types: tuple[type, ...]) -> None:
    if isinstance(value, timedelta):
        raise TypeError(f"{rule}, not a timedelta; write {name}=….total_seconds()")
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        raise TypeError(f"{rule}, not {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{rule}, not {value!r}")
    most = LONGEST if float in types else LARGEST_COUNT
    least = (
        -LONGEST if name in ("countdown", "expires") else 0
    )  # a time in the past is allowed: the message is due, or has expired
    if isinstance(value, (int, float)) and not least <= value <= most:
        raise ValueError(f"{rule}, from {least:,} to {most:,}, not {value!r}")
    if isinstance(value, datetime) and not 1 < value.year < 9999:
        raise ValueError(f"{rule}, of a year from 2 to 9998, not {value!r}")
    if isinstance(value, str) and datetime in types:
        try:
            moment_of(value)
        except ValueError:
            raise ValueError(f"{rule}, not {value!r}") from None


def _check_names(task: str, options: Mapping[str, Any]) -> None:
    for name, value in options.items():
        if name in _TEXTS and not is_text(_text(task, name, value)):
            raise ValueError(f"{task}: {name} holds half a character (a lone surrogate), which no text may hold")
        if name not in _NAMES:
            continue
        text = value.name if isinstance(value, (Queue, Exchange)) else value
        if fault := fault_of_name(_text(task, name, text)):
            raise ValueError(f"{task}: {name} {fault}")


def _text(task: str, name: str, value: Any) -> str:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{task}: {name} is text, not {type(value).__name__}; write {name}=str(...)")
    return value or ""


def _check_others(task: str, options: Mapping[str, Any]) -> None:
    """Refuse values that a worker refuses, or that make kombu blame the broker."""
    if (mode := options.get("delivery_mode")) not in _MODES or isinstance(mode, bool):
        raise ValueError(f"{task}: delivery_mode is 1, 2, 'transient' or 'persistent', not {mode!r}")
    stamps = options.get("stamped_headers") or ()
    if missing := [name for name in stamps if name not in options]:
        raise TypeError(
            f"{task}: stamped_headers names {missing[0]!r}, which is no option of this send; pass its value"
        )


def _check_spelling(task: str, options: Mapping[str, Any]) -> None:
    if "stamped_headers" in options:  # stamps are options with any name
        return
    for name in options:
        if name not in OPTIONS and (close := difflib.get_close_matches(name, OPTIONS, n=1, cutoff=0.7)):
            raise TypeError(f"{task}: there is no option {name}; write {close[0]}=...")


def _check_priority(task: str, options: Mapping[str, Any]) -> None:
    priority = options.get("priority")
    # Celery sends the next step of a chain and the next attempt, and there a Priority is a plain number.
    continues = {"root_id", "reply_to"} & options.keys() or isinstance(options.get("headers"), AcceptedHeaders)
    if priority is not None and not continues and not isinstance(priority, Priority):
        names = ", ".join(f"Priority.{member.name}" for member in Priority)
        raise TypeError(
            f"{task}: priority {priority!r} means different things on different brokers; write one of {names}"
        )


def _check_delay(task: str, options: Mapping[str, Any], max_delay: timedelta) -> None:
    delay = options.get("countdown")
    eta = options.get("eta")
    if isinstance(eta, str):
        eta = datetime.fromisoformat(eta)
    if isinstance(eta, datetime):
        aware = eta if eta.tzinfo else eta.replace(tzinfo=UTC)
        delay = (aware - datetime.now(UTC)).total_seconds()
    if delay is not None and delay > max_delay.total_seconds():
        raise ValueError(
            f"{task}: a delay of {delay:.0f} s is beyond max_delay ({max_delay.total_seconds():.0f} s); "
            "use a schedule, or raise CONVENTIONS_MAX_DELAY"
        )
