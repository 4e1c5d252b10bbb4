"""When a redrive may send more, when it waits for answers, and when it stops: pure arithmetic (R18).

A letter that was sent again is *unanswered* until an outcome of it is recorded; then it is retrying, succeeded, dead, or
ended in another way. Retrying counts as failing: a job of ten attempts is dead only after minutes, and by then hundreds
more would be on their way.
"""

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # SQLAlchemy takes 0.2 s to import, and a worker imports this before it forks
    from conventions.storage.tables import RedriveRow

OPEN = ("waiting", "canary", "sending")
AT_ONCE = 100  # letters in one step
BURST = 1.0  # seconds whose letters may be sent at once after a pause
NEVER_STOPS = 100.0  # percent: more than all cannot fail
FIRST = 5  # letters that may be unanswered before anything is known
SHARE = 2  # one unanswered for so many answered,
UNANSWERED, UNANSWERED_SECONDS = 50, 2.0  # but no more than these letters, or than are sent in these seconds
RECENT, FAILURES_OF_RECENT = 50, 5  # letters answered last that are judged on their own; more where `stop_at` is small


@dataclass(frozen=True, slots=True)
class Tally:
    """How the letters of a redrive stand.

    Attributes:
        unanswered: sent, and nothing is recorded since.
        retrying: failed, and will be tried again.
        succeeded: done.
        dead: dead again, or could not be sent.
        ended: ended in another way: cancelled, revoked, expired.
        taken: chosen, and not sent yet.
    """

    unanswered: int = 0
    retrying: int = 0
    succeeded: int = 0
    dead: int = 0
    ended: int = 0
    taken: int = 0

    @property
    def answered(self) -> int:
        """How many have succeeded or failed an attempt, or ended in another way."""
        return self.retrying + self.succeeded + self.dead + self.ended

    @property
    def failing(self) -> int:
        """How many have failed an attempt, and not succeeded since."""
        return self.retrying + self.dead

    @property
    def running(self) -> int:
        """How many may still have another outcome."""
        return self.unanswered + self.retrying

    @property
    def sent(self) -> int:
        """How many were sent."""
        return self.unanswered + self.answered


@dataclass(frozen=True, slots=True)
class Recent:
    """Of the letters whose first answer came last: how many there are, and how many of those are failing."""

    answered: int = 0
    failing: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """What a redrive does next: its state, what is noted, and how many letters are taken."""

    state: str
    note: str
    take: int = 0


def in_canary(redrive: "RedriveRow", stands: Tally) -> bool:
    """Whether the first letters are still tried: the rest waits until each of them has an answer."""
    return redrive.state != "sending" and stands.answered < redrive.canary


def unanswered_limit(redrive: "RedriveRow", stands: Tally) -> int:
    """How many letters may be unanswered; what is sent after a service has died is bounded by this.

    Half as many as were answered, so that it is soon out of the way of a redrive that goes well. At the most 50, or those
    of two seconds where the rate is higher.
    """
    if in_canary(redrive, stands):
        return redrive.canary
    if redrive.stop_at >= NEVER_STOPS:
        return redrive.total
    most = max(UNANSWERED, math.ceil(redrive.rate * UNANSWERED_SECONDS))
    return max(redrive.canary, FIRST, min(stands.answered // SHARE, most))


def recent_size(stop_at: float) -> int:
    """How many of those answered last are judged on their own.

    So many that `stop_at` percent of them are five letters at least: of fewer, chance alone would decide.
    """
    return RECENT if stop_at <= 0 else max(RECENT, math.ceil(100 * FAILURES_OF_RECENT / stop_at))


def recent_share(stop_at: float) -> float:
    """The percentage of recent letters that may fail: twice `stop_at`, and at most half-way from it to all.

    Twice, since of 50 letters of which 8 % fail in the long run often more than 10 % do; a service that has died is at 100 %.
    """
    return min(2 * stop_at, (NEVER_STOPS + stop_at) / 2)


def verdict(redrive: "RedriveRow", stands: Tally, recent: Recent) -> str | None:
    """Why nothing more may be sent, or `None`.

    Of all that were answered, more than `stop_at` percent are failing: judged once as many were answered as the canary has
    letters, or as soon as so many of them fail that it cannot pass; without a canary, from the first one on. Or of those
    that were answered last, so that a thousand early successes do not hide that now everything fails.
    """
    first = max(min(redrive.canary, redrive.total), 1)
    if 100 * stands.failing / max(stands.answered, first) > redrive.stop_at:
        return f"{stands.failing} of {stands.answered} failed again; that is more than {redrive.stop_at:g} %"
    size, share = recent_size(redrive.stop_at), recent_share(redrive.stop_at)
    if recent.answered >= size and 100 * recent.failing / recent.answered > share:
        return f"{recent.failing} of the last {recent.answered} failed again; that is more than {share:g} %"
    return None


def due(redrive: "RedriveRow", now: datetime) -> int:
    """How many letters the rate allows now."""
    return int((now - _since(redrive, now)).total_seconds() * redrive.rate + 1e-6)


def paced(redrive: "RedriveRow", count: int, now: datetime) -> datetime:
    """Until when letters were sent by the rate, once so many more are."""
    return min(_since(redrive, now) + timedelta(seconds=count / redrive.rate), now)


def _since(redrive: "RedriveRow", now: datetime) -> datetime:
    longest = now - timedelta(seconds=max(BURST, 1 / redrive.rate))
    paced = redrive.paced_at
    return longest if paced is None or paced > now else max(paced, longest)  # later than now: another machine's clock


def plan(redrive: "RedriveRow", stands: Tally, recent: Recent, now: datetime, *, left: bool) -> Plan:
    """What a redrive does next.

    Args:
        redrive: its row.
        stands: how its letters stand.
        recent: how those stand that were answered last.
        now: the present.
        left: whether there are letters that were not sent.
    """
    if left:
        if reason := verdict(redrive, stands, recent):
            return Plan("stopped", f"{reason}, so the others were left")
        trying = in_canary(redrive, stands)
        room = unanswered_limit(redrive, stands) - (stands.sent if trying else stands.unanswered) - stands.taken
        paced = room if trying else min(room, due(redrive, now))
        return Plan("canary" if trying else "sending", "", max(0, min(paced, AT_ONCE - stands.taken)))
    missing = redrive.total - stands.sent
    note = f"{missing} not dead any more when it was their turn" if missing > 0 else ""
    if stands.running:
        return Plan("canary" if in_canary(redrive, stands) else "sending", note)
    if reason := verdict(redrive, stands, Recent()):
        return Plan("stopped", reason)
    return Plan("finished", note)
