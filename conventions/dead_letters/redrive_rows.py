r"""Redrive runs: many dead letters sent again, a few first, then at a rate, with a safety stop (R18).

A redrive is one row in SQL. Starting it writes the row. The leading recorder carries it out in short steps
(`dead_letters/redrive_sender.py`), by the rules of `dead_letters/redrive_pace_and_stop.py`. No process is blocked while it waits:

    waiting -> canary -> sending -> finished
                  \________\____-> stopped (too many failed again), cancelled (by a person)

A step first commits which letters it takes, then sends them. So after a kill the next recorder knows which letters may be on
their way. The recorder writes the answers of the letters beside them (`resent_letters.note_answers`).
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from conventions.core.error_text import clean, cut
from conventions.core.priority import Priority
from conventions.dead_letters.filter import BOUNDS, Filter, check_agreed
from conventions.dead_letters.redrive_pace_and_stop import (
    CANARY,
    OPEN,
    RATE,
    STOP_AT,
    Plan,
    Recent,
    Tally,
    paced,
    recent_size,
)
from conventions.dead_letters.redrive_selection import REDRIVE_LIMIT, left_by, selected, stated
from conventions.dead_letters.resent_letters import GONE, SUPERSEDED, TAKEN
from conventions.records import audit
from conventions.records.audit_entry import AuditEntry
from conventions.storage.database import begins, utc_now
from conventions.storage.tables import AuditRow, DeadLetterRow, ExecutionRow, RedriveRow

LEFT = "left"  # the answer of a letter that could not be sent
FAILING = ("retried", "dead", LEFT)  # answers
STOPPED_BY_OTHERS = ("cancelled", "revoked", "expired", SUPERSEDED, *GONE)
RATES = (0.1, 10_000.0)  # the bounds of a rate
STOP = "dead-letters stop"  # the audit's name
CANARY_AT_MOST = 1_000_000


@dataclass(frozen=True, slots=True)
class RedriveOrder:
    """How to redrive.

    Attributes:
        which: the letters. To send letters of another state than `dead`, the filter must name the state: discarded
            ones, or ones whose message was lost after they were sent.
        canary: how many letters to try first; 0: none.
        rate: letters a second, after the canary.
        stop_at: percent. The redrive stops when more of the answered letters failed again. 100: it never stops, and
            after the canary it does not wait for answers.
        again: also send letters that were already redriven three times.
        expected: the number of letters that somebody confirmed; `None`: any number.
        priority: of their messages; `None`: that of each, as it was sent.

    Raises:
        ValueError: a number is out of its bounds.
    """

    which: Filter
    actor: str
    reason: str | None = None
    canary: int = CANARY
    rate: float = RATE
    stop_at: float = STOP_AT
    again: bool = False
    expected: int | None = None
    priority: Priority | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.canary <= CANARY_AT_MOST:
            raise ValueError(
                f"canary is {self.canary}; it is a number of letters up to {CANARY_AT_MOST:,}, or 0 for none"
            )
        lowest, highest = RATES
        if not lowest <= self.rate <= highest:
            raise ValueError(f"rate is {self.rate:g}; it is letters a second, from {lowest:g} to {highest:,.0f}")
        if not 0 <= self.stop_at <= 100:
            raise ValueError(f"stop_at is {self.stop_at:g}; it is a percentage, from 0 to 100")


def start(session: Session, wanted: RedriveOrder) -> RedriveRow:
    """Write the row of a redrive. Nothing is sent yet.

    Raises:
        SelectionChanged: there are more or fewer letters than expected; the transaction must end.
    """
    now = utc_now()
    which = stated(session, wanted.which)
    row = RedriveRow(
        id=str(uuid4()), state="waiting", actor=cut(wanted.actor), reason=wanted.reason, selection=which.words(),
        canary=wanted.canary, rate=wanted.rate, stop_at=wanted.stop_at, again=wanted.again, total=0, priority=wanted.priority and wanted.priority.name,
        sent=0, succeeded=0, failed=0, sent_again=0, note="", fault=None, left_error=None, last_error=None, paced_at=None,
        created_at=now, updated_at=now, ended_at=None,
    )  # fmt: skip
    row.total = session.scalar(select(func.count()).select_from(DeadLetterRow).where(*left_by(session, row))) or 0
    check_agreed(which, wanted.expected, row.total)
    session.add(row)
    how: dict[str, Any] = {
        "canary": row.canary,
        "rate": row.rate,
        "stop_at": row.stop_at,
        "again": row.again,
        "total": row.total,
    }
    if row.priority is not None:
        how["priority"] = row.priority
    audit.record(session, AuditEntry(row.actor, "dead-letters redrive", row.id, row.reason, which.words(), how))
    return row


def under_way(session: Session, which: Filter) -> RedriveRow | None:
    """The open redrive of the same selection, whenever it was counted: for example after a second click."""
    words = stated(session, which).open.words()
    open_ones = session.scalars(select(RedriveRow).where(RedriveRow.state.in_(OPEN)))
    return next((one for one in open_ones if _open_words(one.selection) == words), None)


def _open_words(selection: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in selection.items() if name not in BOUNDS}


def priority_of(redrive: RedriveRow) -> Priority | None:
    """How urgent its messages are; `None`: as each was sent."""
    return None if redrive.priority is None else Priority[redrive.priority]


def state_sent(redrive: RedriveRow) -> str:
    """The state of the letters that a redrive sends."""
    return Filter.of(redrive.selection).state or "dead"


def held_back(session: Session, which: Filter) -> int:
    """How many letters were redriven so often that they need `again`."""
    query = select(func.count()).select_from(DeadLetterRow)
    return session.scalar(query.where(*selected(session, which), DeadLetterRow.generation >= REDRIVE_LIMIT)) or 0


def get(session: Session, id: str) -> RedriveRow | None:  # noqa: A002  # the word of the glossary
    """One redrive."""
    return session.get(RedriveRow, id)


def ids_that_begin(session: Session, text: str, most: int) -> Sequence[str]:
    """The ids of redrives that begin so."""
    return session.scalars(
        select(RedriveRow.id).where(begins(RedriveRow.id, text)).order_by(RedriveRow.id).limit(most)
    ).all()


def listing(session: Session, limit: int) -> Sequence[RedriveRow]:
    """The last redrives, the newest first."""
    return session.scalars(select(RedriveRow).order_by(RedriveRow.created_at.desc()).limit(limit)).all()


def open_ones(session: Session) -> Sequence[str]:
    """The ids of the open redrives, the least recently changed one first."""
    return session.scalars(
        select(RedriveRow.id).where(RedriveRow.state.in_(OPEN)).order_by(RedriveRow.updated_at, RedriveRow.id)
    ).all()


def lock(session: Session, id: str) -> RedriveRow | None:  # noqa: A002  # the word of the glossary
    """The row of an open redrive, locked until the transaction ends.

    `None` if it is not open, or if another recorder has the lock: two may believe that they lead. On SQLite the
    transaction itself excludes all others.
    """
    query = select(RedriveRow).where(RedriveRow.id == id, RedriveRow.state.in_(OPEN))
    return session.scalars(query.with_for_update(skip_locked=True)).one_or_none()


def has_left(session: Session, redrive: RedriveRow) -> bool:
    """Whether there are letters that this redrive has neither taken nor sent."""
    return session.scalar(select(DeadLetterRow.id).where(*left_by(session, redrive)).limit(1)) is not None


def left(session: Session, redrive: RedriveRow) -> int:
    """How many letters this redrive has neither taken nor sent, and could send still. Raises: SelectionUnknown."""
    return session.scalar(select(func.count()).select_from(DeadLetterRow).where(*left_by(session, redrive))) or 0


def take(session: Session, redrive: RedriveRow, limit: int) -> int:
    """Take letters for sending, oldest failure first. Letters that somebody else is changing now wait for a later step."""
    row, now = DeadLetterRow, utc_now()
    query = select(row.id).where(*left_by(session, redrive)).order_by(row.last_failed_at, row.id).limit(limit)
    found = session.scalars(query.with_for_update(skip_locked=True)).all()
    if not found:
        return 0
    _note_sent_again(session, found)
    taken = {"state": "redriving", "redrive_id": redrive.id, "answer": TAKEN, "answered_at": None}
    session.connection().execute(update(row).where(row.id.in_(found)).values(taken))
    redrive.paced_at = paced(redrive, len(found), now)
    return len(found)


def _note_sent_again(session: Session, letters: Sequence[str]) -> None:
    """Let earlier redrives keep count of letters that failed again in them and are taken from them now."""
    letter = DeadLetterRow
    groups = (letter.redrive_id, letter.state, letter.answer)
    query = select(*groups, func.count()).where(letter.id.in_(letters), letter.redrive_id.is_not(None))
    counts: Counter[str] = Counter()
    for id_, state, answer, count in session.execute(query.group_by(*groups)):
        if _field_of(state, answer) == "dead":
            counts[str(id_)] += count
    for id_ in sorted(counts):
        again = RedriveRow.sent_again + counts[id_]
        session.connection().execute(update(RedriveRow).where(RedriveRow.id == id_).values(sent_again=again))


def taken(session: Session, redrive: RedriveRow) -> Sequence[str]:
    """The ids of taken letters. They are not sent yet, or a kill came between the send and its note."""
    row = DeadLetterRow
    query = select(row.id).where(row.redrive_id == redrive.id, row.state == "redriving", row.answer == TAKEN)
    return session.scalars(query.order_by(row.last_failed_at, row.id)).all()


def note_sent(session: Session, redrive: RedriveRow, outcomes: dict[str, str]) -> None:
    """Note what became of taken letters. If the journal has recorded a newer answer meanwhile, that one stays.

    Args:
        session: holds the lock of the redrive.
        redrive: the redrive that took them.
        outcomes: by id: `sent`; `happened`, if the effect already exists; any other word: the letter was left.
    """
    row, now, before = DeadLetterRow, utc_now(), state_sent(redrive)
    # Skip rows that are locked elsewhere: waiting for another recorder's row could deadlock.
    query = select(row.id).where(row.id.in_(sorted(outcomes)), row.redrive_id == redrive.id, row.answer == TAKEN)
    free = session.scalars(query.with_for_update(skip_locked=True)).all()
    kinds: dict[str, dict[str, object]] = {
        "sent": {"answer": None},
        "happened": {"state": "redriven", "answer": "succeeded", "answered_at": now},
        LEFT: {"state": "dead" if before == "redriving" else before, "answer": LEFT, "answered_at": now},
    }
    for kind, values in kinds.items():
        if these := [one for one in free if (outcomes[one] if outcomes[one] in kinds else LEFT) == kind]:
            session.connection().execute(update(row).where(row.id.in_(these)).values(values))


def give_back(session: Session, redrive: RedriveRow) -> None:
    """Return taken letters that were not sent: they get their former state."""
    row = DeadLetterRow
    changed = update(row).where(row.redrive_id == redrive.id, row.state == "redriving", row.answer == TAKEN)
    session.connection().execute(changed.values(state=state_sent(redrive), redrive_id=None, answer=None))


def tally(session: Session, id: str) -> Tally:  # noqa: A002  # the word of the glossary
    """The present counts of a redrive's letters."""
    return tallies(session, [id])[id]


def tallies(session: Session, ids: Iterable[str]) -> dict[str, Tally]:
    """The present counts of several redrives' letters. One that a later redrive has sent again failed in this one."""
    letter, found = DeadLetterRow, {id_: dict.fromkeys(Tally.__slots__, 0) for id_ in ids}
    groups = (letter.redrive_id, letter.state, letter.answer)
    query = select(*groups, func.count()).where(letter.redrive_id.in_(list(found))).group_by(*groups)
    for id_, state, answer, count in session.execute(query):
        found[str(id_)][_field_of(state, answer)] += count
    for id_, again in session.execute(
        select(RedriveRow.id, RedriveRow.sent_again).where(RedriveRow.id.in_(list(found)))
    ):
        found[id_]["dead"] += again
    return {id_: Tally(**counts) for id_, counts in found.items()}


def _field_of(state: str, answer: str | None) -> str:
    """The field of `Tally` that a letter counts in."""
    match state:
        case "redriving":
            return {TAKEN: "taken", "retried": "retrying"}.get(str(answer), "unanswered")
        case "redriven":
            return "ended" if answer in STOPPED_BY_OTHERS else "succeeded"
        case _:
            return "ended" if answer in GONE else "dead"


def recent(session: Session, redrive: RedriveRow) -> Recent:
    """The counts of the most recently answered letters."""
    row = DeadLetterRow
    query = select(row.state, row.answer).where(row.redrive_id == redrive.id, row.answered_at.is_not(None))
    query = query.order_by(row.answered_at.desc()).limit(recent_size(redrive.stop_at))
    found = [_field_of(state, answer) for state, answer in session.execute(query)]
    return Recent(len(found), sum(one in ("retrying", "dead") for one in found))


def last_error(session: Session, redrive: RedriveRow) -> tuple[str, str] | None:
    """Class and message of the error of the most recently answered failing letter. `NotSent`: it could not be sent.

    Where another redrive has taken that letter since, it is the error that this one ended with.
    """
    row, execution = DeadLetterRow, ExecutionRow
    query = select(row).where(row.redrive_id == redrive.id, row.answer.in_(FAILING), row.answered_at.is_not(None))
    letter = session.scalars(query.order_by(row.answered_at.desc()).limit(1)).first()
    if letter is None:
        error, _, message = (redrive.last_error or "").partition(": ")
        return (error, message) if error else None
    if letter.answer == LEFT:
        return "NotSent", redrive.left_error or ""
    if letter.answer == "dead":
        return letter.error, letter.error_message
    failed = select(execution.error, execution.error_message).where(
        execution.message_id == letter.id, execution.kind == "retried"
    )
    found = session.execute(failed.order_by(execution.generation.desc(), execution.attempt.desc()).limit(1)).first()
    return (str(found[0]), str(found[1] or "")) if found is not None else None


def move(session: Session, redrive: RedriveRow, plan: Plan, counts: Tally) -> None:
    """Change the state of a locked redrive, and write its counts."""
    now = utc_now()
    redrive.state, redrive.note, redrive.updated_at = plan.state, plan.note, now
    redrive.sent, redrive.succeeded, redrive.failed = counts.sent, counts.succeeded, counts.dead
    if plan.state not in OPEN:
        redrive.ended_at, redrive.fault = now, None
        redrive.last_error = ": ".join(last_error(session, redrive) or ()) or None
        give_back(session, redrive)


def hindered(session: Session, why: str, id: str | None = None) -> None:  # noqa: A002  # the word of the glossary
    """Note why a redrive cannot go on; without an id, on all open ones."""
    changed = update(RedriveRow).where(RedriveRow.state.in_(OPEN))
    changed = changed if id is None else changed.where(RedriveRow.id == id)
    session.connection().execute(changed.values(fault=clean(why), updated_at=utc_now()))


def cancel(session: Session, id: str, actor: str, reason: str | None = None) -> bool:  # noqa: A002
    """Send no more letters of a redrive. Sent ones go on. False if it has already ended."""
    redrive = session.get(RedriveRow, id, with_for_update=True)
    if redrive is None or redrive.state not in OPEN:
        return False
    counts = tally(session, id)
    move(session, redrive, Plan("cancelled", f"stopped by {actor}"), counts)
    audit.record(session, AuditEntry(actor, STOP, id, reason, None, {"sent": counts.sent}))
    return True


def stop_reasons(session: Session, ids: Sequence[str]) -> dict[str, str]:
    """Why people stopped these redrives, where they said so, by id."""
    row = AuditRow
    query = select(row.target, row.reason).where(row.action == STOP, row.target.in_(ids), row.reason.is_not(None))
    return {str(id_): str(reason) for id_, reason in session.execute(query)}
