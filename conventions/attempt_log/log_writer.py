"""`AttemptLogs`: stores the lines of the attempts that this process runs, in Redis.

A thread stores those of attempts that run for more than a second. Those of an attempt that has ended are stored by whoever ends it, so that
they are there before its outcome; where Redis does not answer at once, the thread goes on trying.
"""

import logging
import threading
import time
from collections.abc import Callable

from redis.exceptions import RedisError

from conventions.attempt_log.live_logs import LiveLogs
from conventions.attempt_log.run_log import LONG, RunLog, running
from conventions.core.forks import call_in_child

logger = logging.getLogger(__name__)

LOOK_EVERY = 0.25  # seconds
IDLE_LOOKS = 40  # looks without a run before the thread sleeps: waking it costs as much as a short job
SAY_EVERY = 20.0  # seconds between two signs of life of a run that logs nothing
PATIENCE = 0.5  # seconds for which one call holds up a job; `app.py` makes such a store
AWAY = 1.0  # seconds for which no job tries again after Redis did not answer
REFUSED = 5.0  # seconds for which lines that were refused are not tried again
TRY_FOR = 60.0  # seconds for which the lines of an ended attempt are tried
MOST_ENDED = 100  # attempts whose lines may wait for Redis in one process
TELL_EVERY = 60.0  # seconds between two warnings


class AttemptLogs:
    """The logs of the attempts of this process. One for each application.

    Args:
        live: where lines are stored. It is made at the first need.
        limit: bytes of one run.
    """

    def __init__(self, live: Callable[[], LiveLogs], limit: int) -> None:
        self.limit = limit
        self._make_live = live
        self._reset()
        call_in_child(self._in_child)

    def _reset(self) -> None:
        self._live: LiveLogs | None = None
        self._watched: dict[RunLog, None] = {}
        self._ended: dict[RunLog, float] = {}  # with the moment until which they are tried
        self._starting = threading.Lock()
        self._wake = threading.Event()
        self._sleeps = False
        self._thread: threading.Thread | None = None
        self._away_until = self._told_at = 0.0

    def _in_child(self) -> None:
        running.set(None)  # a process that a job forks has no log
        self._reset()

    def begin(
        self, message_id: str, generation: int, attempt: int, token: str, seals: Callable[[str], str] | None = None
    ) -> RunLog:
        """Collect the lines of this context from now on, until its `end`; `seals`: what each is kept as, of a sealed job."""
        run = RunLog((message_id, generation, attempt, token), self, seals)
        running.set(run)
        return run

    def watch(self, run: RunLog) -> None:
        """Store its lines while it runs, once it has run for `LONG`."""
        self._watched[run] = None
        self._wake_thread()

    def _wake_thread(self) -> None:
        if self._sleeps:
            self._wake.set()
        elif self._thread is None:
            with self._starting:
                if self._thread is None:
                    # Daemon: it keeps no process from ending. Its context is its own, so what it logs is of no run.
                    thread = threading.Thread(target=self._run, name="attempt logs", daemon=True)
                    thread.start()
                    self._thread = thread  # now: a soft limit may end a start

    def forget(self, run: RunLog) -> None:
        """It has ended soon."""
        self._watched.pop(run, None)

    def store(self, run: RunLog) -> None:
        """Store the last lines of one that has ended; where Redis does not answer at once, the thread does it. Never raises."""
        self._watched.pop(run, None)
        try:
            if time.monotonic() >= self._away_until and self._stored(run, ended=True):
                return
        except RedisError:
            self._away_until = time.monotonic() + AWAY
        except Exception:  # a job does not fail for its log
            logger.exception("lines of an attempt are not kept: id=%s", run.name.message_id)
            return
        if len(self._ended) < MOST_ENDED:
            self._ended[run] = time.monotonic() + TRY_FOR
            self._wake_thread()
        else:
            self._tell("Redis does not answer")

    def _stored(self, run: RunLog, *, ended: bool) -> bool:
        """Store what is new. Returns false where another thread does that just now. Raises: RedisError."""
        if not run.lock.acquire(timeout=PATIENCE):
            return False
        try:
            lines, again, now = run.write(), run.is_stored, time.monotonic()
            if not ended and now < run.rests_until:
                return True
            changes = lines.take()
            if not (changes.new or changes.dropped or ended or (again and now - run.said_at >= SAY_EVERY)):
                return True
            if self._live is None:
                self._live = self._make_live()
            try:
                answer = self._live.keep(run.name, changes, again=again, ended=ended)
                if answer == "gone":  # somebody has emptied Redis, or this process stood still for long
                    answer = self._live.keep(run.name, lines.take_all(), again=False, ended=ended)
            except BaseException:
                lines.give_back(changes)
                raise
            if answer == "refused":
                lines.give_back(changes)
                run.rests_until = now + REFUSED
                self._tell("too many lines wait for SQL")
            else:
                run.is_stored, run.said_at = True, now
            return True
        finally:
            run.lock.release()

    def _run(self) -> None:
        idle = 0
        while True:
            self._wake.wait(LOOK_EVERY)
            self._wake.clear()
            idle = 0 if self._watched or self._ended else idle + 1
            if idle > IDLE_LOOKS:
                self._sleeps = True
                if not self._watched and not self._ended:
                    self._wake.wait()
                self._sleeps = False
            try:
                self._look(time.monotonic())
            except RedisError:
                self._away_until = time.monotonic() + AWAY
                time.sleep(AWAY)
            except Exception:  # the thread must go on
                logger.exception("a fault of the platform")
                time.sleep(AWAY)

    def _look(self, now: float) -> None:
        for run in list(self._watched):
            if now - run.began >= LONG and run.is_open:
                self._stored(run, ended=False)
        for run, until in list(self._ended.items()):
            if now > until:
                self._ended.pop(run, None)
                self._tell("Redis does not answer")
            elif self._stored(run, ended=True):
                self._ended.pop(run, None)

    def _tell(self, why: str) -> None:
        now = time.monotonic()
        if now - self._told_at >= TELL_EVERY or not self._told_at:
            self._told_at = now
            logger.warning("lines of attempts are not kept for now: %s", why)
