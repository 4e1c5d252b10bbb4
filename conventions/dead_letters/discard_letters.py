"""Give up dead letters: nobody will send them again (R18)."""

from dataclasses import replace

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from conventions.dead_letters.filter import Filter, check_agreed
from conventions.dead_letters.redrive_selection import selected
from conventions.records import audit
from conventions.records.audit_entry import AuditEntry
from conventions.storage.tables import DeadLetterRow

NAMED_AT_MOST = 1000  # ids in one row of the audit


def discard(session: Session, which: Filter, actor: str, reason: str, expected: int | None = None) -> int:
    """Discard all matching dead letters. The audit keeps which, by whom and why. Returns their number.

    Args:
        session: a transaction that an error must end.
        which: the letters.
        actor: who.
        reason: why.
        expected: the number that somebody confirmed; `None`: any number.

    Raises:
        SelectionChanged: there are more or fewer now.
        ValueError: there is no reason.
    """
    if not reason.strip():
        raise ValueError("say why: a letter that is given up without a reason cannot be explained later")
    which = replace(which, state="dead")
    conditions = selected(session, which)
    named = session.scalars(select(DeadLetterRow.id).where(*conditions).limit(NAMED_AT_MOST + 1)).all()
    gone = session.connection().execute(update(DeadLetterRow).where(*conditions).values(state="discarded")).rowcount
    check_agreed(which, expected, gone)
    if gone:
        after = {"discarded": gone} | ({"ids": list(named)} if len(named) <= NAMED_AT_MOST else {})
        audit.record(session, AuditEntry(actor, "dead-letters discard", which.name, reason, which.words(), after))
    return gone
