"""Groups of dead letters with one cause: how many there are, and the notes of people (R18)."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import BigInteger, ColumnElement, cast, extract, func, select
from sqlalchemy.orm import Session

from conventions.core.errors import LetterNotEditable
from conventions.core.failure_fingerprint import place_in
from conventions.dead_letters.filter import Filter
from conventions.dead_letters.redrive_selection import selected
from conventions.records import audit
from conventions.records.audit_entry import AuditEntry
from conventions.storage.database import begins, utc_now
from conventions.storage.tables import DeadLetterRow, ExecutionRow, GroupNoteRow

NOTE_LENGTH = 10_000  # characters
SAMPLE = 100  # letters of a group whose releases are looked up, the newest: a group may have a million
FEW_RELEASES = 5  # of a group, those of most letters
SPARKS, SPARK = 24, timedelta(hours=1)  # a sparkline: its number of bars, and the time span of each


@dataclass(frozen=True, slots=True)
class LetterGroup:
    """Dead letters of one cause.

    Attributes:
        example: id of the last letter.
        place: the failing line.
        note: a person's note.
        releases: of the newest `SAMPLE` letters, how many died by which release, the most first; those alone whose
            execution is kept and knows its release.
    """

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
    releases: Mapping[str, int] = field(default_factory=dict)


def groups(session: Session, which: Filter, limit: int) -> list[LetterGroup]:
    """The matching letters, grouped by cause, the largest group first."""
    row, conditions = DeadLetterRow, selected(session, which)
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
        deaths = _newest(session, [*conditions, row.fingerprint == fingerprint])
        if not deaths:  # all of them were redriven since the count
            continue
        example = next(iter(deaths))
        whole = select(row.task, row.error, row.error_message, row.traceback).where(row.id == example)
        if (one := session.execute(whole).one_or_none()) is None:  # it was deleted since
            continue
        task, error, text, trace = one
        result.append(
            LetterGroup(
                fingerprint, task, error, text, count, first, last, example, place_in(trace), notes.get(fingerprint, ""),
                _releases(session, deaths),
            )
        )  # fmt: skip
    return result


def releases(session: Session, which: Filter) -> dict[str, int]:
    """How many of the newest `SAMPLE` letters that match died by which release, as far as that is kept; the most first."""
    return _releases(session, _newest(session, selected(session, which)))


def _newest(session: Session, conditions: Sequence[ColumnElement[bool]]) -> dict[str, int]:
    """The ids of the newest letters, each with the generation that died last; the newest first."""
    row = DeadLetterRow
    query = select(row.id, row.generation).where(*conditions).order_by(row.last_failed_at.desc()).limit(SAMPLE)
    return dict(session.execute(query).all())


def _releases(session: Session, deaths: Mapping[str, int]) -> dict[str, int]:
    """How many of these letters died by which release. The ids are named, so that SQL reads the index of executions.

    Args:
        session: of SQL.
        deaths: the ids of the letters, each with the generation that died last.
    """
    row = ExecutionRow
    query = select(row.message_id, row.generation, row.release).where(row.message_id.in_(deaths), row.kind == "dead")
    found = {
        id_: release
        for id_, generation, release in session.execute(query.order_by(row.ended_at))
        if release and generation == deaths[id_]
    }
    return dict(sorted(Counter(found.values()).items(), key=lambda one: (-one[1], one[0]))[:FEW_RELEASES])


def sparklines(session: Session, which: Filter, fingerprints: Sequence[str], now: datetime) -> dict[str, list[int]]:
    """For each group the number of last failures in each of the last 24 hours, oldest hour first."""
    row = DeadLetterRow
    begin = now - SPARKS * SPARK
    bar = cast((cast(extract("epoch", row.last_failed_at), BigInteger) - int(begin.timestamp())), BigInteger) // int(
        SPARK.total_seconds()
    )
    query = (
        select(row.fingerprint, bar.label("bar"), func.count())
        .where(*selected(session, which, now), row.fingerprint.in_(fingerprints), row.last_failed_at >= begin)
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
