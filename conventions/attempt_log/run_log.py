"""`RunLog`: what the code of one attempt logs. `Collector`: the handler that gives each line to the attempt that runs."""

import logging
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

from celery.exceptions import SoftTimeLimitExceeded

from conventions.attempt_log.head_and_tail import Lines, LogLine, encode
from conventions.core.secrets_in_text import without_secrets

LONG = 1.0  # seconds; the lines of a longer run are kept however it ends
AT_ONCE = 256  # lines that wait to be written as text; then the job does it itself, so that memory is bounded
TASK_LOGGER = "celery.task"  # has handlers of its own, and tells the root nothing

MOST_WAITING = 20_000  # characters of a text that waits

_making = threading.RLock()  # a handler of signals may log in this moment, too


class RunName(NamedTuple):
    """Names one run. An attempt whose process was killed runs again: each time has a token of its own."""

    message_id: str
    generation: int
    attempt: int
    token: str


class _Raw(NamedTuple):
    """A line as it came. To write it as text costs more than many jobs."""

    created: float
    level: str
    logger: str
    message: str
    exception: str | None

    def line(self) -> LogLine:
        moment = datetime.fromtimestamp(self.created, UTC).isoformat(timespec="milliseconds")
        return LogLine(moment, self.level, self.logger, self.message, self.exception)


class Keeper(Protocol):
    """Stores the lines of runs, see `log_writer.py`."""

    limit: int

    def watch(self, run: "RunLog", /) -> None:
        """It has a line: store its lines while it runs, once it has run for `LONG`."""

    def forget(self, run: "RunLog", /) -> None:
        """It has ended soon, and nobody has asked for its lines so far."""

    def store(self, run: "RunLog", /) -> None:
        """It has ended, and its lines are kept. Never raises."""


class RunLog:
    """The lines of one run.

    Attributes:
        began: on the monotonic clock.
        is_open: whether its code runs.
        lock: of whoever writes its lines; there is none before the first line.
    """

    __slots__ = (
        "_keeper",
        "_kept",
        "_lines",
        "_name",
        "_seals",
        "_waiting",
        "began",
        "is_open",
        "is_stored",
        "lock",
        "rests_until",
        "said_at",
    )

    lock: threading.Lock

    def __init__(
        self, name: tuple[str, int, int, str], keeper: Keeper, seals: Callable[[str], str] | None = None
    ) -> None:
        self._name, self._seals = name, seals
        self.began = time.monotonic()
        self.is_open = True
        self._keeper = keeper
        self._waiting: deque[_Raw] | None = None
        self._kept = False

    @property
    def name(self) -> RunName:
        """Of the run. Most runs log nothing, and need none."""
        return RunName(*self._name)

    def add(self, line: _Raw) -> None:
        """Add a line. It is written as text later, by another thread, or never."""
        waiting = self._waiting
        if waiting is None:
            waiting = self._begin()
        waiting.append(line)
        if len(waiting) >= AT_ONCE and self.lock.acquire(blocking=False):
            try:
                self.write()
            finally:
                self.lock.release()

    def _begin(self) -> "deque[_Raw]":
        with _making:  # threads with a copy of the job's context may come at the same time
            if self._waiting is None:
                self.lock = threading.Lock()
                self._lines = Lines(self._keeper.limit)
                self.is_stored = False
                self.said_at = self.rests_until = 0.0
                self._waiting = deque()
                self._keeper.watch(self)
            return self._waiting

    def write(self) -> Lines:
        """All lines so far as texts. The caller has `lock`."""
        waiting = self._waiting
        while waiting:
            try:
                line = waiting.popleft()
            except IndexError:  # another thread was quicker
                break
            self._lines.add(encode(line.line(), self._keeper.limit // 2, self._seals))
        return self._lines

    def end(self) -> None:
        """Its code has ended. Where that took long, its lines are stored; else they wait for `keep`."""
        self.is_open = False
        running.set(None)
        if self._waiting is None:
            return
        if time.monotonic() - self.began >= LONG:
            self.keep()
        else:
            self._keeper.forget(self)

    def keep(self) -> None:
        """It has failed, or took long: store its lines. Never raises."""
        if self._waiting is not None and not self._kept:
            self._kept = True
            self._keeper.store(self)


running: ContextVar[RunLog | None] = ContextVar("conventions_run_log", default=None)


class Collector(logging.Handler):
    """Gives each line to the run of its context: of its thread, its greenlet, or its asyncio task."""

    def createLock(self) -> None:  # noqa: N802  # logging's name
        """It needs none: a run has its own."""
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        """Collect a line. Never raises what is wrong with it."""
        run = running.get()
        if run is None or not run.is_open:
            return False
        try:
            run.add(_line_of(record))
        except SoftTimeLimitExceeded:  # of a signal that came in this moment
            raise
        except Exception:  # noqa: BLE001, S110  # a job does not fail for its log
            pass
        return True


def _line_of(record: logging.LogRecord) -> _Raw:
    try:
        message = str(record.getMessage())
    except SoftTimeLimitExceeded:
        raise
    except Exception as fault:  # noqa: BLE001  # arguments that do not fit, or a `__str__` that fails
        message = f"<its text cannot be read: {type(fault).__name__}>"
    exception = record.exc_text
    if record.exc_info and record.exc_info[0] is not None:  # not by the record, which keeps it for the team's handlers
        exception = "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
    if record.stack_info:
        exception = f"{exception}\n{record.stack_info}" if exception else record.stack_info
    return _Raw(record.created, record.levelname, record.name, _bounded(message), exception and _bounded(exception))


def _bounded(text: str) -> str:
    """A text that may wait in memory with many others."""
    if len(text) <= MOST_WAITING:
        return text
    text = without_secrets(text)  # before the cut, which might leave half of one
    return f"{text[: MOST_WAITING // 2]} … {text[-MOST_WAITING // 2 :]}"


def attach(level: int) -> None:
    """Collect what reaches the handlers of this process, from this level on. May be called again.

    Where the root has no handler nothing is attached: Python prints warnings then, and would stop if there were one.
    """
    root, of_tasks = logging.getLogger(), logging.getLogger(TASK_LOGGER)
    found = next((one for one in root.handlers if isinstance(one, Collector)), None) or Collector()
    found.setLevel(level)
    for logger in (root, of_tasks):
        has_own = logger is root or not logger.propagate  # else its lines reach the root
        if has_own and logger.handlers and not any(isinstance(one, Collector) for one in logger.handlers):
            logger.addHandler(found)
