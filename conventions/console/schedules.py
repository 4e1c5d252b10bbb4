"""The pages of schedules: a list, and one schedule with its runs. A person can pause it, resume it, or run it now (R10, R22)."""

import functools
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from threading import Lock
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError
from tornado import web

from conventions.console import display, hidden_values
from conventions.console.notice import Notice, replaced_text
from conventions.console.page import Page
from conventions.console.run_line import ICONS, RunLine, run_line, slot_text
from conventions.console.schedule_rows import MOST_RECENT_RUNS, build_row, live_values_of, rules_in_words
from conventions.core.errors import BrokerUnavailable, ConfigurationError
from conventions.execution.application import Application
from conventions.pauses.pause_actions import PausedAgain
from conventions.records import audit
from conventions.schedules.beat_liveness import Beats
from conventions.schedules.run_history import RunOutcome, outcomes_of
from conventions.schedules.schedule import Schedule
from conventions.schedules.schedule_actions import JustRun, ScheduleActions, StillRuns
from conventions.schedules.schedule_module import load_schedule
from conventions.schedules.schedule_state import Run
from conventions.schedules.schedule_store import Schedules
from conventions.schedules.schedule_summary import summaries_of
from conventions.storage.tables import AuditRow

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


HISTORY, AUDIT_LIMIT = 50, 50
PAUSED = Notice("success", "The schedule is paused.")
RESUMED = Notice("success", "The schedule runs again. Slots that passed meanwhile are not sent.")
NOT_PAUSED = Notice("warning", "Nothing was changed: the schedule was not paused.")
SENT = Notice("success", "It was sent now; the history below shows what becomes of it.")
NO_SQL = "The database does not answer ({}), so nobody can tell how runs ended, or what was done."
NO_BROKER = "The broker does not answer, so nobody can tell which runs have not ended."
ONCE = "The schedule cannot be read, and Flower reads it once: mend it, and start Flower again. "

_reading = Lock()


@functools.cache
def _read(app: Application) -> tuple[tuple[Schedule, ...], ConfigurationError | None]:
    try:
        return load_schedule(app), None
    except ConfigurationError as error:  # keep it: a second import would not raise it again
        return (), error


class FormRefused(Exception):
    """A form was refused, and nothing was changed.

    Args:
        why: the reason, in words.
        status: the HTTP status of the answer.
        field: the field of the form to correct.
        live_id: the id of the run that has not ended, if that is the reason.
    """

    def __init__(
        self,
        why: str,
        status: HTTPStatus = HTTPStatus.UNPROCESSABLE_ENTITY,
        field: str = "reason",
        live_id: str = "",
    ) -> None:
        super().__init__(why)
        self.status = status
        self.field = field
        self.live_id = live_id


def last_by_hand(runs: Sequence[Run]) -> Run | None:
    """The last one that a person has sent, of those that are newest first."""
    return next((run for run in runs if run.planned_at is None and run.id), None)


class SchedulePage(Page):
    """Base of the pages of schedules."""

    tab = "conventions-schedules"
    title = "Schedules"

    @property
    def zone(self) -> ZoneInfo:
        """The time zone of the settings."""
        return ZoneInfo(self.capp.settings.timezone)

    def listed(self) -> tuple[Schedule, ...]:
        """The schedules. They are read once in this process. Raises: HTTPError, with what is wrong in the file."""
        with _reading:
            found, error = _read(self.capp)
        if error is not None:
            raise web.HTTPError(HTTPStatus.SERVICE_UNAVAILABLE, ONCE + "; ".join(error.faults))
        return found

    def find(self, name: str) -> Schedule:
        """The schedule of this name. Raises: HTTPError."""
        for one in self.listed():
            if one.name == name:
                return one
        raise web.HTTPError(HTTPStatus.NOT_FOUND, f"There is no schedule {name}.")

    def look(self, listed: Sequence[Schedule], limit: int, target: str | None = None) -> dict[str, Any]:
        """The values that the pages show.

        Args:
            listed: the schedules.
            limit: lines of history for each.
            target: also show the audit entries of this schedule.
        """
        state = Schedules(self.capp.store)
        summaries, beats = summaries_of(self.capp, listed), Beats(self.capp.store).listing()
        histories = state.histories([one.name for one in listed], limit)
        outcomes, audit_entries, notices = self._read_records(
            [run for runs in histories.values() for run in runs], target
        )
        lines = self._lines(histories, outcomes)
        rows = [
            build_row(summary, lines[summary.listed.name], sees_values=self.visitor.sees_values)
            for summary in summaries
        ]
        beat_states = [(beat.name, beat.state) for beat in beats]
        live_data = {
            "version": display.content_version(
                ([row.stable_values for row in rows], beat_states, notices, [one.id for one in audit_entries])
            ),
            "live": False,  # nothing here changes every second
            "schedules": [row.live_values for row in rows],
            "beats": live_values_of(beats),
        }
        return {
            "rows": rows,
            "beats": beats,
            "audit_entries": audit_entries,
            "notices": notices,
            "live_data": live_data,
        }

    def show(self, template: str, **values: Any) -> None:
        """Show a page, with the values that all these pages share."""
        super().show(
            template, zone=self.zone, slot_text=lambda moment: slot_text(moment, self.zone), icons=ICONS, **values
        )

    async def show_one(self, name: str, form: str = "", refused: FormRefused | None = None) -> None:
        """Show a schedule.

        Args:
            name: of the schedule.
            form: the posted form, which is shown as it was filled in.
            refused: why the form changed nothing.
        """
        found = await self.in_thread(self._look_at, name)
        row = found["rows"][0]
        listed = row.summary.listed
        self.show(
            "conventions_schedule.html",
            row=row,
            rules=rules_in_words(listed),
            by_hand=last_by_hand([line.run for line in row.lines]),
            arguments=hidden_values.arguments_text(listed.shown_arguments, hidden=not self.visitor.sees_values),
            refused=refused,
            wrong=(form, refused.field) if refused else None,
            typed=lambda *place: self.parameter(place[1]) if place[0] == form else "",
            **found,
        )

    def _look_at(self, name: str) -> dict[str, Any]:
        return self.look([self.find(name)], HISTORY, target=name)

    def _read_records(
        self, runs: Sequence[Run], target: str | None
    ) -> tuple[list[RunOutcome], list[AuditRow], list[str]]:
        """The outcomes of runs, the audit entries, and a notice for each server that does not answer."""
        audit_entries: list[AuditRow] = []
        notices: list[str] = []
        try:
            with self.reading() as session:
                if target is not None:
                    audit_entries = list(audit.listing(session, AUDIT_LIMIT, target=target))
                outcomes = self._outcomes(runs, session, notices)
        except SQLAlchemyError as error:
            notices.append(NO_SQL.format(type(error).__name__))
            outcomes = self._outcomes(runs, None, notices)
        return outcomes, audit_entries, notices

    def _outcomes(self, runs: Sequence[Run], session: "Session | None", notices: list[str]) -> list[RunOutcome]:
        try:
            return outcomes_of(self.capp, runs, session)
        except RedisError:  # the broker's server, since the store has answered
            notices.append(NO_BROKER)
            return outcomes_of(self.capp, runs, session, broker=False)

    def _lines(
        self, histories: Mapping[str, Sequence[Run]], outcomes: Sequence[RunOutcome]
    ) -> dict[str, list[RunLine]]:
        lines: dict[str, list[RunLine]] = {name: [] for name in histories}
        pairs = [(name, run) for name, runs in histories.items() for run in runs]
        for (name, run), outcome in zip(pairs, outcomes, strict=True):
            line = run_line(run, outcome, self.zone, is_batch=outcome.is_batch, sees_values=self.visitor.sees_values)
            lines[name].append(line)
        return lines


class ScheduleList(SchedulePage):
    """`/schedules`: all schedules, in the order of the file."""

    async def get(self) -> None:
        """List schedules; with `?as=json` only the live values."""
        found = await self.in_thread(lambda: self.look(self.listed(), MOST_RECENT_RUNS))
        if self.parameter("as") == "json":
            self.write(found["live_data"])
        else:
            self.show("conventions_schedules.html", address=self.capp.schedule_address, **found)


class ScheduleDetail(SchedulePage):
    """`/schedules/<name>`."""

    async def get(self, name: str) -> None:
        """Show the schedule; with `?as=json` only the live values."""
        if self.parameter("as") == "json":
            found = await self.in_thread(self._look_at, name)
            self.write(found["live_data"])
        else:
            await self.show_one(name)


class SchedulePost(SchedulePage, ABC):
    """Base of the actions on a schedule: a POST that redirects to its page, or shows the page with what is wrong."""

    form = ""

    async def post(self, name: str) -> None:
        """Perform the action."""
        try:
            notice = await self.in_thread(self._done, name, self.visitor.name, self.parameter("reason"))
        except FormRefused as refused:
            self.set_status(refused.status)
            await self.show_one(name, self.form, refused)
            return
        self.lead_to(self.reverse_url("conventions-schedule", name), notice)

    def _done(self, name: str, actor: str, reason: str) -> Notice:
        return self.act(ScheduleActions(self.capp, self.zone), self.find(name), actor, reason)

    @abstractmethod
    def act(self, actions: ScheduleActions, listed: Schedule, actor: str, reason: str) -> Notice:
        """Perform the action. Raises: FormRefused."""


class PauseSchedule(SchedulePost):
    """`/schedules/<name>/pause`."""

    form = "pause"

    def act(self, actions: ScheduleActions, listed: Schedule, actor: str, reason: str) -> Notice:
        """Pause the schedule, until the given time if there is one."""
        if not reason:
            raise FormRefused("say why it is paused; everybody is shown the reason")
        try:
            until = self.end("until") if self.parameter("until") else None
            _, states = Schedules(self.capp.store).read([listed.name])
            before = states[listed.name].pause
            actions.pause(listed, actor, reason, until)
        except ValueError as error:
            raise FormRefused(str(error), field="until") from error
        return PAUSED if before is None else Notice("warning", PAUSED.text + replaced_text(before, self.clock))


class ResumeSchedule(SchedulePost):
    """`/schedules/<name>/resume`."""

    form = "resume"

    def act(self, actions: ScheduleActions, listed: Schedule, actor: str, reason: str) -> Notice:
        """End the pause."""
        try:
            return RESUMED if actions.resume(listed, actor, reason or None) else NOT_PAUSED
        except PausedAgain as again:
            who = f"it was paused again meanwhile, by {again.pause.actor}: {again.pause.reason}"
            raise FormRefused(who, HTTPStatus.CONFLICT) from again


class RunSchedule(SchedulePost):
    """`/schedules/<name>/run`."""

    form = "run"

    def act(self, actions: ScheduleActions, listed: Schedule, actor: str, reason: str) -> Notice:
        """Send its task now. If an earlier run has not ended, only if the visitor asks for it."""
        self._check_nobody_was_first(listed)
        try:
            seen = self.parameter("by_hand") or ""
            actions.run_now(listed, actor, reason or None, beside=bool(self.parameter("beside")), seen=seen)
        except StillRuns as still:
            raise FormRefused("an earlier run has not ended", HTTPStatus.CONFLICT, live_id=still.id) from still
        except JustRun as just:
            when = f"{just.actor} ran it by hand in the same moment"
            raise FormRefused(f"{when}; to run it once more, send the form again", HTTPStatus.CONFLICT) from just
        except BrokerUnavailable as error:
            raise FormRefused(f"the broker does not answer: {error}", HTTPStatus.SERVICE_UNAVAILABLE) from error
        except RedisError:
            raise
        except Exception as error:  # a team's function of the arguments may raise anything
            raise FormRefused(f"its message cannot be made: {type(error).__name__}: {error}") from error
        return SENT

    def _check_nobody_was_first(self, listed: Schedule) -> None:
        """Refuse a form that was opened before the last run by hand. Of two in the same moment `run_now` refuses one. Raises: FormRefused."""
        seen = self.parameter("by_hand")
        runs = Schedules(self.capp.store).histories([listed.name], HISTORY)[listed.name]
        last = last_by_hand(runs)
        if seen and last is not None and last.id != seen:
            when = f"{last.actor} ran it by hand since you opened this page, at {self.clock(last.sent_at)}"
            raise FormRefused(f"{when}; to run it once more, send the form again", HTTPStatus.CONFLICT)
