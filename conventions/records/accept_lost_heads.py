"""Heads of before are accepted that a chain does not have any more, since the database was restored from a copy (R22)."""

from collections.abc import Sequence

from conventions.core.audit_keys import AuditKeys
from conventions.core.entry_signatures import EntrySignatures
from conventions.core.errors import BusinessError
from conventions.proof.chain import Chain
from conventions.proof.chain_report import ChainReport
from conventions.proof.lost_heads import ACCEPT, MOST
from conventions.proof.proven_tables import ACTIONS
from conventions.proof.signed_heads import Head
from conventions.proof.verify import verify
from conventions.records import audit
from conventions.records.audit_entry import AuditEntry
from conventions.storage.database import Database, utc_now


def missed_heads(
    database: Database, keys: AuditKeys, told: Sequence[Head], believed: EntrySignatures | None = None
) -> list[ChainReport]:
    """The chains that do not have some of these heads, and are whole but for that. For the arguments see `verify`.

    Raises: BusinessError: something else is wrong, so nothing can be accepted.
    """
    missed = [report for report in verify(database, keys, told, believed) if report.missed]
    heads = [head for report in missed for head in report.missed]
    for report in verify(
        database, keys, told, believed, accepted=heads
    ):  # a head that is missed may hide what comes after it
        if report.fault is not None:
            raise BusinessError(f"{report.chain} is broken otherwise, so nothing is accepted: {report.fault.text}")
    return missed


def accept(database: Database, keys: AuditKeys, reports: Sequence[ChainReport], *, by: str, reason: str) -> int:
    """Write actions that name these heads, each with the end that its chain has now. Returns how many heads they name.

    Args:
        database: the records.
        keys: of the audit.
        reports: see `missed_heads`.
        by: who accepts.
        reason: why.

    Raises: ConfigurationError: see `Chain`; nothing was written. SQLAlchemyError: the same.
    """
    named = [(report, sorted(map(str, report.missed))) for report in reports]
    entries = [
        AuditEntry(by, ACCEPT, report.chain, reason, heads[start : start + MOST], report.head and str(report.head))
        for report, heads in named
        for start in range(0, len(heads), MOST)
    ]
    with database.session() as session:
        now = utc_now()
        audit.record_once(session, [(entry, now) for entry in entries], Chain(session, ACTIONS, keys))
    return sum(len(heads) for _, heads in named)
