"""What people do to a schedule: pause it, resume it, run it now. The audit records each action (R10, R22).

The audit entry goes into the journal in the same step as the action, so a schedule can be paused while SQL is away.
Then it is copied to SQL at once, so that people see it. If that fails, the recorder does it later.
"""

import logging
from datetime import datetime, tzinfo
from typing import Any

from celery import uuid
from redis.exceptions import RedisError

from conventions.broker.caller_headers import OwnHeaders
from conventions.core.canonical_json import digest
from conventions.core.error_text import clean
from conventions.execution.application import Application
from conventions.pauses.pause import Pause, replaced_facts
from conventions.pauses.pause_actions import PausedAgain
from conventions.records.audit_entry import AuditEntry
from conventions.schedules.catch_up import passed_slots
from conventions.schedules.schedule import SCHEDULE_HEADER, Schedule
from conventions.schedules.schedule_state import Run
from conventions.schedules.schedule_store import Schedules

logger = logging.getLogger(__name__)


class StillRuns(Exception):
    """An earlier run of the schedule has not ended. `id`: the message of that run."""

    def __init__(self, id: str) -> None:  # noqa: A002  # the word of the glossary
        super().__init__(id)
        self.id = id


class JustRun(Exception):
    """Somebody has run the schedule by hand in the same moment. `id`: the message of that run. `actor`: who."""

    def __init__(self, id: str, actor: str) -> None:  # noqa: A002  # the word of the glossary
        super().__init__(id, actor)
        self.id, self.actor = id, actor


class ScheduleActions:
    """The actions on an application's schedules, in the name of an actor.

    Args:
        app: the application.
        zone: the time zone of the slots.
    """

    def __init__(self, app: Application, zone: tzinfo) -> None:
        self._app = app
        self._zone = zone
        self._state = Schedules(app.store)

    def pause(self, listed: Schedule, actor: str, reason: str, until: datetime | None = None) -> Pause:
        """Send nothing for a schedule until it is resumed. The pause outlives restarts and deploys.

        Args:
            listed: the schedule.
            actor: who does it.
            reason: why; shown to everyone.
            until: when it resumes by itself, aware.

        Raises:
            ValueError: see `Pause.made`.
            RedisError: nothing changes.
        """
        now, states = self._state.read([listed.name])
        before, pause = states[listed.name].pause, Pause.made(reason, actor, now, until)
        audit_entry = AuditEntry(
            actor, "schedule pause", listed.name, pause.reason, replaced_facts(before), pause.facts
        )
        self._state.pause(listed.name, pause, audit_entry)
        self._record(audit_entry, now)
        return pause

    def resume(self, listed: Schedule, actor: str, reason: str | None = None) -> bool:
        """End a pause. Slots that passed during it are not caught up. False if there was no pause.

        Raises:
            PausedAgain: somebody has replaced the pause.
            RedisError: nothing changes.
        """
        now, states = self._state.read([listed.name])
        state = states[listed.name]
        if state.pause is None:
            return False
        at = min(now, state.pause.last_moment or now)
        audit_entry = AuditEntry(actor, "schedule resume", listed.name, reason, state.pause.facts)
        passed = passed_slots(listed.when, state.cursor or at, at, self._zone)
        line = passed and Run.without_message("paused", passed, now, state.pause.actor, state.pause.reason)
        next_slot = listed.when.next_slot(at, self._zone)
        if self._state.resume(listed.name, at, next_slot, audit_entry, held_back=line or None, only=state.pause):
            self._record(audit_entry, now)
            return True
        if (other := self._state.read([listed.name])[1][listed.name].pause) is not None:
            raise PausedAgain(other)
        return False

    def run_now(
        self, listed: Schedule, actor: str, reason: str | None = None, *, beside: bool = False, seen: str = ""
    ) -> Run:
        """Send a schedule's task now, with the arguments of its latest slot, even if it is paused.

        The run is a job of its own: it runs even if a job with the same arguments has run before. Of two in the same moment one runs: until the
        first is sent, and for three seconds after that.

        Args:
            listed: the schedule.
            actor: who does it.
            reason: why.
            beside: run even if an earlier run has not ended and the schedule says `overlap="skip"`.
            seen: the id of the last run by hand that the actor knows of: he means another one, however soon it comes.

        Raises:
            StillRuns: an earlier run has not ended.
            JustRun: somebody has run it in the same moment.
            BrokerUnavailable, RedisError: nothing was sent, but the audit has an entry of the attempt.
        """
        now, message_id = self._state.now(), uuid()
        latest = listed.when.latest_slot(now, self._zone) or now.astimezone(self._zone)
        arguments, task = listed.arguments_at(latest), self._app.tasks[listed.task.name]
        audit_entry = AuditEntry(actor, "schedule run", listed.name, reason and clean(reason), None, {"id": message_id})
        overlap: Any = "beside" if beside and listed.overlap == "skip" else listed.overlap
        here = listed.overlap == "skip" and self._app.port.keeps_claims
        begun = self._state.begin(
            listed.name, message_id, task.horizon, overlap=overlap, here=here, audit_entry=audit_entry, seen=seen
        )
        if begun.live_id is not None:
            raise StillRuns(begun.live_id)
        if begun.just is not None:
            raise JustRun(*begun.just)
        self._record(audit_entry, now)
        with self._state.by_hand(listed.name, message_id), self._state.sending(message_id, overlap=overlap, here=here):
            task.apply_async(
                kwargs=arguments,
                task_id=message_id,
                actor=actor,
                idempotency_key=digest({"schedule": listed.name, "by_hand": message_id}),
                headers=OwnHeaders({SCHEDULE_HEADER: listed.name}),
            )
        run = Run(None, now, message_id, actor, note=audit_entry.reason or "")
        try:
            self._state.record(listed.name, run)
        except RedisError as error:  # the message is sent, so this must not raise
            logger.warning("%s is sent as %s, but not in its history: %s", listed.name, run.id, error)
        return run

    def _record(self, audit_entry: AuditEntry, at: datetime) -> None:
        from conventions.records import audit  # noqa: PLC0415  # SQLAlchemy takes 0.6 s to import

        try:
            with self._app.database.session() as session:
                audit.record_once(session, [(audit_entry, at)])
        except Exception as error:  # noqa: BLE001  # the action is in the journal, so this must not raise
            logger.info("not in the audit yet, but in the journal: %s: %s", type(error).__name__, error)
