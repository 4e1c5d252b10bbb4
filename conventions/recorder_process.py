"""The recorder beside a worker: a process of its own, which is started again when it dies."""

import functools
import logging
import os
import signal
import threading
import time
from contextlib import suppress
from typing import Any, NoReturn

from celery import bootsteps
from celery.signals import worker_shutdown
from redis.exceptions import RedisError

from conventions.journal import Journal
from conventions.recorder import LAST_DRAIN, Recorder

logger = logging.getLogger(__name__)

STOP_WITHIN = 5.0  # seconds that the recorder has for the last events
PACE_LOOK = 1.0  # seconds between two looks at how many events wait
LOOK_EVERY = 0.5  # seconds between two looks at the processes
NICENESS = 15  # jobs come first,
REST = 4.0  # and so it works a fifth of the time,
HURRY_AT, CALM_AT = 100_000, 1_000  # events that wait: from the one to the other it is as important as a job
OTHER_PACE = 3  # exit status: start another one, since a process may not take back that it is less important
QUIET = 0.1  # seconds without a new event before the first ones are recorded,
QUIET_WITHIN = 2.0  # and how long to wait for them
PARENT_LOOK, PARENT_PATIENCE = 0.2, 1.3  # seconds: after both together, a child without its parent is gone


class RecorderProcess(bootsteps.Step):
    """Forks the recorder while the worker has one thread only; in a worker that is a thread itself, starts a thread."""

    def create(self, worker: Any) -> None:
        """Start it. It ends with the worker, however that ends."""
        self._app = worker.app
        self._pid = 0
        self._ended = threading.Event()
        worker_shutdown.connect(self._stop, sender=worker)
        if threading.current_thread() is not threading.main_thread():
            recorder = Recorder(self._app.store, lambda: self._app.database)
            self._thread = threading.Thread(
                target=recorder.run, args=(self._ended.is_set,), name="recorder", daemon=True
            )
            self._thread.start()
            return
        main = os.getpid()
        self._pid = os.fork()
        if not self._pid:
            _watch_over(self._app, main)

    def _record(self) -> None:
        recorder = Recorder(self._app.store, lambda: self._app.database)
        recorder.run(self._ended.is_set)
        recorder.finish()

    def _stop(self, **_: Any) -> None:
        self._ended.set()
        if not self._pid:
            self._thread.join(STOP_WITHIN)
            return
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(self._pid, signal.SIGTERM)
            deadline = time.monotonic() + STOP_WITHIN
            while time.monotonic() < deadline and os.waitpid(self._pid, os.WNOHANG) == (0, 0):
                time.sleep(0.01)


def _watch_over(app: Any, main: int) -> NoReturn:
    """Keep a recorder running until the worker's main process is gone or says so. Never returns."""
    asked = threading.Event()
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: asked.set())
    keeper, hurries, is_first = os.getpid(), False, True
    try:
        while True:
            recorder = os.fork()
            if not recorder:
                record_for_ever(app, keeper, hurries=hurries, waits=is_first)
            is_first = False
            while (ended := os.waitpid(recorder, os.WNOHANG)) == (0, 0):
                if asked.wait(LOOK_EVERY) or os.getppid() != main:
                    os.kill(recorder, signal.SIGTERM)
                    os.waitpid(recorder, 0)
                    os._exit(0)
            hurries = hurries != (os.waitstatus_to_exitcode(ended[1]) == OTHER_PACE)
    finally:
        os._exit(1)


def record_for_ever(app: Any, parent: int, *, hurries: bool | None = None, waits: bool = False) -> NoReturn:
    """Be the recorder of an application, in a child that was just forked; ends this process, and never returns.

    SIGTERM: finish the batch, record what is left, end. The process is gone within 2 s of `parent`'s end, since a
    worker that starts anew has a recorder of its own.

    Args:
        app: has `store` and `database`; both make connections of their own after a fork.
        parent: process id of the one that forked.
        hurries: whether it is as important as a job, until few events wait; else it is less important, until many do,
            and then ends with `OTHER_PACE`. `None`: less important for ever.
        waits: whether the jobs that run when the first events come may end first.
    """
    asked = threading.Event()
    status = 1
    try:
        _reset_signals(asked)
        if not hurries:
            os.nice(NICENESS)
        threading.Thread(target=_end_with, args=(parent,), name="parent", daemon=True).start()
        journal, rest = Journal(app.store), REST if hurries is False else 0.0
        quiet = functools.partial(_wait_for_quiet, journal, asked) if waits else None
        recorder = Recorder(app.store, lambda: app.database, rest=rest, before_first=quiet)
        pace = _Pace(journal, hurries, min(HURRY_AT, _limit_of(app) // 4))
        recorder.run(lambda: asked.is_set() or os.getppid() != parent or pace.is_wrong())
        if pace.was_wrong and not asked.is_set():
            with suppress(RedisError):
                recorder.lead(0.0)  # the next one need not wait for it to lapse
            os._exit(OTHER_PACE)
        recorder.finish(LAST_DRAIN if asked.is_set() else 0.0)
        status = 0
    except Exception:
        logger.exception("the recorder ended")
    finally:
        os._exit(status)  # what the parent would do at its end is not this process's business


def _limit_of(app: Any) -> int:
    """How many events may wait before nothing can be sent."""
    limit: int = app.settings.journal_limit if hasattr(app, "settings") else 4 * HURRY_AT
    return limit


class _Pace:
    """Whether the recorder is as important as the number of events that wait asks for."""

    def __init__(self, journal: Journal, hurries: bool | None, hurry_at: int) -> None:
        self._journal, self._hurries, self._hurry_at = journal, hurries, hurry_at
        self._next_look = time.monotonic() + PACE_LOOK
        self.was_wrong = False

    def is_wrong(self) -> bool:
        """Asks Redis once in a while."""
        if self.was_wrong or self._hurries is None or time.monotonic() < self._next_look:
            return self.was_wrong
        self._next_look = time.monotonic() + PACE_LOOK
        with suppress(RedisError):
            waiting = self._journal.length()
            self.was_wrong = waiting < CALM_AT if self._hurries else waiting > self._hurry_at
        return self.was_wrong


def _wait_for_quiet(journal: Journal, asked: threading.Event) -> None:
    """Let the jobs of a worker that has just started come first: to import SQLAlchemy takes as long as thousands of them."""
    deadline, before = time.monotonic() + QUIET_WITHIN, -1
    with suppress(RedisError):
        while not asked.is_set() and (now := journal.length()) != before and time.monotonic() < deadline:
            before = now
            time.sleep(QUIET)


def _reset_signals(asked: threading.Event) -> None:
    """Forget the parent's handlers. Ctrl-C reaches the whole process group: the parent says when to stop."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)) and number != signal.SIGTERM:
            signal.signal(number, signal.SIG_DFL)
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: asked.set())


def _end_with(parent: int) -> None:
    """A thread: end this process soon after its parent, even while it waits for SQL or Redis."""
    while os.getppid() == parent:
        time.sleep(PARENT_LOOK)
    time.sleep(PARENT_PATIENCE)
    os._exit(1)
