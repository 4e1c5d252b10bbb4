"""`Redriver`: carries out redrives in short steps, beside the leading recorder; no process is blocked (R18).

It is a thread of the recorder's process, so a broker that does not answer does not stop the recording. A step takes
letters in one transaction and sends them in a second one, which locks the redrive's row. So two recorders that both
believe that they lead do not send a letter twice. No letter's row is locked while its message is sent, so the recorder
need not wait.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from redis.exceptions import RedisError

from conventions.core.background_rounds import rest
from conventions.core.error_text import first_line
from conventions.core.errors import BrokerUnavailable, NewerLayout, PayloadError
from conventions.core.priority import Priority
from conventions.dead_letters.redrive_pace_and_stop import AT_ONCE, OPEN, Plan, Tally, plan
from conventions.execution.application import Application

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from conventions.dead_letters.redrive_rows import RedriveOrder
    from conventions.storage.tables import RedriveRow

logger = logging.getLogger(__name__)

LOOK_EVERY = 0.25  # seconds between two checks of the letters' answers
IDLE = 1.0  # seconds between two checks while no redrive is open
STEP = 0.25  # seconds of sending in one step
FIRST_LOOK = 10.0  # seconds of leading before the first step, unless SQL is in use: importing SQLAlchemy is expensive
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0  # seconds of pause after a failed step
STEPPING = 15.0  # seconds for which the name of the active recorder is valid
AWAY = (BrokerUnavailable, NewerLayout, RedisError)  # errors that are not about a letter
STALE_AFTER = 30  # seconds after which PostgreSQL ends the transaction of a process that hangs


class Begun(NamedTuple):
    """A redrive, and what became of the order for it.

    Attributes:
        id: of the redrive.
        is_new: false if one of the same selection was under way: nothing of the order was taken.
        total: how many letters it sends.
        newer: how many match by now that came after those that somebody counted; it leaves them.
    """

    id: str
    is_new: bool
    total: int
    newer: int


def begin_or_join(app: Application, wanted: "RedriveOrder") -> Begun:
    """Write the row of a redrive, which the leading recorder carries out.

    If a redrive of the same selection is under way, that one is returned and nothing begins.

    Raises:
        SelectionChanged: there are more or fewer letters than expected; there is no row.
        RedisError: there is no row.
    """
    from conventions.dead_letters import letters, redrive_rows  # noqa: PLC0415  # SQLAlchemy takes 0.6 s to import

    app.store.redis.ping()  # fail at once if nothing can be sent
    with app.database.session() as session:
        other = redrive_rows.under_way(session, wanted.which)
        row = other if other is not None else redrive_rows.start(session, wanted)
        return Begun(row.id, other is None, row.total, letters.newer(session, wanted.which))


def who_steps(app: Application) -> str | None:
    """The name of the recorder that carries out redrives now; `None`: none does. Raises: RedisError."""
    name: bytes | None = app.store.redis.get(_stepping(app))  # type: ignore[assignment]  # redis-py also has text
    return None if name is None else name.decode(errors="replace")


def _stepping(app: Application) -> str:
    key: str = app.store.key("redriver")
    return key


@dataclass(frozen=True, slots=True)
class _Look:
    """The state of a redrive, and its next step."""

    counts: Tally
    plan: Plan

    def changes(self, row: "RedriveRow") -> bool:
        """Whether there is anything to do."""
        numbers = (self.counts.sent, self.counts.succeeded, self.counts.dead)
        noted = (row.state, row.note, row.fault, row.sent, row.succeeded, row.failed)
        return bool(self.plan.take or self.counts.taken) or noted != (self.plan.state, self.plan.note, None, *numbers)


class Redriver:
    """Carries out the redrives of one application while it leads.

    Args:
        app: the application, with its tasks.
        name: the name that other processes see.
        leads: whether this recorder leads; asked before each step.
    """

    def __init__(self, app: Application, name: str, leads: Callable[[], bool]) -> None:
        self._app, self._name, self._leads = app, name, leads
        self._pauses: dict[str, tuple[float, float]] = {}  # for each redrive: the end of its pause, and the length
        self._announced_at = 0.0
        self._away: tuple[float, float] = (0.0, 0.0)  # the pause of the broker: its end, and its length
        self._silent = False

    def start(self, stop: Callable[[], bool]) -> threading.Thread:
        """Run in a thread, which ends with the process."""
        thread = threading.Thread(target=self.run, args=(stop,), name="redrives", daemon=True)
        thread.start()
        return thread

    def run(self, stop: Callable[[], bool]) -> None:
        """Carry out redrives until `stop()`. Faults and outages do not end it."""
        leading_since: float | None = None
        while not stop():
            wait = IDLE
            if not self._leads():
                leading_since = None
            else:
                leading_since = leading_since or time.monotonic()
                looks = self._uses_sql() or time.monotonic() - leading_since > FIRST_LOOK
                wait = self._turn(stop, looks=looks)
            rest(wait, stop)

    def _uses_sql(self) -> bool:
        return vars(self._app).get("database") is not None

    def _turn(self, stop: Callable[[], bool], *, looks: bool) -> float:
        """Say that redrives are carried out here; where it `looks`, do one step of each. Returns the seconds until the next turn."""
        try:
            self._announce()
            ids = self._open() if looks else []
            self._silent = False
        except Exception as error:  # noqa: BLE001  # SQL or Redis is away, or SQL is not migrated: the rows stay
            if not self._silent:
                self._silent = True
                logger.warning("redrives wait: %s", first_line(error))
            return LONGEST_PAUSE / 6
        self._pauses = {id_: pause for id_, pause in self._pauses.items() if id_ in ids}
        busy = False
        for id_ in ids:
            if stop() or not self._leads():
                break
            begun = time.monotonic()
            busy = self.step(id_) >= AT_ONCE or busy
            # Leave half of the time to others: SQLite allows one writer at a time.
            rest(time.monotonic() - begun, stop)
        return 0.0 if busy else LOOK_EVERY if ids else IDLE

    def _announce(self) -> None:
        if time.monotonic() - self._announced_at > STEPPING / 3:
            self._app.store.redis.set(_stepping(self._app), self._name, px=int(STEPPING * 1000))
            self._announced_at = time.monotonic()

    def _open(self) -> list[str]:
        from conventions.dead_letters import redrive_rows  # noqa: PLC0415  # SQLAlchemy takes 0.6 s to import

        with self._app.database.session(read_only=True) as session:
            return list(redrive_rows.open_ones(session))

    def step(self, id: str) -> int:  # noqa: A002  # the word of the glossary
        """Do one step of one redrive. A fault is noted in its row, never raised. Returns how many letters were sent."""
        now = time.monotonic()
        if now < self._away[0] or now < self._pauses.get(id, (0.0, 0.0))[0]:
            return 0
        try:
            sent = self._step(id)
        except AWAY as error:
            self._away = _longer(self._away)
            self._note(None, f"cannot send for now: {first_line(error)}")
        except Exception as error:
            self._pauses[id] = _longer(self._pauses.get(id, (0.0, 0.0)))
            logger.warning("the redrive %s waits: %s", id, first_line(error), exc_info=not _speaks_for_itself(error))
            self._note(id, first_line(error))
        else:
            self._pauses.pop(id, None)
            return sent
        return 0

    def _note(self, id: str | None, why: str) -> None:  # noqa: A002  # the word of the glossary
        from conventions.dead_letters import redrive_rows  # noqa: PLC0415  # SQLAlchemy takes 0.6 s to import

        try:
            with self._app.database.session() as session:
                redrive_rows.hindered(session, why, id)
        except Exception as error:  # noqa: BLE001  # SQL is away; the next turn reports it
            logger.debug("not noted: %s", first_line(error))

    def _step(self, id: str) -> int:  # noqa: A002  # the word of the glossary
        from conventions.dead_letters import redrive_rows  # noqa: PLC0415  # SQLAlchemy takes 0.6 s to import

        database = self._app.database
        with database.session(read_only=True) as session:  # most checks find nothing to do, so they lock nothing
            row = redrive_rows.get(session, id)
            if row is None or row.state not in OPEN or not self._look(session, row).changes(row):
                return 0
        with database.session() as session:
            _keep_no_lock(session)
            row = redrive_rows.lock(session, id)
            if row is None:
                return 0
            found = self._look(session, row)
            redrive_rows.move(session, row, found.plan, found.counts)
            row.fault = None
            taken = found.counts.taken + (redrive_rows.take(session, row, found.plan.take) if found.plan.take else 0)
        return self._send_taken(id) if taken and found.plan.state in OPEN else 0

    @staticmethod
    def _look(session: "Session", row: "RedriveRow") -> _Look:
        from conventions.dead_letters import redrive_rows  # noqa: PLC0415  # SQLAlchemy takes 0.6 s to import
        from conventions.storage.database import utc_now  # noqa: PLC0415  # SQLAlchemy takes 0.6 s to import

        counts = redrive_rows.tally(session, row.id)
        left = bool(counts.taken) or redrive_rows.has_left(session, row)
        return _Look(counts, plan(row, counts, redrive_rows.recent(session, row), utc_now(), left=left))

    def _send_taken(self, id: str) -> int:  # noqa: A002  # the word of the glossary
        """Send taken letters for a short time. The next step sends the rest."""
        from conventions.dead_letters import redrive_rows  # noqa: PLC0415  # SQLAlchemy takes 0.6 s to import

        outcomes: dict[str, str] = {}
        away: Exception | None = None
        with self._app.database.session() as session:
            _keep_no_lock(session)
            row = redrive_rows.lock(session, id)
            if row is None:
                return 0
            deadline = time.monotonic() + STEP
            for letter in redrive_rows.taken(session, row):
                try:
                    outcomes[letter], why = self._send(session, letter, row.actor, redrive_rows.priority_of(row))
                except AWAY as error:
                    away = error
                    break
                row.left_error = why or row.left_error
                if time.monotonic() > deadline:
                    break
            redrive_rows.note_sent(session, row, outcomes)
            session.flush()
            counts = redrive_rows.tally(session, id)
            row.sent, row.succeeded, row.failed = counts.sent, counts.succeeded, counts.dead
        if away is not None:
            raise away
        self._away = (0.0, 0.0)
        return len(outcomes)

    def _send(self, session: "Session", id: str, by: str, priority: Priority | None) -> tuple[str, str | None]:  # noqa: A002  # the word of the glossary
        """Send one letter. Returns its outcome, and why it was left. Raises: errors that are not about this letter."""
        from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415  # SQLAlchemy takes 0.6 s to import

        from conventions.dead_letters import letters as dead_letters  # noqa: PLC0415  # SQLAlchemy takes 0.6 s to import
        from conventions.dead_letters.resend import send  # noqa: PLC0415  # SQLAlchemy takes 0.6 s to import

        letter = dead_letters.get(session, id)
        if letter is None:
            return "gone", None
        task = letter.task
        try:
            # Whether its arguments fit, its worker says: during a deploy that may be one of another release.
            outcome = send(self._app, session, letter, by, priority, fits=False)
        except (*AWAY, SQLAlchemyError):
            raise
        except Exception as error:
            # Its message is unreadable: the letter stays dead and counts as failed.
            if not isinstance(error, PayloadError):
                logger.exception("the letter %s cannot be sent", id)
            return "left", f"{id} was not sent: {first_line(error)}"
        finally:
            session.expunge(letter)  # a message may be large
        if outcome == "unknown task":
            return "left", f"{id} was not sent: task {task} is not registered with the worker of {self._name}"
        return outcome, None


def _keep_no_lock(session: "Session") -> None:
    """Let PostgreSQL end this transaction if this process hangs, so that another recorder can go on."""
    if session.get_bind().dialect.name == "postgresql":
        seconds = f"SET LOCAL idle_in_transaction_session_timeout = '{STALE_AFTER}s'"
        session.connection().exec_driver_sql(seconds)


def _longer(pause: tuple[float, float]) -> tuple[float, float]:
    seconds = min(max(2 * pause[1], FIRST_PAUSE), LONGEST_PAUSE)
    return time.monotonic() + seconds, seconds


def _speaks_for_itself(error: Exception) -> bool:
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415  # SQLAlchemy takes 0.6 s to import

    return isinstance(error, (SQLAlchemyError, OSError))
