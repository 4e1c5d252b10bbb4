"""Dead letters: kept in SQL until a person or a rule redrives or discards them (R17, R18)."""

import json
import math
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, exists, func, select, tuple_, update
from sqlalchemy.orm import Session, aliased, defer

from conventions.core.error_text import FailureText, clean, cut
from conventions.core.errors import SelectionChanged
from conventions.dead_letters.filter import Filter
from conventions.records import audit, executions
from conventions.records.audit_entry import AuditEntry
from conventions.records.journal import JournalEntry
from conventions.storage.database import insert_into, utc_now
from conventions.storage.tables import DeadLetterRow, ExecutionRow

type Position = tuple[datetime, str]  # the time of the last failure, and the id

LARGE = (DeadLetterRow.message, DeadLetterRow.arguments, DeadLetterRow.headers, DeadLetterRow.traceback)
NAMED_AT_MOST = 1000  # ids in one row of the audit
PAGE = 500  # letters in memory at the same time
UNDER_WAY = ("dead", "redriving")  # also "dead": its sender may have died before it changed the state
ENDINGS = ("succeeded", "duplicate", "cancelled", "revoked", "expired")
TAKEN = "taken"  # the answer of a letter that a redrive run has taken, but not sent yet
GONE = ("purged", "lost")  # the message vanished without an outcome: a resent letter is then dead again
STATES = ("dead", "redriving", "redriven", "discarded")
FAILED = ("retried", "dead")
SUPERSEDED = "superseded"  # an outdated copy; or a job that has called `self.replace`
UNTOLD = (SUPERSEDED,)
HISTORY_FIELDS = (
    "generation",
    "attempt",
    "kind",
    "error",
    "error_message",
    "traceback",
    "ended_at",
    "worker",
    "runtime",
)

_NO_FAILURE = FailureText("Unknown", "", "", "")


def record(session: Session, entries: Sequence[JournalEntry]) -> None:
    """Store the letters of newly recorded events. A message that dies again updates its letter.

    An event of an earlier redrive, attempt or claim than the stored one does not change the letter. Only the time of
    the first failure may move back: it is the first failed attempt among the executions that are kept.
    """
    if not entries:
        return
    first = _first_failures(session, entries)
    insert = insert_into(session, DeadLetterRow)
    new, row = insert.excluded, DeadLetterRow
    later = tuple_(new.generation, new.attempts, new.fence, new.last_failed_at) >= tuple_(
        row.generation, row.attempts, row.fence, row.last_failed_at
    )
    # Sorted, so that two recorders of the same letters cannot deadlock.
    values = sorted((_values(entry, first) for entry in entries), key=lambda one: str(one["id"]))
    changes = {name: new[name] for name in values[0] if name not in ("id", "first_failed_at")}
    connection = session.connection()  # without the ORM, which would send one statement; a row may occur twice
    connection.execute(insert.on_conflict_do_update(index_elements=["id"], set_=changes, where=later), values)
    earlier = update(row).where(row.id == bindparam("letter"), row.first_failed_at > bindparam("first"))
    times = [{"letter": one["id"], "first": one["first_failed_at"]} for one in values]
    connection.execute(earlier.values(first_failed_at=bindparam("first")), times)


def antedate(session: Session, entries: Sequence[JournalEntry]) -> None:
    """Use failures that were read after their message died: the letter's first failure may be earlier."""
    retried = [entry for entry in entries if entry.event.kind == "retried"]
    first = _first_failures(session, retried)
    if not first:
        return
    row = DeadLetterRow
    letters = session.execute(select(row.id, row.first_failed_at).where(row.id.in_(first))).all()
    for id_ in sorted(id_ for id_, at in letters if first[id_] < at):
        session.connection().execute(update(row).where(row.id == id_).values(first_failed_at=first[id_]))


def _first_failures(session: Session, entries: Sequence[JournalEntry]) -> dict[str, datetime]:
    ids = {cut(entry.event.message_id) for entry in entries}
    if not ids:
        return {}
    row = ExecutionRow
    query = select(row.message_id, func.min(row.ended_at)).where(row.message_id.in_(ids), row.kind.in_(FAILED))
    return dict(session.execute(query.group_by(row.message_id)).all())


def _values(entry: JournalEntry, first: Mapping[str, datetime]) -> dict[str, Any]:
    event, failure = entry.event, entry.event.failure or _NO_FAILURE
    id_ = cut(event.message_id)
    return {
        "id": id_,
        "task": None if event.task is None else cut(event.task),
        "queue": None if event.queue is None else cut(event.queue),
        "error": cut(failure.error),
        "error_message": clean(failure.error_message),
        "traceback": clean(failure.traceback),
        "fingerprint": clean(failure.fingerprint)[:64],
        "attempts": event.attempt,
        "actor": cut(event.actor),
        "state": "dead",
        "arguments": _finite(event.arguments or {}),
        "headers": _finite(event.headers or {}),
        "message": _envelope(entry),
        "generation": event.generation,
        "fence": entry.fence,
        "first_failed_at": min(first.get(id_, entry.at), entry.at),
        "last_failed_at": entry.at,
        "answer": "dead",
        "answered_at": None,  # for a resent letter `note_answers` sets the time of its first failure
    }


def _envelope(entry: JournalEntry) -> str | None:
    """The message as JSON text. Bytes that are not JSON are kept as `{"base64": …}`."""
    if entry.message is None:
        return None if entry.event.message is None else json.dumps(entry.event.message)
    try:
        text = entry.message.decode()
        json.loads(text)
    except (ValueError, RecursionError):
        return json.dumps({"base64": b64encode(entry.message).decode()})
    return text


def _finite(value: Any) -> Any:
    """JSON that every database can store: Python reads NaN and Infinity, PostgreSQL does not."""
    match value:
        case float() if not math.isfinite(value):
            return str(value)
        case dict():
            return {name: _finite(one) for name, one in value.items()}
        case list():
            return [_finite(one) for one in value]
        case _:
            return value


def listing(
    session: Session, which: Filter, limit: int, after: Position | None = None, *, brief: bool = False
) -> Sequence[DeadLetterRow]:
    """The matching letters, newest failure first.

    Args:
        which: the filter.
        limit: the largest number of letters.
        after: `position` of the last letter on the previous page; `None`: start at the first.
        brief: leave out the large columns: message, arguments, headers and traceback.
    """
    row = DeadLetterRow
    query = select(row).where(*which.conditions(utc_now())).order_by(row.last_failed_at.desc(), row.id.desc())
    if after is not None:
        query = query.where(tuple_(row.last_failed_at, row.id) < after)
    if brief:
        query = query.options(*(defer(column, raiseload=True) for column in LARGE))
    return session.scalars(query.limit(limit)).all()


def position(letter: DeadLetterRow) -> Position:
    """The place of a letter in a listing."""
    return letter.last_failed_at, letter.id


def every(session: Session, which: Filter) -> Iterator[DeadLetterRow]:
    """All matching letters, one page at a time, so memory does not grow with their number."""
    after: Position | None = None
    while page := listing(session, which, PAGE, after):
        yield from page
        after = position(page[-1])
        session.expunge_all()


def count(session: Session, which: Filter) -> int:
    """How many letters match."""
    query = select(func.count()).select_from(DeadLetterRow).where(*which.conditions(utc_now()))
    return session.scalar(query) or 0


def missing(session: Session, which: Filter) -> list[str]:
    """The ids of a selection without a letter in the selected state."""
    found = session.scalars(select(DeadLetterRow.id).where(*which.conditions(utc_now()))).all() if which.ids else ()
    return sorted(set(which.ids) - set(found))


def kinds(session: Session, which: Filter) -> list[tuple[str | None, str | None]]:
    """Every pair of task and queue among the matching letters."""
    query = select(DeadLetterRow.task, DeadLetterRow.queue).where(*which.conditions(utc_now())).distinct()
    return [(task, queue) for task, queue in session.execute(query)]


def get(session: Session, id: str) -> DeadLetterRow | None:  # noqa: A002  # the word of the glossary
    """One letter by its message id."""
    return session.get(DeadLetterRow, id)


def message(letter: DeadLetterRow) -> Any:
    """The letter's message as it was in the broker (body, headers, properties). `None` if it is unknown."""
    return None if letter.message is None else json.loads(letter.message)


def history(session: Session, id: str) -> list[dict[str, Any]]:  # noqa: A002
    """The attempts at a message in order, through all redrives to its end, as far as executions are kept."""
    rows = [row for row in executions.of_message(session, id) if row.kind not in UNTOLD]
    return [{name: getattr(row, name) for name in HISTORY_FIELDS} for row in rows]


def move(session: Session, id: str, before: Sequence[str], after: str) -> bool:  # noqa: A002
    """Change the state of a letter if it is in one of `before`. False if somebody else changed it first."""
    row = session.get(DeadLetterRow, id, with_for_update=True)
    if row is None or row.state not in before:
        return False
    row.state = after
    return True


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
    conditions = replace(which, state="dead").conditions(utc_now())
    named = session.scalars(select(DeadLetterRow.id).where(*conditions).limit(NAMED_AT_MOST + 1)).all()
    gone = session.connection().execute(update(DeadLetterRow).where(*conditions).values(state="discarded")).rowcount
    check_agreed(expected, gone)
    if gone:
        after = {"discarded": gone} | ({"ids": list(named)} if len(named) <= NAMED_AT_MOST else {})
        audit.record(session, AuditEntry(actor, "dead-letters discard", which.name, reason, which.words(), after))
    return gone


def check_agreed(expected: int | None, found: int) -> None:
    """Refuse to act on other letters than somebody confirmed. Raises: SelectionChanged; the transaction must end."""
    if expected is not None and found != expected:
        raise SelectionChanged(
            f"there are {found:,} dead letters now, and were {expected:,} when you agreed; nothing was done"
        )


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
