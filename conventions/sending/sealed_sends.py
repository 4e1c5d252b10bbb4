"""Which messages are sealed: those of a task that says so, those with such a step after them, and those that follow a sealed job (R21).

What follows a job was within its sealed body until then, and stays sealed, whatever its own task says. So does all that a function sends.
"""

from collections.abc import Mapping
from typing import Any

import celery

from conventions.broker.header_names import SEALED
from conventions.core.errors import CannotSeal
from conventions.execution.current_job import current_job, sends_follow_ups
from conventions.execution.declared_task import DeclaredTask
from conventions.library_internals.celery import current_task
from conventions.sealing.sealed_body import NOTHING_FOLLOWS, SEALED_BODY
from conventions.sealing.sealed_task import is_sealed
from conventions.sealing.sealed_text import must_seal
from conventions.sending.callbacks import STEPS, signatures_of
from conventions.sending.named_task import NamedTask


def seal_header(task: DeclaredTask | NamedTask | celery.Task, options: Mapping[str, Any]) -> dict[str, str]:
    """The header of a message that is to be sealed; else none.

    Args:
        task: what is sent.
        options: of the send, with the steps after it.

    Raises:
        CannotSeal: it is to be sealed, and there is no key. Nothing is sent.
    """
    if not (is_sealed(task) or _is_followed_by_sealed(task, options) or _follows_sealed() or must_seal()):
        return {}
    if task.app.payload_keys is None:
        raise CannotSeal(
            f"{task.name}: its messages are sealed, and this process has no CONVENTIONS_PAYLOAD_KEYS: set them as the workers have them"
        )
    return {SEALED: NOTHING_FOLLOWS}  # the channel says what follows


def _is_followed_by_sealed(task: DeclaredTask | NamedTask | celery.Task, options: Mapping[str, Any]) -> bool:
    if STEPS.isdisjoint(options):
        return False
    return any(
        getattr(task.app.tasks.get(step["task"]), "encrypt", False) for _, step in signatures_of(task.name, options)
    )


def _follows_sealed() -> bool:
    running = current_task()
    if running is None or getattr(running.request, SEALED_BODY, None) is None:
        return False
    job = (
        current_job()
    )  # of a function nobody can tell what it sends from what follows it, nor of a part of a batch what the batch sends
    return job is None or job.member is not None or sends_follow_ups()
