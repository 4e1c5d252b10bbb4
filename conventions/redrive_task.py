"""The task of the system that carries out a redrive; `redrives.py` has the rules, `redrive.py` sends one letter."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from conventions.errors import PayloadError
from conventions.job_classes import LongRunningTask
from conventions.retry import RetryPolicy

if TYPE_CHECKING:
    from conventions.redrives import Wanted

LOOK_EVERY = 0.25  # seconds between two looks at what became of the letters
AT_ONCE = 100  # letters between two looks


class SendDeadLetters(LongRunningTask):
    """Send the dead letters of one redrive again: the canary first, then the rest at its rate, unless it is stopped.

    Begun anew, as after the death of its worker, it goes on where it was: each letter says which redrive sent it.
    """

    name = "conventions.redrive"
    idempotent_on = ("redrive_id",)
    # SQL may be away for a while, and giving up half-way helps nobody.
    retry_policy: ClassVar[RetryPolicy] = RetryPolicy(attempts=20, network_attempts=20)

    def run(self, redrive_id: str) -> str:
        """Return the state in which the redrive ended."""
        return Driver(self.app, redrive_id, self.progress.advance).run()


def begin(app: Any, wanted: "Wanted") -> str:
    """Write the row of a redrive and send the task that carries it out. Returns its id.

    Where a redrive of the same selection is under way, that is the one: nothing is begun.

    Raises:
        SelectionChanged: there are more or fewer letters than expected; there is no row.
        BrokerUnavailable: nothing was sent; the row says that the redrive is cancelled.
    """
    from conventions import redrives  # noqa: PLC0415  # SQLAlchemy takes 0.6 s to import

    with app.database.session() as session:
        if (other := redrives.under_way(session, wanted.which)) is not None:
            return other.id
        id_ = redrives.start(session, wanted).id
    try:
        SendDeadLetters.apply_async(kwargs={"redrive_id": id_}, actor=wanted.actor)
    except Exception as error:
        with app.database.session() as session:
            redrives.move(session, id_, "cancelled", redrives.Tally(), str(error))
        raise
    return id_


class Driver:
    """Carries out one redrive.

    Args:
        app: the application.
        id: of the redrive.
        beat: called with how many letters were sent since the last call, a few times a second.
        sleep: waits.
    """

    def __init__(
        self,
        app: Any,
        id: str,  # noqa: A002  # the word of the glossary
        beat: Callable[[int], None],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        from conventions import redrives  # noqa: PLC0415  # SQLAlchemy takes 0.6 s to import

        self._app, self._id, self._beat, self._sleep = app, id, beat, sleep
        self._redrives = redrives

    def run(self) -> str:
        """Send what is to be sent, wait for its outcomes, and return the state in which the redrive ended."""
        while (step := self._step()) is not None:
            sent, wait = step
            self._beat(sent)
            self._sleep(wait)
        with self._app.database.session(read_only=True) as session:
            found = self._redrives.get(session, self._id)
            return found.state if found is not None else "gone"

    def _step(self) -> tuple[int, float] | None:
        """One look: send some, or end. Returns how many were sent and the seconds to wait, `None` at the end."""
        redrives = self._redrives
        with self._app.database.session() as session:
            redrive = redrives.get(session, self._id)
            if redrive is None or redrive.state not in redrives.OPEN:
                return None
            stands = redrives.tally(session, self._id)
            if reason := redrives.verdict(redrive, stands):
                redrives.move(session, self._id, "stopped", stands, reason)
                return None
            in_canary = stands.sent < redrive.canary or (redrive.state != "sending" and stands.ended < redrive.canary)
            limit = max(redrive.canary - stands.sent, 0) if in_canary else self._slice(redrive.rate)
            before = redrives.state_sent(redrive)
            letters = list(redrives.following(session, redrive, limit)) if limit else []
            nothing_left = not letters and (not in_canary or not redrives.following(session, redrive, 1))
            state = "finished" if nothing_left and not stands.running else "canary" if in_canary else "sending"
            missing = redrive.total - stands.sent if nothing_left else 0
            note = f"{missing} not dead any more when it was their turn" if missing else ""
            redrives.move(session, self._id, state, stands, note)
            pause = LOOK_EVERY if in_canary or not letters else len(letters) / redrive.rate
        if state == "finished":
            return None
        for letter in letters:
            self._send(letter, before)
        return len(letters), pause

    @staticmethod
    def _slice(rate: float) -> int:
        return max(1, min(round(rate * LOOK_EVERY), AT_ONCE))

    def _send(self, letter: str, before: str) -> None:
        from conventions.redrive import leave, send_again  # noqa: PLC0415  # the same

        try:
            if send_again(self._app, letter, self._id, before) == "unknown task":
                leave(self._app, letter, self._id, before)
        except PayloadError:  # its arguments do not fit any more: it stays dead, and counts as failed
            leave(self._app, letter, self._id, before)
