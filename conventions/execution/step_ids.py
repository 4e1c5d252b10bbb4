"""The ids of the steps after a message. They follow from its id, so a job that ends twice sends the same messages twice."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID, uuid5

from celery import maybe_signature

from conventions.broker.message_form import STEPS_WITHIN

_NAMESPACE = UUID("0c7b7a3e-6c0f-5d0e-9b57-6a8a1f2f4b11")


def derived_id(*place: object) -> str:
    """The id of a step at this place: the id of a message, and where the step stands in it."""
    return uuid5(_NAMESPACE, " ".join(map(str, place))).hex


def identified(step: Mapping[str, Any], *place: object) -> Any:
    """A copy of a step that has an id, and so have all tasks that it is made of.

    Args:
        step: a signature. It stays as it is, since its owner may send it once more.
        place: the id of the message that it follows, and where it stands there.
    """
    found = _with_ids(step, *place)
    if "task_id" not in step["options"]:
        found.freeze()
    return found


def _with_ids(step: Mapping[str, Any], *place: object) -> Any:
    found = maybe_signature(step).clone()
    within = STEPS_WITHIN.get(step.get("subtask_type") or "")
    if within is None:
        found["options"].setdefault("task_id", derived_id(*place))
        return found
    given = {name: found["kwargs"][name] for name in within if found["kwargs"].get(name)}
    found["kwargs"] = found["kwargs"] | {
        name: _with_ids(one, *place, name)
        if isinstance(one, Mapping)
        else [_with_ids(each, *place, name, number) for number, each in enumerate(one)]
        for name, one in given.items()
    }
    return found
