"""The relay: sends what waits in the outbox, and deletes it. It runs beside a worker, in the recorder that leads.

It takes a part of the rows for some seconds, sends them, and deletes those that the broker has. No transaction is open while the broker is
asked. A relay that is killed or frozen meanwhile leaves its part to the next one, which sends it once more, under the same ids: where a message
is still there, or has run, that changes nothing.
"""

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from conventions.core.background_rounds import rest
from conventions.core.error_text import first_line
from conventions.core.errors import BrokerUnavailable, CannotOpen, PayloadError
from conventions.execution.unsent_step import UnsentStep
from conventions.outbox.entry import AT_ONCE, Entry, opened_parts, queue_of, read_back, send_entry
from conventions.outbox.many_rows import send_together
from conventions.outbox.wake_relay import wait_for_nudge
from conventions.sending.application import SendingApplication

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

logger = logging.getLogger(__name__)

PART = 200  # rows in one look
PART_SECONDS = 5.0  # seconds after which a part ends; what is left of it comes again at once
TAKEN_FOR = 20.0  # seconds for which no other relay takes the rows of a part
LOOK_EVERY = 5.0  # seconds between two looks without a nudge
WAIT = 1.0  # seconds that it waits for a nudge at a time, so that it sees soon that it is to end
PAUSE = 1.0  # seconds after a fault; doubled each time
LONGEST_PAUSE = 5.0
LONGEST_WAIT = 60.0  # seconds at most until the next try of a row that cannot be sent
FAILED_QUEUES = (
    2  # so many queues that take nothing, where no other has taken anything, are a broker that takes nothing
)
QUEUE_PAUSE = 5.0  # seconds for which a queue that takes nothing is left alone, so that its rows keep no others waiting
SPREAD = 0.5  # seconds by which each further part of such rows waits longer: a large outbox is not written anew every few seconds
TELL_EVERY = 60.0  # seconds between two lines of the log about one queue


@dataclass
class _Part:
    """What became of the rows of a part: their ids."""

    sent: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)  # not tried
    later: list[str] = field(default_factory=list)  # of a queue that is left alone
    put_off: dict[tuple[int, str], list[str]] = field(default_factory=lambda: defaultdict(list))  # by tries and fault
    away: Exception | None = None  # why the part has ended early


class Relay:
    """Sends the rows of one application while it leads.

    Args:
        app: the application, with its tasks.
        leads: whether this recorder leads; asked before each part.
    """

    def __init__(self, app: SendingApplication, leads: Callable[[], bool]) -> None:
        self._app, self._leads = app, leads
        self._silent = False
        self._alone = dict[str, float]()  # queues that are left alone, until when
        self._told = dict[str, float]()  # queues of which the log speaks, when it did last
        self._put_later = 0  # parts with rows that are left alone, in this look

    def start(self, stop: Callable[[], bool]) -> threading.Thread:
        """Run in a thread, which ends with the process."""
        thread = threading.Thread(target=self.run, args=(stop,), name="outbox", daemon=True)
        thread.start()
        return thread

    def run(self, stop: Callable[[], bool]) -> None:
        """Send until `stop()`. Faults and outages do not end it."""
        pause, looked_at = PAUSE, -LOOK_EVERY
        while not stop():
            if not self._leads():  # a nudge is for the one that leads
                rest(WAIT, stop)
                continue
            told = self._is_told(stop)
            if not told and time.monotonic() - looked_at < LOOK_EVERY:
                continue
            looked_at, self._put_later = time.monotonic(), 0
            try:
                while self.send_part() == PART and not stop() and self._leads():
                    pass
            except Exception as error:  # noqa: BLE001  # whatever it is, the rows are there, and nobody else sends them
                self._tell(error)
                rest(pause, stop)
                pause, looked_at = min(2 * pause, LONGEST_PAUSE), -LOOK_EVERY
                continue
            pause, self._silent = PAUSE, False

    def _is_told(self, stop: Callable[[], bool]) -> bool:
        try:
            return wait_for_nudge(self._app.store, WAIT)
        except RedisError:  # the broker may be another server, which takes messages
            rest(WAIT, stop)
            return False

    def send_part(self) -> int:
        """Send the rows that are due, up to `PART` of them. Returns how many it has taken.

        Raises:
            BrokerUnavailable: the rows that are left are sent later.
            RedisError, SQLAlchemyError: the same.
        """
        with self._app.database.session() as session:
            rows = _take(session, self._app.settings.key_prefix, datetime.now(UTC))
        part = _Part()
        try:
            self._send_rows(rows, part)
        finally:
            done = {*part.sent, *part.later, *(one for ids in part.put_off.values() for one in ids)}
            for entry, _ in rows:
                if entry.id not in done:
                    (part.later if self._is_left_alone(entry) else part.left).append(entry.id)
            if rows:
                with self._app.database.session() as session:
                    _finish(session, part, datetime.now(UTC), self._pause_of(part))
        if part.away is not None:
            raise part.away
        return len(rows)

    def _send_rows(self, rows: Sequence[tuple[Entry, int]], part: _Part) -> None:
        now, failed = time.monotonic(), 0
        self._alone = {queue: until for queue, until in self._alone.items() if until > now}
        new = [entry for entry, tries in rows if not tries and not self._is_left_alone(entry)]
        sent = send_together(self._app, new, now + PART_SECONDS)
        part.sent.extend(sent)
        until = time.monotonic() + PART_SECONDS  # a queue that took its time above keeps no others from their try
        for entry, tries in rows:
            if entry.id in sent or self._is_left_alone(entry):
                continue
            if time.monotonic() > until:
                return
            try:
                fault = self._send(entry)
            except BrokerUnavailable as error:  # this queue may be full, or forbidden; others are tried
                part.put_off[tries, first_line(error)].append(entry.id)
                self._leave_alone(self._queue_of(entry), error)
                failed += 1
                if failed >= FAILED_QUEUES and not part.sent:
                    part.away = error
                    return
                continue
            except RedisError as error:
                part.away = error
                return
            except Exception as error:  # noqa: BLE001  # one odd row keeps no other from its queue
                fault = first_line(error)
                logger.warning("the outbox cannot send %s of %s: %s", entry.id, entry.task, fault)
            if fault is None:
                part.sent.append(entry.id)
            else:
                part.put_off[tries, fault].append(entry.id)

    def _leave_alone(self, queue: str, error: Exception) -> None:
        now = time.monotonic()
        self._alone[queue] = now + QUEUE_PAUSE
        if now - self._told.get(queue, -TELL_EVERY) >= TELL_EVERY:
            self._told[queue] = now
            logger.warning("the outbox waits for the queue %s: %s", queue, first_line(error))

    def _pause_of(self, part: _Part) -> float:
        """Seconds for which the rows of this part that are left alone wait."""
        pause = min(QUEUE_PAUSE + SPREAD * self._put_later, LONGEST_WAIT)
        self._put_later += bool(part.later)
        return pause

    def _queue_of(self, entry: Entry) -> str:
        return queue_of(self._app.tasks.get(entry.task), entry)

    def _is_left_alone(self, entry: Entry) -> bool:
        return bool(self._alone) and self._queue_of(entry) in self._alone

    def _send(self, entry: Entry) -> str | None:
        """Send one. Returns why it must wait; `None`: it is sent, or is a dead letter. Raises: whatever the send does."""
        task: Any = self._app.tasks.get(entry.task)
        if task is None:
            return "this worker knows no task of this name"
        try:
            send_entry(task, entry)
        except BrokerUnavailable:
            raise
        except CannotOpen as error:  # its key may come; what was altered stays until somebody has looked at it
            logger.warning("the outbox cannot send %s of %s: %s", entry.id, entry.task, fault := first_line(error))
            return fault
        except (TypeError, ValueError, PayloadError) as error:  # no later try would do better
            arguments, options = opened_parts(self._app.payload_keys, entry)
            headers = read_back(entry.headers)
            UnsentStep(self._app, entry.task, entry.id, (), arguments, options, headers).refuse(error)
        return None

    def _tell(self, error: Exception) -> None:
        if not self._silent:
            self._silent = True
            logger.warning("the outbox waits: %s", first_line(error))


def _take(session: "Session", application: str, now: datetime) -> list[tuple[Entry, int]]:
    """Rows that are due, with how often they were tried. They are due again after `TAKEN_FOR`, whatever becomes of this process."""
    from sqlalchemy import select, update  # noqa: PLC0415  # SQLAlchemy takes 0.6 s to import

    from conventions.storage.tables import OutboxRow  # noqa: PLC0415  # the same

    due = (
        select(OutboxRow.id)
        .where(OutboxRow.application == application, OutboxRow.due_at <= now)
        .order_by(OutboxRow.due_at, OutboxRow.written_at)
        .limit(PART)
        .with_for_update(skip_locked=True)  # another relay may take its part now
    )
    ids = session.scalars(due).all()
    if not ids:
        return []
    session.execute(update(OutboxRow).where(OutboxRow.id.in_(ids)).values(due_at=now + timedelta(seconds=TAKEN_FOR)))
    taken = session.scalars(select(OutboxRow).where(OutboxRow.id.in_(ids)).order_by(OutboxRow.written_at)).all()
    return [(Entry(*(getattr(row, name) for name in Entry._fields)), row.tries) for row in taken]


def _finish(session: "Session", part: _Part, now: datetime, pause: float) -> None:
    """Delete what is sent, and say when the rest is due: after `pause` seconds where it is left alone."""
    from sqlalchemy import delete, update  # noqa: PLC0415  # SQLAlchemy takes 0.6 s to import

    from conventions.storage.tables import OutboxRow  # noqa: PLC0415  # the same

    if part.sent:
        session.execute(delete(OutboxRow).where(OutboxRow.id.in_(part.sent)))
    if part.left:
        session.execute(update(OutboxRow).where(OutboxRow.id.in_(part.left)).values(due_at=AT_ONCE))
    if part.later:
        due_at = now + timedelta(seconds=pause)
        session.execute(update(OutboxRow).where(OutboxRow.id.in_(part.later)).values(due_at=due_at))
    for (tries, fault), ids in part.put_off.items():
        wait = timedelta(seconds=min(2.0 ** min(tries, 10), LONGEST_WAIT))
        said = {"due_at": now + wait, "tries": tries + 1, "fault": fault}
        session.execute(update(OutboxRow).where(OutboxRow.id.in_(ids)).values(**said))
