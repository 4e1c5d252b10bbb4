"""`Scheduler`: RedBeat with slots. `create_app` sets it as Celery's `beat_scheduler`, so `celery beat` needs no flags.

RedBeat brings the lock that makes one beat the leader, and the layout in Redis. What differs: a slot's message is sent
first, under an id made of the slot, and the cursor moves after it, so that a failed send or a killed beat loses no
slot and a second leader sends the same message again, which runs once. A beat that is no leader stands by, and one that
lost its lock or its Redis waits and goes on, where RedBeat's ends.
"""

import json
import time
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

from celery.schedules import BaseSchedule
from celery.utils.log import get_logger
from redbeat.decoder import RedBeatJSONEncoder
from redbeat.schedulers import RedBeatScheduler, RedBeatSchedulerEntry, get_redis
from redis.exceptions import LockError, RedisError

from conventions.actor import BEAT
from conventions.cron import When
from conventions.errors import BrokerUnavailable, ConfigurationError
from conventions.job import idempotency_key
from conventions.payload import digest
from conventions.schedule import Schedule, load_schedule
from conventions.schedules import Run, Schedules, State, meta_of

logger = get_logger("celery.beat")

SCHEDULE_HEADER = "x_schedule"  # the schedule's name, in its messages
STANDBY_POLL = 1.0  # seconds between two looks at the leader's lock
RETRY_EVERY = 1.0  # seconds until the next try when Redis or the broker does not answer
LONGEST_WAIT = 60.0  # seconds between two tries of a slot whose message cannot be made


class SlotSchedule(BaseSchedule):
    """`cron` or `every` as Celery sees it, in one zone."""

    def __init__(self, when: When, zone: tzinfo, app: Any) -> None:
        super().__init__(app=app)
        self.when = when
        self.zone = zone

    def remaining_estimate(self, last_run_at: datetime) -> timedelta | None:
        """Time left until the slot that follows `last_run_at`; `None` when none follows."""
        slot = self.when.next_slot(last_run_at, self.zone)
        return None if slot is None else slot.astimezone(UTC) - datetime.now(UTC)

    def is_due(self, last_run_at: datetime) -> tuple[bool, float]:
        """Whether a slot has passed since `last_run_at`, and the seconds until the one to look for next."""
        left = self.remaining_estimate(last_run_at)
        if left is not None and left <= timedelta(0):
            left = self.remaining_estimate(datetime.now(UTC))
            return True, 0.0 if left is None else left.total_seconds()
        return False, LONGEST_WAIT if left is None else left.total_seconds()


class Entry(RedBeatSchedulerEntry):
    """One schedule in RedBeat's layout; `last_run_at` is its cursor."""

    def __init__(self, listed: Schedule, cursor: datetime, zone: tzinfo, app: Any) -> None:
        super().__init__(
            name=listed.name,
            task=listed.task.name,
            schedule=SlotSchedule(listed.when, zone, app),
            kwargs=listed.shown_arguments,
            last_run_at=cursor,
            app=app,
        )

    @property
    def score(self) -> int:
        """The next slot in seconds since the epoch; -1, which RedBeat passes over, when there is none."""
        slot = self.schedule.when.next_slot(self.last_run_at, self.schedule.zone)
        return -1 if slot is None else int(slot.timestamp())

    @property
    def definition(self) -> dict[str, Any]:
        """What RedBeat keeps of an entry; ours is for reading only, since the list in the file is what counts."""
        schedule = {"__type__": "slots", "when": str(self.schedule.when), "timezone": str(self.schedule.zone)}
        fields = {name: getattr(self, name) for name in ("name", "task", "args", "kwargs", "options", "enabled")}
        return fields | {"schedule": schedule}

    def save(self) -> "Entry":
        """Write the definition; the cursor only where there is none."""
        with get_redis(self.app).pipeline() as pipe:
            pipe.hset(self.key, "definition", json.dumps(self.definition, cls=RedBeatJSONEncoder))
            pipe.hsetnx(self.key, "meta", meta_of(self.last_run_at))
            pipe.hsetnx(self.key, "cursor", int(self.last_run_at.timestamp()))
            pipe.zadd(self.app.redbeat_conf.schedule_key, {self.key: self.score})
            pipe.execute()
        return self


class Scheduler(RedBeatScheduler):
    """Sends each slot of the application's schedule exactly once, from any number of beats.

    Raises:
        ConfigurationError: the schedule cannot be loaded.
    """

    lock: Any
    lock_key: str | None
    max_interval: float

    def __init__(self, app: Any, lazy: bool = False, **options: Any) -> None:
        try:
            self.listed = load_schedule(app)
        except ConfigurationError as error:
            if lazy:  # beat's banner, where click still shows the error as one line
                raise
            error.show()
            raise SystemExit(error.exit_code) from None  # anything else would be logged with a traceback
        self.schedules = Schedules(app.store)
        _configure(app, self.schedules.prefix)
        self._zone = ZoneInfo(app.settings.timezone)
        self._reconciled = False
        self._failures: dict[str, tuple[float, float]] = {}  # by schedule: the last wait, and when to try again
        super().__init__(app, lazy=lazy, **options)
        # RedBeat waits for its lock while beat starts, and ends beat when the lock is lost. Without a key it leaves the
        # lock to `tick`.
        self._lock_name, self.lock_key = self.lock_key, None
        self.max_interval = min(self.max_interval, self.lock_timeout / 3)  # a leader that idles must not lose its lock

    def setup_schedule(self) -> None:
        """Nothing: only the leader writes, once it leads."""

    @property
    def schedule(self) -> dict[str, Entry]:
        """The entries by name."""
        now, states = self.schedules.read(listed.name for listed in self.listed)
        return {
            listed.name: Entry(listed, states[listed.name].cursor or now, self._zone, self.app)
            for listed in self.listed
        }

    def tick(self, *_: Any, **__: Any) -> float:
        """Send what is due. Returns the seconds until the next look, at most `max_interval`."""
        try:
            if not self._leads():
                return STANDBY_POLL
            if not self._reconciled:
                self._reconcile()
            return self._send_due()
        except RedisError as error:
            logger.warning("beat: Redis does not answer, trying again: %s", error)
            return RETRY_EVERY

    def close(self) -> None:
        """Release the lock, so that the next beat leads at once."""
        try:
            super().close()
        except (RedisError, LockError) as error:
            logger.warning("beat: the lock is left to lapse: %s", error)

    @property
    def info(self) -> str:
        """What beat's banner says of the schedule."""
        return f"       . schedule -> {self.app.schedule_address or 'none'} ({len(self.listed)} entries)"

    def _leads(self) -> bool:
        if self.lock is None:
            lock = get_redis(self.app).lock(self._lock_name, timeout=self.lock_timeout, thread_local=False)
            if not lock.acquire(blocking=False):
                logger.debug("beat: another beat leads")
                return False
            self.lock, self._reconciled = lock, False
            logger.info("beat: leads, %d schedules", len(self.listed))
            return True
        try:
            self.lock.reacquire()
        except LockError:
            logger.warning("beat: another beat may lead now, standing by")
            self.lock = None
            return False
        return True

    def _reconcile(self) -> None:
        """Make what Redis holds agree with the list."""
        client, statics = get_redis(self.app), self.app.redbeat_conf.statics_key
        names = {listed.name for listed in self.listed}
        for name in client.smembers(statics) - names:
            logger.info("beat: the schedule %s is gone", name)
            self.schedules.forget(name)
            client.srem(statics, name)
        now, states = self.schedules.read(names)
        for listed in self.listed:
            try:
                self._write(listed, states[listed.name].cursor or now, now)
            except RedisError:
                raise
            except Exception:  # whatever a team's calendar raises must not stop the other schedules
                logger.exception("beat: the next slot of %s cannot be told", listed.name)
        if names:
            client.sadd(statics, *names)
        self._reconciled = True

    def _write(self, listed: Schedule, cursor: datetime, now: datetime) -> None:
        entry = Entry(listed, cursor, self._zone, self.app)
        before = json.loads(get_redis(self.app).hget(entry.key, "definition") or "{}").get("schedule")
        entry.save()
        if before is not None and before != entry.definition["schedule"]:
            # Slots of the new times that lie in the past are none that was missed.
            self.schedules.advance(listed.name, now, listed.when.next_slot(now, self._zone))

    def _send_due(self) -> float:
        now, states = self.schedules.read(listed.name for listed in self.listed)
        started, wait = time.monotonic(), float(self.max_interval)
        for listed in self.listed:
            if states[listed.name].cursor is None:  # somebody flushed Redis
                self._reconciled = False
                wait = min(wait, RETRY_EVERY)
                continue
            try:
                wait = min(wait, self._look(listed, states[listed.name], now))
            except BrokerUnavailable as error:
                logger.warning("beat: %s is not sent yet: %s", listed.name, error)
                return RETRY_EVERY
            if self.lock is None:
                return STANDBY_POLL
        return max(0.0, wait - (time.monotonic() - started))

    def _look(self, listed: Schedule, state: State, now: datetime) -> float:
        """Send a schedule's slot if it is due. Returns the seconds until it needs another look."""
        last_wait, again_at = self._failures.get(listed.name, (0.0, 0.0))
        if time.monotonic() < again_at:
            return again_at - time.monotonic()
        try:
            wait = self._send_slot(listed, state, now)
        except (BrokerUnavailable, RedisError):
            raise
        except Exception:  # whatever a team's function raises must not stop the other schedules
            wait = min(max(2 * last_wait, RETRY_EVERY), LONGEST_WAIT)
            self._failures[listed.name] = (wait, time.monotonic() + wait)
            logger.exception("beat: %s cannot be sent, next try in %.0f s", listed.name, wait)
        else:
            self._failures.pop(listed.name, None)
        return wait

    def _send_slot(self, listed: Schedule, state: State, now: datetime) -> float:
        slot = listed.due(state.cursor or now, now, self._zone)
        following = listed.when.next_slot(now, self._zone)
        if slot is not None and state.pause is None and self._leads():
            message_id = self._send(listed, slot)
            run = Run(slot.astimezone(UTC), self.schedules.now(), message_id, BEAT)
            self.schedules.advance(listed.name, slot, following, run)
            logger.info("beat: sent %s of %s as %s", listed.name, slot.isoformat(), message_id)
        return LONGEST_WAIT if following is None else (following - now).total_seconds()

    def _send(self, listed: Schedule, slot: datetime) -> str:
        task, message_id = self.app.tasks[listed.task.name], listed.message_id(slot)
        arguments = listed.arguments_at(slot)
        own = idempotency_key(task, task.arguments.bind((), arguments), message_id, slot.astimezone(UTC).isoformat())
        task.apply_async(
            kwargs=arguments,
            task_id=message_id,
            planned_at=slot,
            actor=BEAT,
            # Two schedules of one task at one time are two jobs.
            idempotency_key=digest({"schedule": listed.name, "key": own}),
            headers={SCHEDULE_HEADER: listed.name},
        )
        return message_id


def _configure(app: Any, prefix: str) -> None:
    """RedBeat's prefix, and a client for it that is made like the store's."""
    app.conf.update(redbeat_key_prefix=prefix)
    if getattr(app, "redbeat_redis", None) is None:
        app.redbeat_redis = app.store.new_client(decode_responses=True)
