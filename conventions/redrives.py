r"""Redrives: many dead letters sent again, a few first, then at a rate, with a safety stop (R18).

A redrive is one row in SQL. Whoever starts it writes the row; a task of the system, `redrive_task.py`, sends the letters
and may begin anew at any point, since each letter says by which redrive it was sent last:

    waiting -> canary -> sending -> finished
                  \________\____-> stopped (too many failed again), cancelled (somebody said so)
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from uuid import uuid4

from sqlalchemy import ColumnElement, func, or_, select, update
from sqlalchemy.orm import Session

from conventions import audit
from conventions.database import utc_now
from conventions.dead_letters import check_agreed
from conventions.deeds import Deed
from conventions.failures import cut
from conventions.letter_filter import Filter
from conventions.tables import DeadLetterRow, RedriveRow

OPEN = ("waiting", "canary", "sending")
CANARY = 5  # letters that are tried before the rest
RATE = 50.0  # letters a second
STOP_AT = 10.0  # percent of those that have ended
RATES = (0.1, 10_000.0)  # the bounds of a rate
CANARY_AT_MOST = 1_000_000
REDRIVE_LIMIT = 3  # redrives of one letter after which it is left alone


@dataclass(frozen=True, slots=True)
class Wanted:
    """How to redrive.

    Attributes:
        which: the letters. Those of another state than `dead` are sent when it names that state: ones that were given up,
            or whose message was lost after they were sent.
        canary: how many are tried first; 0: none.
        rate: letters a second, of the rest.
        stop_at: percent; when more of those that have ended failed again, nothing more is sent.
        again: also those that were redriven three times.
        expected: how many letters there were when somebody agreed to it; `None`: any number.

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


@dataclass(frozen=True, slots=True)
class Tally:
    """How the letters of a redrive stand. `failed`: those that are dead again, or could not be sent."""

    running: int = 0
    succeeded: int = 0
    failed: int = 0

    @property
    def sent(self) -> int:
        """How many were sent."""
        return self.running + self.succeeded + self.failed

    @property
    def ended(self) -> int:
        """How many have an outcome."""
        return self.succeeded + self.failed


def start(session: Session, wanted: Wanted) -> RedriveRow:
    """Write the row of a redrive; nothing is sent yet.

    Raises:
        SelectionChanged: there are more or fewer letters than expected; the transaction must end.
    """
    now = utc_now()
    which = _stated(wanted.which)
    row = RedriveRow(
        id=str(uuid4()), state="waiting", actor=cut(wanted.actor), reason=wanted.reason, selection=which.words(),
        canary=wanted.canary, rate=wanted.rate, stop_at=wanted.stop_at, again=wanted.again, total=0,
        sent=0, succeeded=0, failed=0, note="", created_at=now, updated_at=now, ended_at=None,
    )  # fmt: skip
    row.total = session.scalar(select(func.count()).select_from(DeadLetterRow).where(*_open(row))) or 0
    check_agreed(wanted.expected, row.total)
    session.add(row)
    how = {"canary": row.canary, "rate": row.rate, "stop_at": row.stop_at, "again": row.again, "total": row.total}
    audit.record(session, Deed(row.actor, "dead-letters redrive", row.id, row.reason, which.words(), how))
    return row


def under_way(session: Session, which: Filter) -> RedriveRow | None:
    """The redrive of this very selection that has not ended, as after a second click."""
    words = _stated(which).words()
    open_ones = session.scalars(select(RedriveRow).where(RedriveRow.state.in_(OPEN)))
    return next((one for one in open_ones if one.selection == words), None)


def _stated(which: Filter) -> Filter:
    return which if which.state else replace(which, state="dead")


def state_sent(redrive: RedriveRow) -> str:
    """The state of the letters that a redrive sends."""
    return Filter.of(redrive.selection).state or "dead"


def held_back(session: Session, which: Filter) -> int:
    """How many of the letters were redriven so often that they are sent only when somebody says `again`."""
    conditions = which.conditions(utc_now())
    query = select(func.count()).select_from(DeadLetterRow)
    return session.scalar(query.where(*conditions, DeadLetterRow.generation >= REDRIVE_LIMIT)) or 0


def get(session: Session, id: str) -> RedriveRow | None:  # noqa: A002  # the word of the glossary
    """One redrive."""
    return session.get(RedriveRow, id)


def listing(session: Session, limit: int) -> Sequence[RedriveRow]:
    """The last redrives, the newest first."""
    return session.scalars(select(RedriveRow).order_by(RedriveRow.created_at.desc()).limit(limit)).all()


def following(session: Session, redrive: RedriveRow, limit: int) -> Sequence[str]:
    """The ids of the letters to be sent next, the oldest failure first."""
    row = DeadLetterRow
    query = select(row.id).where(*_open(redrive)).order_by(row.last_failed_at, row.id).limit(limit)
    return session.scalars(query).all()


def _open(redrive: RedriveRow) -> list[ColumnElement[bool]]:
    """Letters of the selection that this redrive has not sent; those that died since it began are none of it."""
    row = DeadLetterRow
    not_sent = or_(row.redrive_id.is_(None), row.redrive_id != redrive.id)
    found = [*Filter.of(redrive.selection).conditions(redrive.created_at), row.last_failed_at <= redrive.created_at]
    return [*found, not_sent] if redrive.again else [*found, not_sent, row.generation < REDRIVE_LIMIT]


def tally(session: Session, id: str) -> Tally:  # noqa: A002  # the word of the glossary
    """How the letters of a redrive stand now."""
    letter = DeadLetterRow
    query = select(letter.state, func.count()).where(letter.redrive_id == id).group_by(letter.state)
    found = session.execute(query)
    counts = {row[0]: row[1] for row in found}
    return Tally(
        running=counts.get("redriving", 0),
        succeeded=counts.get("redriven", 0),
        failed=counts.get("dead", 0) + counts.get("discarded", 0),
    )


def move(session: Session, id: str, after: str, stands: Tally, note: str = "") -> bool:  # noqa: A002
    """Change the state of a redrive, and note how it stands; false when it has ended before."""
    now = utc_now()
    values = {"state": after, "note": note, "updated_at": now, "ended_at": None if after in OPEN else now}
    numbers = {"sent": stands.sent, "succeeded": stands.succeeded, "failed": stands.failed}
    changed = update(RedriveRow).where(RedriveRow.id == id, RedriveRow.state.in_(OPEN)).values(values | numbers)
    return bool(session.connection().execute(changed).rowcount)


def cancel(session: Session, id: str, actor: str, reason: str | None = None) -> bool:  # noqa: A002
    """Send no more of a redrive; what was sent goes on. False when it has ended before."""
    stands = tally(session, id)
    if not move(session, id, "cancelled", stands, f"stopped by {actor}"):
        return False
    audit.record(session, Deed(actor, "dead-letters stop", id, reason, None, {"sent": stands.sent}))
    return True


def verdict(redrive: RedriveRow, stands: Tally) -> str | None:
    """Why nothing more may be sent, or `None`: more than `stop_at` percent of those that have ended failed again.

    Judged once as many have ended as the canary has letters, or as soon as so many of them failed that it cannot pass;
    without a canary, from the first one on.
    """
    first = max(min(redrive.canary, redrive.total), 1)
    share = 100 * stands.failed / max(stands.ended, first)
    if share <= redrive.stop_at:
        return None
    return f"{stands.failed} of {stands.ended} failed again; that is more than {redrive.stop_at:g} %, so the others were left"
