"""`LogMover`: moves the log lines of attempts that have ended from Redis into SQL, beside the recorder and never before it.

It reads them, commits them to SQL, and only then removes them, unless further lines have come. If it dies in between, the same lines come
again, and replace themselves.
"""

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from conventions.attempt_log.live_logs import LiveLog, LiveLogs
from conventions.core.background_rounds import Rounds
from conventions.core.error_text import first_line
from conventions.recording.recorder import refuses_content

if TYPE_CHECKING:
    from conventions.storage.database import Database

logger = logging.getLogger(__name__)

EVERY = 0.5  # seconds between two looks
AT_ONCE = 20  # runs in one transaction: SQLite lets nobody else write meanwhile, and each may have 64 KiB
PAUSE = 0.02  # seconds between two transactions


class LogMover:
    """Moves lines while it leads.

    Args:
        logs: of an application.
        database: makes the database. It is called when there is something to move.
        leads: whether the recorder of this process leads; asked before each transaction.
    """

    def __init__(self, logs: LiveLogs, database: "Callable[[], Database]", leads: Callable[[], bool]) -> None:
        self._logs, self._database, self._leads = logs, database, leads
        self._stop: Callable[[], bool] = bool
        self._rounds = Rounds("attempt logs", self._look, EVERY, fault="lines of attempts wait in Redis", logger=logger)

    def start(self, stop: Callable[[], bool]) -> None:
        """Begin in a thread of its own, until `stop()`."""
        self._stop = stop
        self._rounds.start()

    def _look(self) -> None:
        while not self._stop():
            if not self._leads() or not self.move() or self._rounds.pause(PAUSE):
                return
        self._rounds.stop()

    def move(self) -> int:
        """Move some. Returns how many. Raises: RedisError, SQLAlchemyError: they stay where they are."""
        found = self._logs.due(AT_ONCE)
        if found:
            self._record([one for one in found if one.text])
            self._logs.drop(found)
        return len(found)

    def _record(self, logs: Sequence[LiveLog]) -> None:
        from conventions.records import attempt_logs  # noqa: PLC0415  # SQLAlchemy takes 0.6 s to import
        from conventions.storage.database import utc_now  # noqa: PLC0415  # the same

        if not logs:
            return
        try:
            with self._database().session() as session:
                attempt_logs.record(session, logs, utc_now())
        except Exception as error:
            if not refuses_content(error):
                raise
            if len(logs) > 1:
                for one in logs:
                    self._record([one])
            else:  # it must not hold up all others
                logger.error(
                    "SQL refuses the lines of an attempt: id=%s: %s", logs[0].name.message_id, first_line(error)
                )
