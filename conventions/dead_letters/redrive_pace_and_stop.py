"""When a redrive may send more, when it waits for answers, and when it stops. Pure arithmetic (R18).

A resent letter is *unanswered* until the journal records an outcome. Then it is retrying, succeeded, dead, or ended in
another way. Retrying counts as failing: a job with ten attempts is dead only after minutes, and by then hundreds more
letters would be on their way.
"""

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # SQLAlchemy takes 0.2 s to import, and a worker imports this before it forks
    from conventions.storage.tables import RedriveRow

OPEN = ("waiting", "canary", "sending")
CANARY = 5  # letters that are sent before the rest, unless a redrive says otherwise
RATE = 50.0  # letters a second, unless a redrive says otherwise
AT_ONCE = 100  # letters in one step
BURST = 1.0  # after a pause, the letters of this many seconds may be sent at once
STOP_AT = 10.0  # percent of the answered letters that may fail, unless a redrive says otherwise
NEVER_STOPS = 100.0  # percent: no more than all can fail
FIRST = 5  # letters that may be unanswered before the first answers
SHARE = 2  # one unanswered letter is allowed for this many answered ones,
UNANSWERED, UNANSWERED_SECONDS = 50, 2.0  # but at most this number, or the letters of this many seconds
RECENT, FAILURES_OF_RECENT = 50, 5  # the most recent answers are also judged alone; more of them if `stop_at` is small


@dataclass(frozen=True, slots=True)
class Tally:
    """The counts of a redrive's letters.

    Attributes:
        unanswered: sent, with nothing recorded since.
        retrying: failed, and will be retried.
        succeeded: done.
        dead: dead again, or could not be sent.
        ended: ended in another way: cancelled, revoked, expired.
        taken: taken, but not sent yet.
    """

    unanswered: int = 0
    retrying: int = 0
    succeeded: int = 0
    dead: int = 0
    ended: int = 0
    taken: int = 0

    @property
    def answered(self) -> int:
        """How many have succeeded, have failed an attempt, or ended in another way."""
        return self.retrying + self.succeeded + self.dead + self.ended

    @property
    def failing(self) -> int:
        """How many have failed an attempt and have not succeeded since."""
        return self.retrying + self.dead

    @property
    def running(self) -> int:
        """How many may still get another outcome."""
        return self.unanswered + self.retrying

    @property
    def sent(self) -> int:
        """How many were sent."""
        return self.unanswered + self.answered


@dataclass(frozen=True, slots=True)
class Recent:
    """The most recently answered letters: how many there are, and how many of them are failing."""

    answered: int = 0
    failing: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """The next step of a redrive: its state, its note, and how many letters to take."""

    state: str
    note: str
    take: int = 0


def in_canary(redrive: "RedriveRow", counts: Tally) -> bool:
    """Whether the canary is still under way. The rest waits until each of its letters has an answer."""
    return redrive.state != "sending" and counts.answered < redrive.canary


def unanswered_limit(redrive: "RedriveRow", counts: Tally) -> int:
    """How many letters may be unanswered. If a service dies, no more than these are sent to it.

    The limit is half of the answered letters, so it does not slow down a redrive that goes well. It is at most 50, or
    the letters of two seconds if the rate is higher.
    """
    if in_canary(redrive, counts):
        return redrive.canary
    if redrive.stop_at >= NEVER_STOPS:
        return redrive.total
    most = max(UNANSWERED, math.ceil(redrive.rate * UNANSWERED_SECONDS))
    return max(redrive.canary, FIRST, min(counts.answered // SHARE, most))


def recent_size(stop_at: float) -> int:
    """How many of the most recent answers are judged alone.

    `stop_at` percent of them must be at least five letters. With fewer, chance alone would decide.
    """
    return RECENT if stop_at <= 0 else max(RECENT, math.ceil(100 * FAILURES_OF_RECENT / stop_at))


def recent_share(stop_at: float) -> float:
    """The percentage of recent letters that may fail: twice `stop_at`, and at most half-way from `stop_at` to 100.

    It is twice, since 50 letters with a long-term failure rate of 8 % often show more than 10 %. A dead service shows
    100 %.
    """
    return min(2 * stop_at, (NEVER_STOPS + stop_at) / 2)


def verdict(redrive: "RedriveRow", counts: Tally, recent: Recent) -> str | None:
    """Why nothing more may be sent, or `None`.

    There are two rules. First: more than `stop_at` percent of all answered letters are failing. This is judged once as
    many letters have an answer as the canary has, or as soon as too many have failed; without a canary from the first
    answer on. Second: too many of the most recent answers are failing, so a thousand early successes do not hide a
    service that fails now.
    """
    first = max(min(redrive.canary, redrive.total), 1)
    if 100 * counts.failing / max(counts.answered, first) > redrive.stop_at:
        return f"{counts.failing} of {counts.answered} failed again; that is more than {redrive.stop_at:g} %"
    size, share = recent_size(redrive.stop_at), recent_share(redrive.stop_at)
    if recent.answered >= size and 100 * recent.failing / recent.answered > share:
        return f"{recent.failing} of the last {recent.answered} failed again; that is more than {share:g} %"
    return None


def due(redrive: "RedriveRow", now: datetime) -> int:
    """How many letters the rate allows now."""
    return int((now - _since(redrive, now)).total_seconds() * redrive.rate + 1e-6)


def paced(redrive: "RedriveRow", count: int, now: datetime) -> datetime:
    """The time up to which the rate is used after `count` more letters."""
    return min(_since(redrive, now) + timedelta(seconds=count / redrive.rate), now)


def _since(redrive: "RedriveRow", now: datetime) -> datetime:
    longest = now - timedelta(seconds=max(BURST, 1 / redrive.rate))
    paced = redrive.paced_at
    return (
        longest if paced is None or paced > now else max(paced, longest)
    )  # a time after `now` comes from another machine's clock


def plan(redrive: "RedriveRow", counts: Tally, recent: Recent, now: datetime, *, left: bool) -> Plan:
    """The next step of a redrive.

    Args:
        redrive: its row.
        counts: the counts of its letters.
        recent: the counts of the most recent answers.
        now: the current time.
        left: whether there are unsent letters.
    """
    if left:
        if reason := verdict(redrive, counts, recent):
            return Plan("stopped", f"{reason}, so the others were left")
        trying = in_canary(redrive, counts)
        room = unanswered_limit(redrive, counts) - (counts.sent if trying else counts.unanswered) - counts.taken
        paced = room if trying else min(room, due(redrive, now))
        return Plan("canary" if trying else "sending", "", max(0, min(paced, AT_ONCE - counts.taken)))
    missing = redrive.total - counts.sent
    note = f"{missing} not dead any more when it was their turn" if missing > 0 else ""
    if counts.running:
        return Plan("canary" if in_canary(redrive, counts) else "sending", note)
    if reason := verdict(redrive, counts, Recent()):
        return Plan("stopped", reason)
    return Plan("finished", note)
