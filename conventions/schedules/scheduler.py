"""`Scheduler`: RedBeat with slots. `create_app` sets it as Celery's `beat_scheduler`, so `celery beat` needs no options.

RedBeat provides the leader's lock and the layout in Redis. Two things differ. `schedules/dispatch.py` decides which
slots are sent,
and in which order of steps. And a beat that does not lead stands by: when it loses its lock or its Redis it waits and
goes on,
while RedBeat's would end.
"""

import logging
import os
import signal
import socket
import time
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from redbeat.schedulers import RedBeatScheduler
from redis.exceptions import LockError, RedisError

from conventions.core.actor import BEAT
from conventions.core.errors import BrokerUnavailable, ConfigurationError, NewerLayout
from conventions.execution.application import Application
from conventions.execution.log_redaction import make_safe
from conventions.library_internals.celery import is_beats_handler
from conventions.library_internals.redbeat import client_of, token_of, use_client
from conventions.records.audit_entry import AuditEntry
from conventions.schedules.beat_liveness import Beats
from conventions.schedules.catch_up import passed_slots
from conventions.schedules.dispatch import Dispatch, code_of_a_team
from conventions.schedules.redbeat_entry import RedBeatEntry
from conventions.schedules.schedule import Schedule
from conventions.schedules.schedule_module import load_schedule
from conventions.schedules.schedule_state import Lead, LeadLost, Run, State
from conventions.schedules.schedule_store import Schedules
from conventions.storage.layout_version import SAY_EVERY, Member

logger = logging.getLogger("celery.beat")

SCHEDULE_FILE = "beat_schedule.py"
CHANGED = "its times were changed while no beat ran"
STANDBY_POLL = 1.0  # seconds between two tries to get the leader's lock
RESTART = timedelta(minutes=10)  # if the last look is older than this, there was an outage, not a deploy
RETRY_EVERY = 1.0  # seconds until the next try after Redis or the broker did not answer


class Scheduler(RedBeatScheduler):
    """Sends each slot of the application's schedule exactly once, from any number of beats.

    Raises:
        ConfigurationError: the schedule cannot be loaded.
    """

    app: Application
    lock: Any
    lock_key: str | None
    max_interval: float

    def __init__(self, app: Application, lazy: bool = False, **options: Any) -> None:
        make_safe()
        try:
            self.listed = load_schedule(app)
        except ConfigurationError as error:
            if lazy:  # for beat's banner, click shows the error as one line
                raise
            error.show()
            raise SystemExit(error.exit_code) from None  # anything else would be logged with a traceback
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self.schedules = Schedules(app.store)
        # RedBeat uses a client with the store's options.
        use_client(app, lambda: app.store.new_client(decode_responses=True), self.schedules.prefix)
        self._zone = ZoneInfo(app.settings.timezone)
        self._beats = Beats(app.store)
        self._member, self._says_at, self.app = Member("beat"), 0.0, app
        self._dispatch = Dispatch(app, self.schedules, self._zone)
        self._reconciled = False
        self._renewed = 0.0
        self._looks = self._ends = False
        if app.schedule_address is None and not lazy:  # so this beat never leads; another one may have a schedule
            logger.warning("beat: no schedule: there is no %s in %s; nothing is sent", SCHEDULE_FILE, Path.cwd())
        if not lazy:
            self._say_first()
        super().__init__(app, lazy=lazy, **options)
        # RedBeat would wait for its lock at the start of beat, and end beat when the lock is lost. Without a key it
        # leaves the lock to `tick`.
        self._lock_name, self.lock_key = str(self.lock_key), None
        self.max_interval = min(self.max_interval, self.lock_timeout / 3)  # an idle leader must not lose its lock

    def setup_schedule(self) -> None:
        """Do nothing: only the leader writes, once it leads."""

    @property
    def schedule(self) -> dict[str, RedBeatEntry]:
        """The entries by name."""
        now, states = self.schedules.read(listed.name for listed in self.listed)
        return {
            listed.name: RedBeatEntry(listed, states[listed.name].cursor or now, self._zone, self.app)
            for listed in self.listed
        }

    def tick(self, *_: Any, **__: Any) -> float:
        """Send what is due. Returns the seconds until the next look, at most `max_interval`.

        Raises:
            SystemExit: a signal has asked beat to end.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            # Celery's handler closes the scheduler at any point and raises; within a `__del__` that would be lost.
            if is_beats_handler(signal.getsignal(number)):
                signal.signal(number, self._end)
        self._looks = True
        try:
            wait = self._look()
        finally:
            self._looks = False
        if self._ends:
            raise SystemExit
        return wait

    def _end(self, *_: Any) -> None:
        """End after this look; end at once when no look is under way, or at a second signal."""
        at_once, self._ends = self._ends or not self._looks, True
        if at_once:
            raise SystemExit

    def _look(self) -> float:
        """Do what is due if this beat leads. Returns the seconds until the next look."""
        try:
            with suppress(RedisError):  # perhaps the broker's; the sends will report it
                self._say()
            leads = self.app.schedule_address is not None and self._leads()
            self._beats.tick(self.name, leads=leads)
            if not leads:
                return STANDBY_POLL
            if not self._reconciled:
                self._reconcile()
            return self._send_due()
        except LeadLost:
            if self.lock is not None:  # a script has noticed it, not the lock
                self._stand_by()
            return STANDBY_POLL
        except RedisError as error:
            logger.warning("beat: Redis does not answer, trying again: %s", error)
            return RETRY_EVERY

    def _say_first(self) -> None:
        try:
            self._say()
        except NewerLayout as error:
            error.show()
            raise SystemExit(error.exit_code) from None  # not with a traceback
        except RedisError:  # beat waits for Redis later
            pass

    def _say(self) -> None:
        """Report that this beat lives, and which layout it knows. Raises: NewerLayout, RedisError."""
        if time.monotonic() < self._says_at:
            return
        self._says_at = (
            time.monotonic() + SAY_EVERY
        )  # also after an error, so that its time-out does not slow down each look
        self._member.say(self.app.servers)

    def close(self) -> None:
        """Release the lock, so that the next beat leads at once."""
        with suppress(RedisError):
            self._beats.leave(self.name)
            self._member.leave(self.app.servers)
        try:
            super().close()
        except (RedisError, LockError) as error:
            logger.warning("beat: the lock is left to lapse: %s", error)

    @property
    def info(self) -> str:
        """The line about the schedule in beat's banner."""
        return f"       . schedule -> {self.app.schedule_address or 'none'} ({len(self.listed)} entries)"

    def _leads(self) -> bool:
        if self.lock is None:
            lock = client_of(self.app).lock(self._lock_name, timeout=self.lock_timeout, thread_local=False)
            if not lock.acquire(blocking=False):
                logger.debug("beat: another beat leads")
                return False
            self.lock, self._reconciled, self._renewed = lock, False, time.monotonic()
            logger.info("beat: leads, %d schedules", len(self.listed))
            return True
        try:
            self.lock.reacquire()
        except LockError:
            self._stand_by()
            return False
        self._renewed = time.monotonic()
        return True

    def _stand_by(self) -> None:
        logger.warning("beat: another beat may lead now, standing by")
        self.lock = None

    def _keep_lead(self) -> None:
        """Renew the lock in time, even if the look takes long. Raises: LeadLost."""
        if time.monotonic() - self._renewed > self.lock_timeout / 5:
            if not self._leads():
                raise LeadLost
            self._beats.tick(self.name, leads=True)

    @property
    def _lead(self) -> Lead:
        return Lead(self._lock_name, token_of(self.lock), self.lock_timeout)

    def _reconcile(self) -> None:
        """Update Redis from the list in the file."""
        names = {listed.name for listed in self.listed}
        gone = self.schedules.names() - names
        now, states = self.schedules.read(names | gone, definitions=True)
        looked_at = self.schedules.looked_at()
        # The old times of an entry count until the last look of a beat, the new times after it.
        since = now if looked_at is None or now - looked_at > RESTART else min(looked_at, now)
        for name in sorted(gone):
            logger.info("beat: the schedule %s is gone", name)
            before = states[name].definition
            self.schedules.forget(name, AuditEntry(BEAT, "schedule remove", name, self._why, before), self._lead)
        for listed in self.listed:
            self._keep_lead()
            try:
                self._enter(listed, states[listed.name], now, since)
            except (RedisError, LeadLost):
                raise
            except Exception:  # whatever a team's calendar raises must not stop the other schedules
                logger.exception("beat: the next slot of %s cannot be told", listed.name)
        self._reconciled = True

    @property
    def _why(self) -> str:
        return f"beat {self.name} began to lead with {self.app.schedule_address}"

    def _enter(self, listed: Schedule, state: State, now: datetime, since: datetime) -> None:
        if state.pause is not None:
            logger.info("beat: %s is paused: %s", listed.name, state.pause.reason)
        entry, before = RedBeatEntry(listed, state.cursor or now, self._zone, self.app), state.definition
        audit_entry = None
        if before != entry.definition or state.gone:
            action = "schedule add" if before is None or state.gone else "schedule change"
            audit_entry = AuditEntry(
                BEAT, action, listed.name, self._why, None if state.gone else before, entry.definition
            )
            logger.info("beat: %s %s", action, listed.name)
        with code_of_a_team():
            next_slot = entry.next_slot
        self.schedules.enter(
            listed.name, entry.definition, entry.last_run_at, next_slot, audit_entry=audit_entry, lead=self._lead
        )
        changed = before is not None and before.get("schedule") != entry.definition["schedule"]
        if changed and state.fault is None and state.cursor is not None and state.cursor < since:
            self._count_from(listed, state.cursor, since, now)

    def _count_from(self, listed: Schedule, cursor: datetime, since: datetime, now: datetime) -> None:
        """Let the changed times of a schedule count from a given time. Skipped slots go into the history."""
        with code_of_a_team():
            passed = passed_slots(listed.when, cursor, since, self._zone) if since == now else None
            next_slot = listed.when.next_slot(since, self._zone)
        line = [Run.without_message("missed", passed, now, BEAT, CHANGED)] if passed else []
        self.schedules.advance(listed.name, since, next_slot, *line)

    def _send_due(self) -> float:
        now, states = self.schedules.read(listed.name for listed in self.listed)
        started, wait, complete = time.monotonic(), float(self.max_interval), True
        for listed in self.listed:
            self._keep_lead()
            if states[listed.name].cursor is None:  # somebody flushed Redis
                self._reconciled = complete = False
                wait = min(wait, RETRY_EVERY)
                continue
            try:
                until_next = self._dispatch.look(listed, states[listed.name], now, self._lead)
            except BrokerUnavailable as error:
                logger.warning("beat: %s is not sent yet: %s", listed.name, error)
                return RETRY_EVERY
            complete = complete and until_next > 0
            wait = min(wait, until_next)
        if complete:
            self.schedules.note_look(now)
        return max(0.0, wait - (time.monotonic() - started))
