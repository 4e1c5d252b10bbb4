"""What people do to a schedule: pause it, resume it, run it now (R10, R22)."""

from abc import ABC, abstractmethod
from datetime import datetime
from http import HTTPStatus
from urllib.parse import urlencode

from redis.exceptions import RedisError

from conventions.console.watching_schedules import Refused, SchedulePage
from conventions.core.errors import BrokerUnavailable
from conventions.schedules.actions import PausedAgain, ScheduleActions, StillRuns
from conventions.schedules.schedule import Schedule


class ScheduleDeed(SchedulePage, ABC):
    """Base of these: a POST that leads back to the schedule, or shows it with what is wrong."""

    deed = ""

    async def post(self, name: str) -> None:
        """Do it."""
        try:
            said = await self.in_thread(self._done, name, self.visitor.name, self.word("reason"))
        except Refused as refused:
            self.set_status(refused.status)
            await self.show_one(name, self.deed, refused)
            return
        address = f"{self.reverse_url('conventions-schedule', name)}?{urlencode({'said': said})}"
        self.redirect(address, status=HTTPStatus.SEE_OTHER)

    def _done(self, name: str, actor: str, reason: str) -> str:
        return self.act(ScheduleActions(self.capp, self.zone), self.find(name), actor, reason)

    @abstractmethod
    def act(self, actions: ScheduleActions, listed: Schedule, actor: str, reason: str) -> str:
        """Do it, and return the word for what is said of it. Raises: Refused."""


class PauseSchedule(ScheduleDeed):
    """`/schedules/<name>/pause`."""

    deed = "pause"

    def act(self, actions: ScheduleActions, listed: Schedule, actor: str, reason: str) -> str:
        """Send nothing for it; until a moment, where one is given."""
        if not reason:
            raise Refused("say why it is paused; everybody is shown the reason")
        until = self._until(self.word("until"))
        try:
            actions.pause(listed, actor, reason, until)
        except ValueError as error:
            raise Refused(str(error), field="until") from error
        except OverflowError as error:  # beyond the calendar
            raise Refused("the end of the pause is no time of this world", field="until") from error
        return "paused"

    def _until(self, text: str) -> datetime | None:
        if not text:
            return None
        try:
            until = datetime.fromisoformat(text)
        except ValueError as error:
            fault = f"the end of the pause is {text[:40]!r}, which is no time: write it like 2026-11-25 09:00"
            raise Refused(fault, field="until") from error
        return until.replace(tzinfo=self.zone) if until.tzinfo is None else until


class ResumeSchedule(ScheduleDeed):
    """`/schedules/<name>/resume`."""

    deed = "resume"

    def act(self, actions: ScheduleActions, listed: Schedule, actor: str, reason: str) -> str:
        """Lift its pause."""
        try:
            return "resumed" if actions.resume(listed, actor, reason or None) else "not-paused"
        except PausedAgain as again:
            who = f"it was paused again meanwhile, by {again.pause.actor}: {again.pause.reason}"
            raise Refused(who, HTTPStatus.CONFLICT) from again


class RunSchedule(ScheduleDeed):
    """`/schedules/<name>/run`."""

    deed = "run"

    def act(self, actions: ScheduleActions, listed: Schedule, actor: str, reason: str) -> str:
        """Send its task now; beside a run that has not ended only where that is asked for."""
        try:
            actions.run_now(listed, actor, reason or None, beside=bool(self.word("beside")))
        except StillRuns as still:
            raise Refused("an earlier run has not ended", HTTPStatus.CONFLICT, live_id=still.id) from still
        except BrokerUnavailable as error:
            raise Refused(f"the broker does not answer: {error}", HTTPStatus.SERVICE_UNAVAILABLE) from error
        except RedisError:
            raise
        except Exception as error:  # whatever a team's function of the arguments raises
            raise Refused(f"its message cannot be made: {type(error).__name__}: {error}") from error
        return "sent"
