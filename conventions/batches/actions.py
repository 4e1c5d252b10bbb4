"""What people do to a batch: stop it, and send its dead chunks again. Each leaves a row in the audit (R18, R22)."""

import logging
from contextlib import suppress
from typing import Any

from conventions.broker.batch_membership import chunk_id, finish_id
from conventions.core.errors import BrokerUnavailable, PayloadError
from conventions.dead_letters.resend import redrive
from conventions.records import audit
from conventions.records.audit_entry import BATCH_CANCEL, AuditEntry

logger = logging.getLogger(__name__)


class _Ended(Exception):
    """Takes the row back: there was nothing to do."""


def cancel_batch(app: Any, id: str, actor: str, reason: str | None = None) -> bool:  # noqa: A002  # the word of the glossary
    """Cut and process no more of a batch; chunks that run are told at their next report of progress.

    Returns:
        False when it has ended, or is not there: then nothing is changed.

    Raises:
        SQLAlchemyError: nothing is changed.
    """
    with suppress(_Ended), app.database.session() as session:
        audit.record(session, AuditEntry(actor, BATCH_CANCEL, id, reason))
        session.flush()  # no row, no deed
        if not app.batches.cancel(id):
            raise _Ended
        return True
    return False


def retry_failed(app: Any, id: str, actor: str, reason: str | None = None) -> tuple[int, int]:  # noqa: A002  # the same
    """Send what is dead of a batch again: its chunks, or what ended it, its splitter or its finish.

    Not sent is what belongs to a cancelled batch, what has no letter yet, was given up or is on its way already, what does
    not fit its task any more, and the rest when the broker cannot be reached; the log says which.

    Returns:
        How many were sent, and of how many.

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
            sent += redrive(app, one)
        except PayloadError as error:
            logger.warning("not sent again: id=%s: %s", one, error)
        except BrokerUnavailable as error:
            logger.warning("not sent again: id=%s and those after it: %s", one, error)
            break
    return sent, len(ids)
