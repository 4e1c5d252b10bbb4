"""The tasks that a chain, a group or a chord is made of."""

from collections.abc import Iterator, Mapping
from typing import Any

from conventions.broker.message_form import STEPS_WITHIN


def every_task(step: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """All tasks of a signature, each one once: itself, or those within it at any depth."""
    within = STEPS_WITHIN.get(step.get("subtask_type") or "")
    if within is None:
        yield step
        return
    for name in within:
        found = (step.get("kwargs") or {}).get(name) or ()
        for one in [found] if isinstance(found, Mapping) else found:
            yield from every_task(one)


def last_tasks(step: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The tasks whose results are that of a signature: itself, the last one of a chain, the body of a chord, each one of a group."""
    kind, within = step.get("subtask_type"), step.get("kwargs") or {}
    if kind == "group":
        for one in within.get("tasks") or ():
            yield from last_tasks(one)
    elif kind == "chain" and within.get("tasks"):
        yield from last_tasks(within["tasks"][-1])
    elif kind == "chord" and within.get("body"):
        yield from last_tasks(within["body"])
    else:
        yield step
