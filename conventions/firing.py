"""`Firing`: what the beat that leads does with one schedule: send what is due, record what is not sent (protocol 14).

A slot's message is sent first, under an id made of the slot, and the cursor moves after it. So a failed send or a killed
beat loses no slot, and a second beat that sends one again sends the same message, which runs once.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from redis.exceptions import RedisError

from conventions import failures
from conventions.actor import BEAT
from conventions.catching_up import Passed, passed_slots
from conventions.deeds import Deed
from conventions.errors import BrokerUnavailable
from conventions.job import ENQUEUED_AT, idempotency_key
from conventions.payload import digest
from conventions.schedule import SCHEDULE_HEADER, Schedule
from conventions.schedule_state import Lead, LeadLost, Pause, Run, State
from conventions.schedules import Schedules

logger = logging.getLogger("celery.beat")

AT_ONCE = 50  # slots of one schedule in one look, so that others are not late
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds between two tries of a slot whose message cannot be made
TRIES = 5  # of such a slot, when later ones wait behind it
SHORT = 500  # characters of an error


@dataclass(frozen=True, slots=True)
class Failure:
    """A slot that could not be sent, `None` where that is not known, and when it is tried again."""

    slot: datetime | None
    tries: int
    again_at: datetime


class Firing:
    """Sends the slots of schedules for one beat.

    Args:
        app: the application.
        schedules: their state.
        zone: in which slots are planned.
    """

    def __init__(self, app: Any, schedules: Schedules, zone: tzinfo) -> None:
        self._app = app
        self._schedules = schedules
        self._zone = zone
        self._failures: dict[str, Failure] = {}
        self._sending: datetime | None = None  # the slot that is under way

    def look(self, listed: Schedule, state: State, now: datetime, lead: Lead) -> float:
        """Do what is due. Returns the seconds until this schedule needs another look.

        Raises:
            LeadLost: another beat leads.
            RedisError, BrokerUnavailable: nothing is lost; what is due is due at the next look.
        """
        failure = self._failures.get(listed.name)
        rest = 0.0 if failure is None else (failure.again_at - now).total_seconds()
        if 0 < rest <= LONGEST_WAIT:  # more where the clock has stepped back
            return rest
        self._sending = None
        try:
            wait = self._look(listed, state, now, lead)
        except (BrokerUnavailable, RedisError, LeadLost):
            raise
        except Exception as error:  # noqa: BLE001  # whatever a team's function raises must not stop the other schedules
            return self._failed(listed, now, error)
        self._failures.pop(listed.name, None)
        return wait

    def _look(self, listed: Schedule, state: State, now: datetime, lead: Lead) -> float:
        following = listed.when.next_slot(now, self._zone)
        wait = LONGEST_WAIT if following is None else (following - now).total_seconds()
        if state.pause is not None:
            return self._paused(listed, state.cursor or now, state.pause, now, wait)
        due = listed.due(state.cursor or now, now, self._zone)
        lines = [self._line(listed, due.missed, now, state.fault)] if due.missed else []
        for slot in due.send[:AT_ONCE]:
            self._sending = slot
            self._fire(listed, slot, following, lines, lead)
            lines = []
        self._sending = None
        if lines and due.missed:
            self._schedules.advance(listed.name, due.missed.last, following, *lines)
        return 0.0 if len(due.send) > AT_ONCE else wait

    def _line(self, listed: Schedule, missed: Passed, now: datetime, fault: str | None) -> Run:
        failure = self._failures.get(listed.name)
        tried = failure is not None and failure.slot is not None and missed.first <= failure.slot <= missed.last
        logger.warning("beat: %s %s", listed.name, f"{'failed' if tried else 'missed'} {missed}")
        if tried:  # it was not late, but could not be made
            return Run.without_message("failed", missed, now, BEAT, fault or "")
        return Run.without_message("missed", missed, now, BEAT)

    def _fire(
        self, listed: Schedule, slot: datetime, following: datetime | None, lines: Sequence[Run], lead: Lead
    ) -> None:
        """Send one slot, then move the cursor."""
        message_id, planned = listed.message_id(slot), slot.astimezone(UTC)
        begun = self._schedules.begin(
            listed.name,
            message_id,
            self._app.tasks[listed.task.name].horizon,
            overlap=listed.overlap,
            here=listed.overlap == "skip" and self._app.one_server,
            slot=slot,
            lead=lead,
        )
        if begun.live_id is not None:
            now = self._schedules.now()
            run = Run(planned, now, "", BEAT, "skipped", note=begun.live_id)
            logger.warning("beat: skipped %s of %s: %s has not ended", listed.name, slot.isoformat(), begun.live_id)
        elif begun.since is not None:
            with self._schedules.sending(listed.name, message_id):
                self._send(listed, slot, begun.since)
            run = Run(planned, self._schedules.now(), message_id, BEAT)
            logger.info("beat: sent %s of %s as %s", listed.name, slot.isoformat(), message_id)
        else:
            return
        self._schedules.advance(listed.name, slot, following, *lines, run)

    def _send(self, listed: Schedule, slot: datetime, since: datetime) -> None:
        """Send a slot's message, which is the same from every beat and at every try."""
        task, message_id = self._app.tasks[listed.task.name], listed.message_id(slot)
        arguments = listed.arguments_at(slot)
        own = idempotency_key(task, task.arguments.bind((), arguments), message_id, slot.astimezone(UTC).isoformat())
        task.apply_async(
            kwargs=arguments,
            task_id=message_id,
            planned_at=slot,
            actor=BEAT,
            # Two schedules of one task at one time are two jobs.
            idempotency_key=digest({"schedule": listed.name, "key": own}),
            # As old as its first try: what was frozen for longer than claims are kept is not run a second time.
            headers={SCHEDULE_HEADER: listed.name, ENQUEUED_AT: since.isoformat()},
        )

    def _paused(self, listed: Schedule, cursor: datetime, pause: Pause, now: datetime, wait: float) -> float:
        """Lift a pause whose time is over."""
        if pause.until is None:
            return wait
        if pause.until > now:
            return min(wait, (pause.until - now).total_seconds())
        deed = Deed(BEAT, "schedule resume", listed.name, f"paused until {pause.until.isoformat()}", pause.facts)
        passed = passed_slots(listed.when, cursor, pause.until, self._zone)
        line = Run.without_message("paused", passed, now, pause.actor, pause.reason) if passed else None
        following = listed.when.next_slot(pause.until, self._zone)
        self._schedules.resume(listed.name, pause.until, following, deed, held_back=line, only=pause)
        logger.info("beat: %s runs again, as its pause is over", listed.name)
        return 0.0

    def _failed(self, listed: Schedule, now: datetime, error: Exception) -> float:
        """Wait before the next try; give a slot up when later ones wait behind it."""
        before, slot = self._failures.get(listed.name), self._sending
        tries = before.tries + 1 if before is not None and before.slot == slot else 1
        wait: float = min(FIRST_WAIT * 2 ** min(tries - 1, 10), LONGEST_WAIT)
        self._failures[listed.name] = Failure(slot, tries, now + timedelta(seconds=wait))
        fault = f"{type(error).__name__}: {failures.text_of(error)}"[:SHORT]
        self._schedules.note_fault(listed.name, fault)
        following = None if slot is None else listed.when.next_slot(slot, self._zone)
        if slot is None or tries < TRIES or following is None or following > now:
            # Once with the traceback, which says where.
            text = "beat: %s cannot be sent, next try in %.0f s: %s"
            logger.error(text, listed.name, wait, fault, exc_info=error if tries == 1 else None)
            return wait
        logger.error("beat: %s of %s is given up: %s", listed.name, slot.isoformat(), fault)
        self._failures.pop(listed.name)
        line = Run.without_message("failed", Passed(slot, slot, 1), now, BEAT, fault)
        self._schedules.advance(listed.name, slot, following, line)
        return 0.0
