"""Somebody must stand behind a message whose task requires a permission, and behind each step after it (R20)."""

from collections.abc import Mapping
from typing import Any

import celery

from conventions.core.actor import SYSTEM
from conventions.core.errors import PermissionDenied
from conventions.execution.current_job import is_anybody_named
from conventions.execution.declared_task import DeclaredTask
from conventions.sending.callbacks import STEPS, signatures_of
from conventions.sending.named_task import NamedTask


def refuse_nobody(task: DeclaredTask | NamedTask | celery.Task, options: Mapping[str, Any], actor: str | None) -> None:
    """Refuse a send that names nobody, where the task, or a step after it, requires a permission. It would be denied when it runs.

    Args:
        task: what is sent.
        options: of the send, with the steps after it.
        actor: who is named by the send.

    Raises:
        PermissionDenied: nothing is sent.
    """
    itself, alone = _requires(task), STEPS.isdisjoint(options)
    if (alone and not itself) or actor is not None or is_anybody_named():
        return
    if itself:
        raise _nobody(task.name)
    if alone:
        return
    for where, step in signatures_of(task.name, options):
        if _requires(task.app.tasks.get(step["task"])) and not step["options"].get("actor"):
            raise _nobody(where)


def _requires(task: object) -> bool:
    return getattr(task, "requires", None) is not None


def _nobody(where: str) -> PermissionDenied:
    return PermissionDenied(
        f"{where}: it requires a permission, and nobody is named who sends it; send it within acting_as(user_id), or pass actor=...; "
        f'a program without a user says acting_as("{SYSTEM}"), which has what it was granted'
    )
