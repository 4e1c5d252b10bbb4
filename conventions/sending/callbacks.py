"""The steps after a message, as a caller passes them: signatures, and the signatures within them."""

from collections.abc import Iterator, Mapping
from copy import copy
from typing import Any

from conventions.broker.message_form import NOT_OPTIONS, STEPS_WITHIN
from conventions.core.value_bounds import fault_of_name
from conventions.execution.current_job import inherited_actor, is_anybody_named
from conventions.execution.step_ids import identified
from conventions.library_internals.celery import listed
from conventions.sending.named_task import Named

STEPS = frozenset(["link", "link_error", "chain", "chord"])
_PARTS: tuple[tuple[str, tuple[type, ...], str], ...] = (
    ("args", (list, tuple), "a list"),
    ("kwargs", (Mapping,), "a mapping"),
    ("options", (Mapping,), "a mapping"),
)


def list_callbacks(options: dict[str, Any]) -> None:
    """Turn an iterator of callbacks into a list, since it can be read only once."""
    for name in ("link", "link_error"):
        if isinstance(options.get(name), Iterator):
            options[name] = list(options[name])


def signatures_of(task: str, options: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every signature among these options, with the nested ones, and its name for error texts.

    Raises:
        TypeError: an element is not a signature.
        ValueError: the name of its task cannot be a name.
    """
    left = [(f"{task}: {name}", value) for name, value in options.items() if name in STEPS and value]
    while left:
        where, one = left.pop()
        if isinstance(one, (list, tuple)):
            left += [(where, each) for each in one]
            continue
        _check(where, one)
        yield f"{where} {one['task']}", one
        left += [(where, value) for name, value in one["options"].items() if name in STEPS and value]
        if kind := one.get("subtask_type"):
            left += [(where, one["kwargs"][name]) for name in STEPS_WITHIN.get(kind, ()) if one["kwargs"].get(name)]


def _check(where: str, one: Any) -> None:
    if not isinstance(one, Mapping):  # a signature is a mapping, also after JSON
        raise TypeError(f"{where} is a signature, such as Other.s(...), or a list of them, not {one!r}")
    name = one.get("task")
    if not isinstance(name, str) or not name:
        raise TypeError(f"{where} names no task, but {name!r}; write Other.s(...), or signature('other.task')")
    if fault := fault_of_name(name):
        raise ValueError(f"{where}: the name of the task {fault}")
    for part, types, wanted in _PARTS:
        if not isinstance(one.get(part), types):
            raise TypeError(
                f"{where} {name}: {part} of a signature is {wanted}, not {one.get(part)!r}; write Other.s(...), or "
                f"signature({name!r})"
            )
    if taken := sorted(NOT_OPTIONS.intersection(one["options"])):
        raise TypeError(f"{where} {name}: a signature has no option {taken[0]!r}; leave it out of set()")
    if one.get("subtask_type") == "chord" and not one["kwargs"].get("body"):
        raise TypeError(
            f"{where} {name}: a chord has a body, which runs after its parts: chord([Part.s(...)], Sum.s(...))"
        )


def freeze_callbacks(task: Named, message_id: str, options: dict[str, Any]) -> None:
    """Give each callback its id now. A job that ends twice, as after a crash, then sends the same messages twice.

    The caller's signatures stay as they are: each message has callbacks of its own.

    Raises:
        TypeError: an element is not a signature.
    """
    for name in ("link", "link_error"):
        if options.get(name):
            steps = listed(options[name])
            options[name] = [_frozen(task, message_id, name, number, one) for number, one in enumerate(steps)]


def _frozen(task: Named, message_id: str, name: str, number: int, given: Any) -> Any:
    if not isinstance(given, Mapping):  # a signature is a mapping, also after JSON
        raise TypeError(f"{task.name}: {name} is a signature, such as Other.s(...), or a list of them, not {given!r}")
    return identified(given, message_id, name, number)


def name_sender_of_chord(options: dict[str, Any]) -> None:
    """Let the body of a chord be sent in the name of whoever sends its parts, where somebody is named.

    The part that ends last sends it, and may have another actor.
    """
    body = options.get("chord")
    if body and is_anybody_named() and not body["options"].get("actor"):
        options["chord"] = body = copy(body)  # the caller's stays as it is
        body["options"] = {**body["options"], "actor": inherited_actor()}
