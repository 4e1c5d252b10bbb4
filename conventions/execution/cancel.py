"""Cancel: keep a message from running, wherever it is, and whichever workers are restarted."""

from datetime import timedelta

from conventions.broker.redis_broker import CancelAnswer
from conventions.broker.waiting_messages import Waiting, waiting_one
from conventions.execution.application import Application
from conventions.execution.end_waiting import WaitingEnds
from conventions.execution.purge_queues import who_acts
from conventions.records.audit_entry import CANCEL, AuditEntry


def cancel(app: Application, message_id: str, by: str | None = None) -> CancelAnswer:
    """Mark a message as cancelled, for as long as it may be in a queue; of a batch's id, the whole batch.

    Claims and progress read the mark. A function has no claim, so a message of it is removed while it waits. Where the broker is not the Redis of the claims, nobody can tell where the message
    is, and the answer is `queued`.

    Args:
        app: the application.
        message_id: of the message, or of the batch.
        by: who, for the audit, which has a row of a batch that is cancelled here; `None`: the caller writes one.
    """
    if (one := _of_function(app, message_id)) is not None:
        ends = WaitingEnds(app, "cancelled", "Cancelled", f"cancelled in the queue {{queue}} by {by or who_acts()}")
        (went,) = ends.end([one])
        ends.follow_up()
        return "queued" if went else "too late"
    of_batch = app.batches.cancel(message_id)
    if of_batch and by is not None:  # once its state is gone, as from an emptied Redis, only this row tells
        app.journal.note(AuditEntry(by, CANCEL, message_id, after={"outcome": "done", "answer": "running"}))
    keep = max(app.settings.keep_result_for, app.settings.max_delay + timedelta(days=1))
    answer = app.port.cancel(message_id, keep)
    return "running" if of_batch else answer


def is_function(app: Application, one: Waiting) -> bool:
    """Whether a message is of a function of plain Celery, which has no claim."""
    task = app.tasks.get(one.headers.get("task"))
    return task is not None and not hasattr(task, "arguments")


def _of_function(app: Application, message_id: str) -> Waiting | None:
    if not app.port.can.looks:
        return None
    one = waiting_one(app.broker, message_id)
    return one if one is not None and is_function(app, one) else None
