"""The relay: sends what waits in the outbox, and deletes it. It runs beside a worker, in the recorder that leads.

A row is deleted after the broker has its message. So a relay that is killed between the two sends it once more, under the same id: where the
message is still there, or has run, that changes nothing.
"""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from conventions.core.error_text import first_line
from conventions.core.errors import BrokerUnavailable, ConventionError, PayloadError
from conventions.execution.application import Application
from conventions.execution.unsent_step import UnsentStep
from conventions.outbox.entry import Entry, send_entry
from conventions.outbox.nudge import wait_for_nudge

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from conventions.storage.tables import OutboxRow

logger = logging.getLogger(__name__)

PART = 200  # rows in one look; their locks are held until all are sent
LOOK_EVERY = 5.0  # seconds between two looks without a nudge
WAIT = 1.0  # seconds that it waits for a nudge at a time, so that it sees soon that it is to end
PAUSE = 1.0  # seconds after a fault; doubled each time
LONGEST_PAUSE = 30.0
UNKNOWN_FOR = 60.0  # seconds at most until the next try of a task that this worker does not know


class Relay:
    """Sends the rows of one application while it leads.

    Args:
        app: the application, with its tasks.
        leads: whether this recorder leads; asked before each part.
    """

    def __init__(self, app: Application, leads: Callable[[], bool]) -> None:
        self._app, self._leads = app, leads
        self._silent = False

    def start(self, stop: Callable[[], bool]) -> threading.Thread:
        """Run in a thread, which ends with the process."""
        thread = threading.Thread(target=self.run, args=(stop,), name="outbox", daemon=True)
        thread.start()
        return thread

    def run(self, stop: Callable[[], bool]) -> None:
        """Send until `stop()`. Faults and outages do not end it."""
        pause, looked_at = PAUSE, -LOOK_EVERY
        while not stop():
            try:
                told = wait_for_nudge(self._app.store, WAIT)
                if not self._leads() or not (told or time.monotonic() - looked_at >= LOOK_EVERY):
                    continue
                looked_at = time.monotonic()
                while self.send_part() == PART and not stop() and self._leads():
                    pass
            except Exception as error:  # noqa: BLE001  # whatever it is, the rows are there, and nobody else sends them
                self._tell(error)
                _rest(pause, stop)
                pause, looked_at = min(2 * pause, LONGEST_PAUSE), -LOOK_EVERY
                continue
            pause, self._silent = PAUSE, False

    def send_part(self) -> int:
        """Send the rows that are due, up to `PART` of them. Returns how many it has looked at.

        Raises:
            BrokerUnavailable: the rows that are left are sent later.
            RedisError, SQLAlchemyError: the same.
        """
        from conventions.storage.database import utc_now  # noqa: PLC0415  # SQLAlchemy takes 0.6 s to import

        fault: Exception | None = None
        with self._taken(utc_now()) as (rows, finish):
            sent, put_off = [], []
            for row in rows:
                try:
                    reason = self._send(row)
                except (BrokerUnavailable, RedisError) as error:
                    fault = error
                    break
                if reason is None:
                    sent.append(row.id)
                else:
                    put_off.append((row.id, row.tries, reason))
            finish(sent, put_off)
        if fault is not None:
            raise fault
        return len(rows)

    @contextmanager
    def _taken(self, now: datetime) -> Iterator[tuple[Sequence["OutboxRow"], Callable[..., None]]]:
        """Rows that are due, and what deletes them, or puts them off.

        In PostgreSQL they are locked meanwhile, and those that another relay has are left out. SQLite has one lock for all writers, which
        is not held while the broker is asked: there the lead keeps two relays apart.
        """
        database = self._app.database
        if database.is_sqlite:
            with database.session(read_only=True) as session:
                rows = self._due(session, now)
                session.expunge_all()

            def finish(sent: Sequence[str], put_off: Sequence[tuple[str, int, str]]) -> None:
                if sent or put_off:
                    with database.session() as session:
                        _finish(session, now, sent, put_off)

            yield rows, finish
            return
        with database.session() as session:
            yield self._due(session, now), lambda sent, put_off: _finish(session, now, sent, put_off)

    def _due(self, session: "Session", now: datetime) -> Sequence["OutboxRow"]:
        from sqlalchemy import select  # noqa: PLC0415  # SQLAlchemy takes 0.6 s to import

        from conventions.storage.tables import OutboxRow  # noqa: PLC0415  # the same

        due = select(OutboxRow).where(OutboxRow.due_at <= now).order_by(OutboxRow.due_at, OutboxRow.id).limit(PART)
        return session.scalars(due.with_for_update(skip_locked=True)).all()

    def _send(self, row: "OutboxRow") -> str | None:
        """Send one. Returns why it must wait; `None`: it is sent, or is a dead letter. Raises: BrokerUnavailable, RedisError."""
        task: Any = self._app.tasks.get(row.task)
        if task is None:
            return "this worker knows no task of this name"
        entry = Entry(row.id, row.task, row.arguments, row.headers, row.options, row.written_at)
        try:
            send_entry(task, entry)
        except (BrokerUnavailable, RedisError):
            raise
        except (TypeError, ValueError, PayloadError) as error:  # no later try would do better
            self._refuse(entry, error)
        except ConventionError as error:  # such as a journal that is full
            return first_line(error)
        return None

    def _refuse(self, entry: Entry, error: Exception) -> None:
        arguments, headers, options = (json.loads(one) for one in (entry.arguments, entry.headers, entry.options))
        UnsentStep(self._app, entry.task, entry.id, (), arguments, options, headers).refuse(error)

    def _tell(self, error: Exception) -> None:
        if not self._silent:
            self._silent = True
            logger.warning("the outbox waits: %s", first_line(error))


def _finish(session: "Session", now: datetime, sent: Sequence[str], put_off: Sequence[tuple[str, int, str]]) -> None:
    from sqlalchemy import delete, update  # noqa: PLC0415  # SQLAlchemy takes 0.6 s to import

    from conventions.storage.tables import OutboxRow  # noqa: PLC0415  # the same

    if sent:
        session.execute(delete(OutboxRow).where(OutboxRow.id.in_(sent)))
    for id_, tries, reason in put_off:
        wait = timedelta(seconds=min(2.0 ** min(tries, 10), UNKNOWN_FOR))
        session.execute(
            update(OutboxRow).where(OutboxRow.id == id_).values(due_at=now + wait, tries=tries + 1, fault=reason)
        )


def _rest(seconds: float, stop: Callable[[], bool]) -> None:
    until = time.monotonic() + seconds
    while not stop() and time.monotonic() < until:
        time.sleep(min(0.2, seconds))
