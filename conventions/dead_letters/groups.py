"""Groups of dead letters with one cause: how many there are, and the notes of people (R18)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import BigInteger, cast, extract, func, select
from sqlalchemy.orm import Session

from conventions.core.errors import LetterNotEditable
from conventions.core.failure_cause import place_in
from conventions.dead_letters.filter import Filter
from conventions.records import audit
from conventions.records.audit_entry import AuditEntry
from conventions.storage.database import begins, utc_now
from conventions.storage.tables import DeadLetterRow, GroupNoteRow

NOTE_LENGTH = 10_000  # characters
SPARKS, SPARK = 24, timedelta(hours=1)  # a sparkline: its number of bars, and the time span of each


@dataclass(frozen=True, slots=True)
class LetterGroup:
    """Dead letters of one cause. `example`: id of the last letter. `place`: the failing line. `note`: a person's note."""

    fingerprint: str
    task: str | None
    error: str
    error_message: str
    count: int
    first_seen: datetime
    last_seen: datetime
    example: str
    place: str = ""
    note: str = ""


def groups(session: Session, which: Filter, limit: int) -> list[LetterGroup]:
    """The matching letters, grouped by cause, the largest group first."""
    row, conditions = DeadLetterRow, which.conditions(utc_now())
    # Counting reads the index only. The other columns are read for one letter of each group.
    counted = (
        select(row.fingerprint, func.count(), func.min(row.first_failed_at), func.max(row.last_failed_at))
        .where(*conditions)
        .group_by(row.fingerprint)
        .order_by(func.count().desc(), row.fingerprint)
        .limit(limit)
    )
    found = session.execute(counted).all()
    notes = _notes(session, [fingerprint for fingerprint, *_ in found])
    result = []
    for fingerprint, count, first, last in found:
        newest = (
            select(row.task, row.error, row.error_message, row.id, row.traceback)
            .where(*conditions, row.fingerprint == fingerprint)
            .order_by(row.last_failed_at.desc())
            .limit(1)
        )
        if (one := session.execute(newest).one_or_none()) is None:  # all of them were redriven since the count
            continue
        task, error, text, example, trace = one
        note = notes.get(fingerprint, "")
        result.append(LetterGroup(fingerprint, task, error, text, count, first, last, example, place_in(trace), note))
    return result


def sparklines(session: Session, which: Filter, fingerprints: Sequence[str], now: datetime) -> dict[str, list[int]]:
    """For each group the number of last failures in each of the last 24 hours, oldest hour first."""
    row = DeadLetterRow
    begin = now - SPARKS * SPARK
    bar = cast((cast(extract("epoch", row.last_failed_at), BigInteger) - int(begin.timestamp())), BigInteger) // int(
        SPARK.total_seconds()
    )
    query = (
        select(row.fingerprint, bar.label("bar"), func.count())
        .where(*which.conditions(now), row.fingerprint.in_(fingerprints), row.last_failed_at >= begin)
        .group_by(row.fingerprint, "bar")
    )
    lines = {fingerprint: [0] * SPARKS for fingerprint in fingerprints}
    for fingerprint, index, count in session.execute(query):
        lines[fingerprint][min(max(index, 0), SPARKS - 1)] += count
    return lines


def groups_that_begin(session: Session, text: str, most: int) -> Sequence[str]:
    """The fingerprints of groups that begin so."""
    column = DeadLetterRow.fingerprint
    found = session.scalars(select(column).distinct().where(begins(column, text)).order_by(column).limit(most))
    return [one for one in found if one is not None]


def annotate(session: Session, fingerprint: str, text: str, actor: str) -> bool:
    """Write the note of a group, in place of the former one. An empty text removes it. The audit keeps all notes.

    Returns false, and writes nothing, if the group has no letter.

    Raises:
        LetterNotEditable: the note is too long.
    """
    if len(text) > NOTE_LENGTH:
        raise LetterNotEditable(
            f"a note has at most {NOTE_LENGTH:,} characters, and this one {len(text):,}: cut it, or link to a page"
        )
    if session.scalar(select(DeadLetterRow.id).where(DeadLetterRow.fingerprint == fingerprint).limit(1)) is None:
        return False
    note = session.get(GroupNoteRow, fingerprint, with_for_update=True)
    before = note.text if note else None
    if note is not None and not text:
        session.delete(note)
    elif note is not None:
        note.text, note.actor, note.written_at = text, actor, utc_now()
    elif text:
        session.add(GroupNoteRow(fingerprint=fingerprint, text=text, actor=actor, written_at=utc_now()))
    audit.record(session, AuditEntry(actor, "dead-letters note", f"group {fingerprint}", None, before, text or None))
    return True


def _notes(session: Session, fingerprints: Sequence[str]) -> Mapping[str, str]:
    found = session.scalars(select(GroupNoteRow).where(GroupNoteRow.fingerprint.in_(fingerprints)))
    return {note.fingerprint: note.text for note in found}
