"""Reveal what a sealed job holds: the audit has who did it and why before anything is shown (R21, R22)."""

from collections.abc import Iterator
from contextlib import contextmanager

from conventions.core.errors import CannotOpen
from conventions.execution.application import Application
from conventions.records.audit_entry import AuditEntry
from conventions.sealing.shown_to_people import opened

REVEAL = "reveal"


@contextmanager
def revealing(app: Application, message_id: str, actor: str, reason: str) -> Iterator[None]:
    """Within, what a job holds is open for this reader.

    Args:
        app: the application.
        message_id: of the job.
        actor: who looks.
        reason: why; the audit keeps it.

    Raises:
        CannotOpen: this process has no key. Nothing is noted.
        JournalFull, RedisError: it cannot be noted. Nothing is shown.
    """
    if app.payload_keys is None:
        raise CannotOpen("nothing sealed can be opened here: this process has no CONVENTIONS_PAYLOAD_KEYS")
    app.journal.note(AuditEntry(actor, REVEAL, message_id, reason))
    with opened():
        yield
