"""The steps after a message, as a caller passes them: signatures, and the signatures within them."""

from collections.abc import Iterator, Mapping
from typing import Any

from celery import maybe_signature

from conventions.broker.validation import NOT_OPTIONS, STEPS_WITHIN
from conventions.core.value_bounds import fault_of_name
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


def freeze_callbacks(task: Named, options: dict[str, Any]) -> None:
    """Give each callback its id now, and each one within a step. A job that ends twice then sends the same messages twice.

    The caller's signatures stay as they are: each send has ids of its own.

    Raises:
        TypeError: an element is not a signature.
    """
    if STEPS.isdisjoint(options):
        return
    for name in ("link", "link_error"):
        for one in listed(options.get(name) or ()):
            if not isinstance(one, Mapping):  # a signature is a mapping, also after JSON
                raise TypeError(
                    f"{task.name}: {name} is a signature, such as Other.s(...), or a list of them, not {one!r}"
                )
    options.update(_with_frozen_callbacks(options))


def _with_frozen_callbacks(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of these options that have steps, with an id for each callback within them."""
    frozen = {
        name: [_frozen(one) for one in listed(options[name])] for name in ("link", "link_error") if options.get(name)
    }
    for name in ("chain", "chord"):
        if steps := options.get(name):
            frozen[name] = [_looked_through(one) for one in steps] if name == "chain" else _looked_through(steps)
    return frozen


def _frozen(given: Mapping[str, Any]) -> Any:
    callback = maybe_signature(given).clone()
    if "task_id" not in callback.options:
        callback.freeze()
    return _looked_through(callback)


def _looked_through(step: Any) -> Any:
    """A step whose callbacks all have ids, at any depth; the same one where it has none."""
    if not isinstance(step, Mapping):
        return step
    within = {
        name: step["kwargs"][name]
        for name in STEPS_WITHIN.get(step.get("subtask_type") or "", ())
        if step["kwargs"].get(name)
    }
    options = _with_frozen_callbacks(step["options"])
    inner = {
        name: _looked_through(one) if isinstance(one, Mapping) else [_looked_through(each) for each in one]
        for name, one in within.items()
    }
    if not options and not inner:
        return step
    found = maybe_signature(step).clone()
    found["options"] = {**found["options"], **options}
    found["kwargs"] = {**found["kwargs"], **inner}
    return found
