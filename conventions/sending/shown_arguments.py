"""The arguments of a message as logs and Flower show them."""

from collections.abc import Mapping
from typing import Any

from conventions.broker.header_names import SEALED
from conventions.core.sealed_mark import SHOWN
from conventions.execution.declared_task import DeclaredTask
from conventions.library_internals.celery import saferepr

SHORT = 100  # characters


def shown_arguments(
    task: DeclaredTask, payload: Mapping[str, Any], options: Mapping[str, Any], headers: Mapping[str, Any]
) -> dict[str, str]:
    """The options with the text of a payload for logs and Flower; `headers`: of its message."""
    if SEALED in headers:
        return {"argsrepr": "()", "kwargsrepr": SHOWN}  # whatever the caller gives: it may repeat what is sealed
    if "argsrepr" in options or "kwargsrepr" in options:
        return {}
    return {"argsrepr": "()", "kwargsrepr": shown_text(task, payload, headers)}


def shown_text(task: DeclaredTask, payload: Mapping[str, Any], headers: Mapping[str, Any]) -> str:
    """A payload as text. Celery's own function takes longer than the rest of a send, so small payloads use `repr`."""
    if SEALED in headers:
        return SHOWN
    if _is_small(payload):
        return repr(dict(payload))
    if own := task.shown(payload):
        return str(own)
    text: str = saferepr(payload, task.app.amqp.kwargsrepr_maxsize, maxlevels=task.app.conf.task_repr_maxlevels)
    return text


def _is_small(payload: Mapping[str, Any]) -> bool:
    return all(
        value is None or isinstance(value, (int, float)) or (isinstance(value, str) and len(value) < SHORT)
        for value in payload.values()
    )
