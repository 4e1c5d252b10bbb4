"""What the recorder writes to SQL of a part of the journal: executions, letters, the answers of redrives, and actions, in one transaction."""

from collections.abc import Sequence

from conventions.core.audit_keys import AuditKeys
from conventions.core.errors import ConfigurationError
from conventions.dead_letters import record_letters, resent_letters
from conventions.proof.chain import Chain
from conventions.proof.proven_tables import ACTIONS, EXECUTIONS
from conventions.proof.waiting_rows import COUNTED
from conventions.records import audit, counted_actions, executions, journal_position
from conventions.records.denials import denials
from conventions.records.executions import RepeatedRows
from conventions.records.journal import AuditJournalEntry, JournalEntry
from conventions.storage.database import Database


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
        new = executions.record(session, entries, of_executions, look=look)
        dead = {entry.event.id: entry for entry in reversed(entries) if entry.event.kind == "dead"}
        record_letters.record(session, [entry for id_, entry in dead.items() if id_ in new])
        fresh = [entry for entry in entries if entry.event.id in new] if new else []
        record_letters.antedate(session, fresh)
        resent_letters.note_answers(session, fresh)
        audit.record_once(session, [one for one in told if one[0].action not in COUNTED], of_actions)
        counted = [one for one in told if one[0].action in COUNTED] + denials(session, fresh)
        counted_actions.count(session, counted, of_actions)
        return journal_position.count(session, prefix)
