"""What follows a job that has succeeded: its callbacks, and the next step of its chain.

Celery's tracer would send them, and take a step that cannot be sent for a failure of the job, which has succeeded: it would
store that, tell errbacks and chords, and send none of the other steps. So they are sent here, before the tracer looks, in the
order and with the arguments of `_dispatch_callbacks_and_chain` in `celery.app.trace`, functions last.
"""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, Self

from celery import maybe_signature
from celery.exceptions import Reject

from conventions.broker.message_form import CANVASES
from conventions.core.deadline import Deadline
from conventions.core.error_text import text_of
from conventions.execution.application import Application, may_pass
from conventions.execution.runnable_task import RunnableTask
from conventions.execution.unsent_step import UnsentStep

ACCUMULATE = (
    "celery.accumulate"  # returns its arguments; Celery puts it behind the group that a job replaces itself with
)
NEXT_WITHIN = 1.0  # seconds for each step after one that is not sent: all of them come again


class StepsNotSent(Reject):
    """A job has an outcome, and a server did not take a step after it. Its message comes again, and sends the steps again."""

    @classmethod
    def of(cls, error: Exception, what: str = "") -> Self:
        """What follows from an error that may pass; `what` names where it was met."""
        reason = error.reason if isinstance(error, Reject) else text_of(error)
        return cls(f"{what}: {reason}" if what else reason, requeue=True)


def send_follow_ups(task: RunnableTask, request: Any, result: Any) -> None:
    """Send each step. One that can never be sent becomes a dead letter. Whatever happens to one, the others are sent.

    Functions wait until all others are sent.

    Args:
        task: the running task, whose job has an outcome.
        request: its current one; nothing is left in it for Celery to send.
        result: of the job.

    Raises:
        StepsNotSent: a server does not answer. The message comes again, and sends the same steps under the same ids.
    """
    inherits = task.app.conf.task_inherit_parent_priority
    how = {
        "parent_id": request.id,
        "root_id": request.root_id or request.id,
        "priority": (request.delivery_info or {}).get("priority") if inherits else None,
    }
    steps = [(step, how) for step in request.callbacks or ()]
    if request.chain:
        *rest, step = request.chain
        steps.append((step, how | {"chain": rest}))
    # A function is sent after all others: it has no claim, and would run each time that the message comes again.
    steps.sort(key=lambda one: is_function(task.app, one[0]["task"]))
    failed: StepsNotSent | None = None
    for step, options in steps:
        if failed and is_function(task.app, step["task"]):
            break
        try:
            with Deadline(NEXT_WITHIN) if failed else nullcontext():
                _send(task, step, result, options)
        except StepsNotSent as error:
            failed = failed or error
    if failed:
        raise failed
    request.callbacks = request.chain = None


def is_function(app: Application, task: str) -> bool:
    """Whether a task is known here, is no class of ours, and is not made of other steps."""
    known = app.tasks.get(task)
    return known is not None and not hasattr(known, "arguments") and task not in CANVASES and task != ACCUMULATE


def _send(task: RunnableTask, step: Mapping[str, Any], result: Any, how: dict[str, Any]) -> None:
    try:
        maybe_signature(step, app=task.app).apply_async((result,), **how)
    except Exception as error:
        if may_pass(task.app, error):
            raise StepsNotSent.of(error) from error
        try:
            UnsentStep.of(task.app, step, (result,), **how).refuse(error)
        except Exception as fault:
            raise StepsNotSent.of(fault) from fault
