"""A job whose actor had no permission is in the audit, beside its dead letter (R20, R22)."""

import json
from collections.abc import Iterable
from datetime import datetime
from uuid import UUID, uuid5

from conventions.records.audit_entry import AuditEntry
from conventions.records.journal import JournalEntry

ACTION = "permission denied"

_NAMESPACE = UUID("7c1f2a5e-8f0a-5a3b-9a53-2f6f0f1f1a77")  # a change would record old denials a second time


def denials(entries: Iterable[JournalEntry]) -> list[tuple[AuditEntry, datetime]]:
    """The rows of jobs that died for want of a permission, each with the time of its death.

    A row is in the name of who lacks the permission. An event that is read twice has the same row, and so has a death that is told twice, as where
    its message came again. An attempt whose outcome was refused, since another one ran or will run, has none.
    """
    return [
        (
            AuditEntry(
                event.denied,
                ACTION,
                event.message_id,
                event.failure.error_message,
                after={
                    "task": event.task,
                    "actor": event.actor,
                    "generation": event.generation,
                    "attempt": event.attempt,
                },
                id=str(uuid5(_NAMESPACE, json.dumps([event.message_id, event.generation, event.denied]))),
            ),
            entry.at,
        )
        for entry in entries
        if (event := entry.event).denied is not None and event.failure is not None and event.kind == "dead"
    ]
