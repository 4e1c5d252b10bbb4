"""Cancel: keep a message from running, wherever it is, and whichever workers are restarted."""

from datetime import timedelta

from conventions.broker.redis_broker import CancelAnswer
from conventions.execution.application import Application
from conventions.records.audit_entry import CANCEL, AuditEntry


def cancel(app: Application, message_id: str, by: str | None = None) -> CancelAnswer:
    """Mark a message as cancelled, for as long as it may be in a queue; of a batch's id, the whole batch.

    Claims and progress read the mark. Where the broker is not the Redis of the claims, nobody can tell where the message
    is, and the answer is `queued`.

    Args:
        app: the application.
        message_id: of the message, or of the batch.
        by: who, for the audit, which has a row of a batch that is cancelled here; `None`: the caller writes one.
    """
    of_batch = app.batches.cancel(message_id)
    if of_batch and by is not None:  # once its state is gone, as from an emptied Redis, only this row tells
        app.journal.note(AuditEntry(by, CANCEL, message_id, after={"outcome": "done", "answer": "running"}))
    keep = max(app.settings.keep_result_for, app.settings.max_delay + timedelta(days=1))
    answer = app.port.cancel(message_id, keep)
    return "running" if of_batch else answer
