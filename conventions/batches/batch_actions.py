"""What people do to a batch: cancel it, and send its dead chunks again. The audit records both (R18, R22)."""

import logging
from contextlib import suppress

from conventions.batches.application import BatchApplication
from conventions.broker.batch_membership import chunk_id, finish_id
from conventions.core.errors import BrokerUnavailable, PayloadError
from conventions.dead_letters.resend import redrive
from conventions.records import audit
from conventions.records.audit_entry import BATCH_CANCEL, AuditEntry

logger = logging.getLogger(__name__)


class _Ended(Exception):
    """Rolls back the audit entry: there was nothing to do."""


def cancel_batch(app: BatchApplication, id: str, actor: str, reason: str | None = None) -> bool:  # noqa: A002  # the word of the glossary
    """Stop cutting and processing a batch. Running chunks learn it at their next report of progress.

    Returns:
        False if it has ended or does not exist; then nothing changes.

    Raises:
        SQLAlchemyError: nothing changes.
    """
    with suppress(_Ended), app.database.session() as session:
        audit.record(session, AuditEntry(actor, BATCH_CANCEL, id, reason))
        session.flush()  # without the audit entry there is no cancel
        if not app.batches.cancel(id):
            raise _Ended
        return True
    return False


def retry_failed(app: BatchApplication, id: str, actor: str, reason: str | None = None) -> tuple[int, int]:  # noqa: A002  # the word of the glossary
    """Send the dead messages of a batch again: its chunks, or the splitter or finish that ended it.

    Not sent, with the reason in the log: messages of a cancelled batch, messages without a letter, letters that are
    discarded or on their way, letters that no longer fit their task, and the rest when the broker cannot be reached.

    Returns:
        How many were sent, and out of how many.

    Raises:
        SQLAlchemyError: nothing more is sent.
    """
    summary = app.batches.summary(id, returns=False)
    if summary is None:
        return 0, 0
    ids = [chunk_id(summary.id, index) for index in summary.failed_chunks]
    if summary.state == "dead":
        ids.append(summary.id if summary.chunks is None else finish_id(summary.id))
    if not ids:
        return 0, 0
    if summary.state == "cancelled":
        logger.warning("not sent again: the batch %s was cancelled, and its chunks would end at once", id)
        return 0, len(ids)
    with app.database.session() as session:
        audit.record(session, AuditEntry(actor, "batch retry-failed", id, reason, None, {"letters": len(ids)}))
    sent = 0
    for one in ids:
        try:
            sent += redrive(app, one, actor)
        except PayloadError as error:
            logger.warning("not sent again: id=%s: %s", one, error)
        except BrokerUnavailable as error:
            logger.warning("not sent again: id=%s and those after it: %s", one, error)
            break
    return sent, len(ids)
