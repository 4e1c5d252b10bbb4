"""`Dispatch`: what the leading beat does with one schedule: send what is due, record what is not sent (protocol 14).

It first sends a slot's message, under an id made from the slot, and then moves the cursor. So a failed send or a killed
beat loses no slot. A second beat that sends the slot again sends the same message, which runs once.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

from redis.exceptions import RedisError

from conventions.broker.caller_headers import OwnHeaders
from conventions.broker.header_names import ENQUEUED_AT
from conventions.core import error_text
from conventions.core.actor import BEAT
from conventions.core.canonical_json import digest
from conventions.core.errors import BrokerUnavailable
from conventions.execution.application import Application
from conventions.pauses.pause import Pause
from conventions.records.audit_entry import AuditEntry
from conventions.schedules.catch_up import Passed, passed_slots
from conventions.schedules.schedule import SCHEDULE_HEADER, Schedule
from conventions.schedules.schedule_state import Lead, Run, State
from conventions.schedules.schedule_store import Schedules

logger = logging.getLogger("celery.beat")

AT_ONCE = 50  # slots of one schedule in one look, so that other schedules are not late
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds between two tries, if a slot's message cannot be made
STEPPED_BACK = timedelta(minutes=1)  # a cursor this far ahead of the clock was set by another clock
TRIES = 5  # tries of such a slot, while later slots wait behind it
SHORT = 500  # characters of an error


class TeamError(Exception):
    """An error of a team's calendar or function, of any class. It tells such errors from beat's own."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


@contextmanager
def code_of_a_team() -> Iterator[None]:
    """Mark errors of a team's code, to tell them from beat's own, such as a Redis that does not answer. Raises: TeamError."""
    try:
        yield
    except Exception as error:
        raise TeamError(error) from error


@dataclass(frozen=True, slots=True)
class Failure:
    """A slot that could not be sent (`None` if unknown), and when it is retried."""

    slot: datetime | None
    tries: int
    again_at: datetime


class Dispatch:
    """Sends the slots of schedules for one beat.

    Args:
        app: the application.
        schedules: their state.
        zone: the time zone of the slots.
    """

    def __init__(self, app: Application, schedules: Schedules, zone: tzinfo) -> None:
        self._app = app
        self._schedules = schedules
        self._zone = zone
        self._failures: dict[str, Failure] = {}
        self._ahead: set[str] = set()  # schedules whose cursor is ahead of the clock, and this was logged

    def look(self, listed: Schedule, state: State, now: datetime, lead: Lead) -> float:
        """Do what is due. Returns the seconds until this schedule's next look; 0 when more is due now.

        Raises:
            LeadLost: another beat leads.
            RedisError, BrokerUnavailable: nothing is lost; the next look does what is due.
        """
        failure = self._failures.get(listed.name)
        rest = 0.0 if failure is None else (failure.again_at - now).total_seconds()
        if 0 < rest <= LONGEST_WAIT:  # it is longer only after the clock has stepped back
            return rest
        self._name_a_step_back(listed, state, now)
        try:
            with code_of_a_team():
                next_slot = listed.when.next_slot(now, self._zone)
                due = listed.due(state.cursor or now, now, self._zone)
        except TeamError as fault:
            return self._failed(listed, None, now, fault.error)
        wait = LONGEST_WAIT if next_slot is None else (next_slot - now).total_seconds()
        if state.pause is not None:
            return self._paused(listed, state.cursor or now, state.pause, now, wait)
        if due.missed:
            lines = self._lines(listed, due.missed, state, now)
            self._schedules.advance(listed.name, due.missed.last, next_slot, *lines)
        for slot in due.send[:AT_ONCE]:
            try:
                self._fire(listed, slot, next_slot, lead)
            except TeamError as fault:
                return self._failed(listed, slot, now, fault.error, next_slot, more=slot != due.send[-1])
        self._failures.pop(listed.name, None)
        if state.fault is not None and not due.send:
            self._schedules.note_fault(listed.name, None)
        return 0.0 if len(due.send) > AT_ONCE else wait

    def _name_a_step_back(self, listed: Schedule, state: State, now: datetime) -> None:
        ahead = state.cursor is not None and state.cursor - now > STEPPED_BACK
        if state.cursor is not None and ahead and listed.name not in self._ahead:
            text = "beat: the clock of Redis has stepped back: %s runs again after %s"
            logger.warning(text, listed.name, state.cursor.astimezone(self._zone).isoformat())
        (self._ahead.add if ahead else self._ahead.discard)(listed.name)

    def _lines(self, listed: Schedule, missed: Passed, state: State, now: datetime) -> list[Run]:
        """The history's lines for slots that are no longer sent."""
        logger.warning("beat: %s missed %s", listed.name, missed)
        failure, lines = self._failures.get(listed.name), []
        if failure is not None and failure.slot is not None and missed.first <= failure.slot <= missed.last:
            # This slot was not late: its message could not be made.
            tried = Passed(failure.slot, failure.slot, 1)
            lines.append(Run.without_message("failed", tried, now, BEAT, state.fault or ""))
            missed = Passed(missed.first, missed.last, missed.count - 1)
        note = ""
        if state.begun is not None and missed.first <= state.begun <= missed.last:
            # Lines with one note become one line: then it is true of each slot. Of several slots of one look it is true of one.
            which = (
                "its sending"
                if missed.count == 1
                else f"the sending of {state.begun.astimezone(self._zone).isoformat()}"
            )
            note = f"{which} had begun, it may have run"
        return [*lines, *([Run.without_message("missed", missed, now, BEAT, note)] if missed.count else [])]

    def _fire(self, listed: Schedule, slot: datetime, next_slot: datetime | None, lead: Lead) -> None:
        """Send one slot, then move the cursor. Raises: TeamError."""
        message_id, planned = listed.message_id(slot), slot.astimezone(UTC)
        here = listed.overlap == "skip" and self._app.port.keeps_claims
        begun = self._schedules.begin(
            listed.name,
            message_id,
            self._app.tasks[listed.task.name].horizon,
            overlap=listed.overlap,
            here=here,
            slot=slot,
            lead=lead,
        )
        if begun.live_id is not None:
            run = Run(planned, self._schedules.now(), "", BEAT, "skipped", note=begun.live_id)
            logger.info("beat: skipped %s of %s: %s has not ended", listed.name, slot.isoformat(), begun.live_id)
        elif begun.since is not None:
            with self._schedules.sending(message_id, overlap=listed.overlap, here=here):
                self._send(listed, slot, begun.since)
            run = Run(planned, self._schedules.now(), message_id, BEAT)
            logger.info("beat: sent %s of %s as %s", listed.name, slot.isoformat(), message_id)
        else:
            return
        self._schedules.advance(listed.name, slot, next_slot, run)

    def _send(self, listed: Schedule, slot: datetime, since: datetime) -> None:
        """Send a slot's message. Every beat and every try uses the same id and key. Raises: TeamError."""
        planned = slot.astimezone(UTC).isoformat()
        with code_of_a_team():
            arguments = listed.arguments_at(slot)
        try:
            self._app.tasks[listed.task.name].apply_async(
                kwargs=arguments,
                task_id=listed.message_id(slot),
                planned_at=slot,
                actor=BEAT,
                # Without the arguments: a beat with another file, or a function with another result, means the same slot.
                idempotency_key=digest({"schedule": listed.name, "planned_at": planned}),
                # The time of the first try: a message that was frozen longer than claims are kept does not run twice.
                headers=OwnHeaders({SCHEDULE_HEADER: listed.name, ENQUEUED_AT: since.isoformat()}),
            )
        except (BrokerUnavailable, RedisError):
            raise
        except Exception as error:  # the result of the function does not fit the task
            raise TeamError(error) from error

    def _paused(self, listed: Schedule, cursor: datetime, pause: Pause, now: datetime, wait: float) -> float:
        """Resume a schedule when the end of its pause has come."""
        if pause.until is None or pause.last_moment is None:
            return wait
        if pause.until > now:
            return min(wait, (pause.until - now).total_seconds())
        audit_entry = AuditEntry(
            BEAT,
            "schedule resume",
            listed.name,
            f"paused until {pause.until.astimezone(self._zone):%Y-%m-%d %H:%M:%S %Z}",
            pause.facts,
        )
        passed = passed_slots(listed.when, cursor, pause.last_moment, self._zone)
        line = Run.without_message("paused", passed, now, pause.actor, pause.reason) if passed else None
        next_slot = listed.when.next_slot(pause.last_moment, self._zone)
        self._schedules.resume(listed.name, pause.last_moment, next_slot, audit_entry, held_back=line, only=pause)
        logger.info("beat: %s runs again, as its pause is over", listed.name)
        return 0.0

    def _failed(
        self,
        listed: Schedule,
        slot: datetime | None,
        now: datetime,
        error: Exception,
        next_slot: datetime | None = None,
        *,
        more: bool = False,
    ) -> float:
        """Wait before the next try. Give up a slot if later slots wait behind it."""
        before = self._failures.get(listed.name)
        tries = before.tries + 1 if before is not None and before.slot == slot else 1
        wait: float = min(FIRST_WAIT * 2 ** min(tries - 1, 10), LONGEST_WAIT)
        self._failures[listed.name] = Failure(slot, tries, now + timedelta(seconds=wait))
        fault = f"{type(error).__name__}: {error_text.text_of(error)}"[:SHORT]
        self._schedules.note_fault(listed.name, fault)
        if slot is None or tries < TRIES or not more:
            # The first failure is logged with its traceback.
            text = "beat: %s cannot be sent, next try in %.0f s: %s"
            logger.error(text, listed.name, wait, fault, exc_info=error if tries == 1 else None)
            return wait
        logger.error("beat: %s of %s is given up: %s", listed.name, slot.isoformat(), fault)
        self._failures.pop(listed.name)
        self._schedules.advance(
            listed.name, slot, next_slot, Run.without_message("failed", Passed(slot, slot, 1), now, BEAT, fault)
        )
        return 0.0
