"""Cancel a job, and end it by force where it runs: the same on the command line and on the page, with the rows of the audit (R22)."""

from typing import Any, NamedTuple

from conventions.broker.redis_broker import CancelAnswer
from conventions.core.errors import ConventionError
from conventions.execution.application import Application, broker_outages
from conventions.execution.cancel import cancel
from conventions.now.end_running import ForcedEnd, end_running
from conventions.records.audit_entry import CANCEL, CANCEL_BY_FORCE, AuditEntry


class CancelOutcome(NamedTuple):
    """What became of it.

    Attributes:
        answer: of the cancel; `None`: nothing was changed, since no batch can be ended by force.
        is_batch: whether it is a batch.
        forced: how its process was ended; `None`: nobody asked for it, it is too late, or it is not known.
        fault: the error because of which nobody knows whether its process was ended.
    """

    answer: CancelAnswer | None
    is_batch: bool
    forced: ForcedEnd | None = None
    fault: Exception | None = None


def cancel_or_end(app: Application, job_id: str, actor: str, reason: str | None, *, force: bool) -> CancelOutcome:
    """Keep a job from running; with `force`, also kill the process that runs it. Each of the two has its row in the audit.

    Args:
        app: the application.
        job_id: of the job, or of a batch, which cannot be ended by force.
        actor: who does it, for the audit.
        reason: why, for the audit.
        force: whether to kill the process that runs it.

    Raises:
        JournalFull: nothing was changed.
        RedisError: it may have been cancelled, or not.
    """
    is_batch = bool(app.batches.states([job_id]))
    if force and is_batch:
        return CancelOutcome(None, is_batch)
    answer = cancel(app, job_id)
    after: dict[str, Any] = {"outcome": "failed" if answer == "too late" else "done", "answer": answer}
    if force:
        after["force"] = True
    # The audit entry goes to the journal, so that a message can be cancelled while SQL is away.
    app.journal.note(AuditEntry(actor, CANCEL, job_id, reason, None, after))
    if not force:
        return CancelOutcome(answer, is_batch)
    try:
        forced = end_running(app, job_id)
    except broker_outages(app, ConventionError, OSError) as error:
        return CancelOutcome(answer, is_batch, fault=error)
    if answer == "too late" and forced.how == "not running":
        return CancelOutcome(answer, is_batch)
    # A function that runs has no claim, and is too late, too.
    app.journal.note(AuditEntry(actor, CANCEL_BY_FORCE, job_id, reason, None, forced._asdict()))
    return CancelOutcome(answer, is_batch, forced)
