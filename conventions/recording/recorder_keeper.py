"""The worker's main process starts its recorder, watches it, and starts it again if it ends or hangs."""

import logging
import os
import signal
import threading
import time
from contextlib import suppress

from conventions.core.background_rounds import Rounds
from conventions.recording.lag_warning import LagWarning
from conventions.recording.recorder_process import Pulse, record_for_ever
from conventions.sending.application import SendingApplication

logger = logging.getLogger(__name__)

STOP_WITHIN = 5.0  # seconds that the recorder has for the last events
LOOK_EVERY = 1.0  # seconds between two looks of the keeper at its recorder
FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0  # seconds before a start after the second end in a row; doubled each time
LIVED = 60.0  # seconds: the end of a recorder that lived longer counts as the first in a row
STANDS_AFTER = 15  # looks in a row without a sign of life: the recorder is killed
STUCK_AFTER = 180  # looks in a row without a finished step: it is killed, too; a call to the database may hang


class Keeper:
    """Keeps one recorder running beside this process. It starts a new one if the recorder ends or hangs.

    Args:
        app: the application. Its `store` and `database` make new connections after a fork.
    """

    def __init__(self, app: SendingApplication) -> None:
        self._app = app
        self._ends, self._lock = False, threading.Lock()
        fault = "the recorder is not looked after"
        self._rounds = Rounds("keeper", self._look_after, LOOK_EVERY, fault=fault, logger=logger)
        self._failures = 0  # unexpected ends in a row
        self._next_start = 0.0
        self._lag = LagWarning(app.store)
        self.pid = self._last_pid = 0
        self._start()

    def _start(self) -> None:
        main, pulse = os.getpid(), Pulse()
        self._pulse, self._seen, self._unchanged = pulse, (b"", b""), [0, 0]
        self._started_at = time.monotonic()
        self.pid = os.fork()
        if not self.pid:
            record_for_ever(self._app, main, pulse, after=self._last_pid)

    def watch(self) -> None:
        """Start the thread that watches the recorder until `stop`."""
        self._rounds.start()

    def _look_after(self) -> None:
        with self._lock:
            if not self._ends:
                self.look()
        self._lag.look()

    def look(self) -> None:
        """Start a recorder if none runs. Kill one that hangs; the next look finds that it has ended."""
        if not self.pid:
            if time.monotonic() >= self._next_start:
                self._start()
        elif how := _ended(self.pid):
            self._is_gone(how)
        elif fault := self._fault():
            logger.error("the recorder (process %d) %s: it is killed, and another one is started", self.pid, fault)
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self._unchanged = [0, 0]

    def _is_gone(self, how: str) -> None:
        lived = time.monotonic() - self._started_at
        self._failures = 1 if lived > LIVED else self._failures + 1
        wait = 0.0 if self._failures == 1 else min(FIRST_WAIT * 2 ** (self._failures - 2), LONGEST_WAIT)
        logger.error(
            "the recorder (process %d) has ended (%s): another one is started %s; what happened meanwhile waits in Redis",
            self.pid,
            how,
            f"in {wait:.0f} s" if wait else "now",
        )
        self.pid, self._last_pid, self._next_start = 0, self.pid, time.monotonic() + wait
        if not wait:
            self._start()

    def _fault(self) -> str:
        # Count looks, not seconds. If the machine slept, both processes stood still, and nothing is wrong.
        now = self._pulse.read()
        for number, (one, before) in enumerate(zip(now, self._seen, strict=True)):
            self._unchanged[number] = self._unchanged[number] + 1 if one == before else 0
        self._seen = now
        if self._unchanged[0] >= STANDS_AFTER:
            return "stands still"
        return "does not come forward" if self._unchanged[1] >= STUCK_AFTER else ""

    def stop(self) -> None:
        """Stop the recorder, after it has recorded the events that wait."""
        self._rounds.stop()
        with self._lock:
            self._ends = True
            if not self.pid:
                return
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)
            deadline = time.monotonic() + STOP_WITHIN
            # If it takes longer, it ends by itself soon after this process.
            while not _ended(self.pid) and time.monotonic() < deadline:
                time.sleep(0.01)


def _ended(child: int) -> str:
    """How a child process has ended; empty if it still runs. Reaps it, so that no zombie stays."""
    try:
        found, status = os.waitpid(child, os.WNOHANG)
    except ChildProcessError:
        return "somebody else has read its status"
    if not found:
        return ""
    code = os.waitstatus_to_exitcode(status)
    return f"status {code}" if code >= 0 else f"signal {-code}"
