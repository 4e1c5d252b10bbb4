"""What becomes of a letter that was sent again: redriven, or dead once more (R18)."""

from collections.abc import Sequence

from sqlalchemy import exists, func, select, update
from sqlalchemy.orm import Session, aliased

from conventions.core.error_text import cut
from conventions.records.journal import JournalEntry
from conventions.storage.database import utc_now
from conventions.storage.tables import DeadLetterRow, ExecutionRow

UNDER_WAY = ("dead", "redriving")  # also "dead": its sender may have died before it changed the state
ENDINGS = ("succeeded", "duplicate", "cancelled", "revoked", "expired")
TAKEN = "taken"  # the answer of a letter that a redrive run has taken, but not sent yet
GONE = ("purged", "lost")  # the message vanished without an outcome: a resent letter is then dead again
FAILED = ("retried", "dead")
SUPERSEDED = "superseded"  # an outdated copy; or a job that has called `self.replace`


def note_answers(session: Session, entries: Sequence[JournalEntry]) -> None:
    """Update resent letters from the events that were just recorded.

    A letter is redriven when its message ended well or somebody ended it. It is dead again when the message is gone.
    Else the answer says whether an attempt failed. This reads the executions, so the order in which a message's events
    arrive does not matter.
    """
    letters = _sent_again(session, entries)
    if not letters:
        return
    row, execution, gone = DeadLetterRow, ExecutionRow, aliased(ExecutionRow)
    of_sent = (execution.message_id == row.id, execution.generation > row.generation)
    of_dead = (execution.message_id == row.id, execution.generation == row.generation)
    first = select(func.min(execution.ended_at)).where(execution.kind.in_((*ENDINGS, *FAILED)))
    since_sent, until_dead = (first.where(*which).scalar_subquery() for which in (of_sent, of_dead))
    # If there are several endings, a success counts. It is the last one in the alphabet, so `max` finds it.
    ending, end = (
        select(func.max(execution.kind)).where(*of_sent, execution.kind.in_(kinds)).scalar_subquery()
        for kinds in (ENDINGS, GONE)
    )
    # A replacement has its own events and does not count as resent. If another worker took the job over, the job goes on there.
    further = exists().where(
        gone.message_id == execution.message_id, gone.generation == execution.generation,
        gone.attempt >= execution.attempt, gone.kind == "retried",
    )  # fmt: skip
    replaced = exists().where(*of_sent, execution.kind == SUPERSEDED, execution.started_at.is_not(None), ~further)
    gone_since = (gone.message_id == execution.message_id, gone.generation == execution.generation, gone.kind.in_(GONE))
    retried = exists().where(
        *of_sent, execution.kind == "retried", ~exists().where(*gone_since, gone.ended_at >= execution.ended_at)
    )
    state = func.coalesce(row.state, "")  # hides the index of states, with which SQLite would scan all dead letters
    changes = (
        (state.in_((*UNDER_WAY, "redriven")) & ending.is_not(None),
         {"state": "redriven", "answer": ending, "answered_at": since_sent}),
        (state.in_(UNDER_WAY) & retried, {"state": "redriving", "answer": "retried", "answered_at": since_sent}),
        ((state == "redriving") & replaced, {"state": "redriven", "answer": SUPERSEDED, "answered_at": utc_now()}),
        ((state == "redriving") & end.is_not(None) & ~retried, {"state": "dead", "answer": end}),
        ((state == "dead") & (row.answer == "dead") & (row.generation > 0), {"answered_at": until_dead}),
    )  # fmt: skip
    told = {cut(entry.event.message_id) for entry in entries if entry.event.kind in GONE}
    for condition, values in changes:
        these = letters & told if values.get("answer") is end else letters
        if these:
            session.connection().execute(update(row).where(row.id.in_(sorted(these)), condition).values(values))


def _sent_again(session: Session, entries: Sequence[JournalEntry]) -> set[str]:
    """The ids of resent letters among these events."""
    events = [entry.event for entry in entries if entry.event.kind in (*ENDINGS, *FAILED, *GONE, SUPERSEDED)]
    found = {cut(event.message_id) for event in events if event.generation > 0}
    # The first death of a message may be read late. One statement finds such messages.
    dead = {cut(event.message_id) for event in events if event.kind == "dead"} - found
    if dead:
        execution = ExecutionRow
        query = select(execution.message_id).where(execution.message_id.in_(sorted(dead)), execution.generation > 0)
        found.update(session.scalars(query))
    return found
