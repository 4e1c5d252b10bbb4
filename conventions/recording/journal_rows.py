"""What the recorder writes to SQL of a part of the journal: executions, letters, the answers of redrives, and actions, in one transaction."""

import logging
from collections.abc import Sequence
from datetime import datetime

from conventions.core.audit_keys import AuditKeys
from conventions.core.errors import ConfigurationError
from conventions.dead_letters import record_letters, resent_letters
from conventions.proof.chain import LATEST, Chain
from conventions.proof.proven_tables import ACTIONS, EXECUTIONS
from conventions.proof.waiting_rows import COUNTED
from conventions.records import audit, counted_actions, executions, journal_position
from conventions.records.audit_entry import MOMENT, AuditEntry
from conventions.records.denials import denials
from conventions.records.executions import RepeatedRows
from conventions.records.journal import AuditJournalEntry, JournalEntry
from conventions.storage.database import Database

logger = logging.getLogger(__name__)


def write_rows(
    database: Database, found: Sequence[JournalEntry | AuditJournalEntry], prefix: str, keys: AuditKeys | None
) -> int:
    """Write entries, each once, and return how many parts of the journal SQL has now.

    Args:
        database: the records.
        found: a part of the journal.
        prefix: of the application.
        keys: seal the rows; without them the rows wait.

    Raises:
        SQLAlchemyError: nothing is written.
    """
    try:
        return _write(database, found, prefix, keys, look=False)
    except RepeatedRows:  # a recorder died before it removed them from the journal
        return _write(database, found, prefix, keys, look=True)
    except ConfigurationError:  # the chain has another key: the rows wait, and `AuditSealer` says why
        return _write(database, found, prefix, None, look=False)


def _write(
    database: Database,
    found: Sequence[JournalEntry | AuditJournalEntry],
    prefix: str,
    keys: AuditKeys | None,
    *,
    look: bool,
) -> int:
    entries = [entry for entry in found if isinstance(entry, JournalEntry)]
    told = [(entry.audit_entry, entry.at) for entry in found if isinstance(entry, AuditJournalEntry)]
    with database.session() as session:
        # The chain of executions first: everybody who locks both does so in this order.
        of_executions = Chain(session, EXECUTIONS, keys) if keys else None
        of_actions = Chain(session, ACTIONS, keys) if keys else None
        if of_executions and of_actions and (told or any(entry.event.denied is not None for entry in entries)):
            of_executions.lock()  # both before a salt is written, which the sealer may write, too
            of_actions.lock()
        new = executions.record(session, entries, of_executions, look=look)
        dead = {entry.event.id: entry for entry in reversed(entries) if entry.event.kind == "dead"}
        record_letters.record(session, [entry for id_, entry in dead.items() if id_ in new])
        fresh = [entry for entry in entries if entry.event.id in new] if new else []
        record_letters.antedate(session, fresh)
        resent_letters.note_answers(session, fresh)
        audit.record_once(session, [one for one in told if one[0].action not in COUNTED], of_actions)
        counted = [one for one in told if one[0].action in COUNTED and not _is_copy(*one)] + denials(session, fresh)
        counted_actions.count(session, counted, of_actions)
        return journal_position.count(session, prefix)


def _is_copy(entry: AuditEntry, at: datetime) -> bool:
    """Whether somebody has put an entry into the journal again: it was told at another time."""
    told = entry.after.get(MOMENT) if isinstance(entry.after, dict) else None
    try:
        is_copy = isinstance(told, str) and abs(datetime.fromisoformat(told) - at) > LATEST
    except (TypeError, ValueError):
        is_copy = True
    if is_copy:
        logger.warning(
            "an entry %s of %s was told at another time, and is not counted: somebody has copied it",
            entry.action,
            entry.actor,
        )
    return is_copy
