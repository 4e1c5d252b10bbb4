"""The recorder's process beside a worker. The worker's main process starts it, watches it, and starts it again if it ends."""

import gc
import logging
import mmap
import os
import signal
import stat
import threading
import time
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any, NoReturn

from celery import bootsteps
from celery.signals import worker_shutdown
from redis.exceptions import RedisError

from conventions.core.rounds import Rounds
from conventions.execution.application import Application
from conventions.library_internals.celery import after_fork
from conventions.library_internals.kombu import forget_connections
from conventions.recording.leader_duties import begin_duties
from conventions.recording.recorder import LAST_DRAIN, Recorder
from conventions.records.journal import LATE_AFTER, Journal

logger = logging.getLogger(__name__)

STOP_WITHIN = 5.0  # seconds that the recorder has for the last events
LOOK_EVERY = 1.0  # seconds between two looks of the keeper at its recorder
NAME = "recorder"  # in the system's list of processes
REST = 4.0  # the recorder works a fifth of the time, unless events wait for long
FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0  # seconds before a start after the second end in a row; doubled each time
LIVED = 60.0  # seconds: the end of a recorder that lived longer counts as the first in a row
STANDS_AFTER = 15  # looks in a row without a sign of life: the recorder is killed
STUCK_AFTER = 180  # looks in a row without a finished step: it is killed, too; a call to the database may hang
LATE = LATE_AFTER
LAG_EVERY = 10.0  # seconds between two looks at the age of the oldest event
TELL_EVERY = 60.0  # seconds between two log lines about it
STANDARD = (0, 1, 2)  # the standard files of every process: the log goes there
PARENT_LOOK, PARENT_PATIENCE = 0.2, 1.3  # seconds: a child whose parent has ended is gone after the sum of both


class Pulse:
    """Two counters in memory that a recorder shares with its keeper: signs of life, and finished steps."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 16)
        self._alive = self._forward = 0

    def beat(self) -> None:
        """Count a sign of life. Called by a thread of the recorder."""
        self._alive += 1
        self._memory[:8] = self._alive.to_bytes(8, "little")

    def step(self) -> None:
        """Count a finished step. Called by the thread that records."""
        self._forward += 1
        self._memory[8:] = self._forward.to_bytes(8, "little")

    def read(self) -> tuple[bytes, bytes]:
        """Both counters. Called by the keeper."""
        return self._memory[:8], self._memory[8:]


class Keeper:
    """Keeps one recorder running beside this process. It starts a new one if the recorder ends or hangs.

    Args:
        app: the application. Its `store` and `database` make new connections after a fork.
    """

    def __init__(self, app: Application) -> None:
        self._app = app
        self._ends, self._lock = False, threading.Lock()
        fault = "the recorder is not looked after"
        self._rounds = Rounds("keeper", self._look_after, LOOK_EVERY, fault=fault, logger=logger)
        self._failures = 0  # unexpected ends in a row
        self._next_start = self._next_lag = self._next_tell = 0.0
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
        self._look_at_lag()

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

    def _look_at_lag(self) -> None:
        """Log a warning if events wait for too long. The recorder's own log says why, if a recorder runs."""
        now = time.monotonic()
        if now < max(self._next_lag, self._next_tell):
            return
        self._next_lag = now + LAG_EVERY
        with suppress(RedisError):  # without Redis there are no events to record
            if fault := Journal(self._app.store).fault(LATE):
                self._next_tell = now + TELL_EVERY
                logger.warning("%s", fault)

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


class RecorderProcess(bootsteps.StartStopStep):
    """Forks the recorder before the worker has threads and connections. If the worker runs in a thread itself, starts a thread."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        self._ended = threading.Event()
        self._keeper: Keeper | None = None

    def create(self, worker: Any) -> None:
        """Start the recorder. It ends with the worker, however the worker ends."""
        worker_shutdown.connect(self._stop, sender=worker)
        if threading.current_thread() is threading.main_thread():
            self._keeper = Keeper(worker.app)
            return
        recorder = Recorder(worker.app.store, lambda: worker.app.database, timings=worker.app.timings)
        self._lost = begin_duties(worker.app, recorder, self._ended.is_set)
        self._thread = threading.Thread(target=recorder.run, args=(self._ended.is_set,), name="recorder", daemon=True)
        self._thread.start()

    def start(self, worker: Any) -> None:  # noqa: ARG002  # Celery's signature
        """Watch the recorder, in a thread that starts after the pool has forked its processes."""
        if self._keeper is not None:
            self._keeper.watch()

    def _stop(self, **_: Any) -> None:
        self._ended.set()
        if self._keeper is None:
            self._lost.stop()
            self._thread.join(STOP_WITHIN)
        else:
            self._keeper.stop()


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


class Asked:
    """Whether this process was asked to end. Takes no lock: a second signal interrupts the handler of the first."""

    def __init__(self) -> None:
        self.to_end = False

    def note(self, *_: object) -> None:
        """Handle the signal."""
        self.to_end = True


def record_for_ever(app: Application, parent: int, pulse: Pulse | None = None, *, after: int = 0) -> NoReturn:
    """Run the recorder of an application in a child that was just forked. Ends this process, and never returns.

    After SIGTERM it finishes its batch, records what is left, and ends. If `parent` ends, this process ends within 2 s: the next
    worker brings a recorder of its own.

    Args:
        app: the application. Its `store` and `database` make new connections after a fork.
        parent: the id of the process that forked this one.
        pulse: counts signs of life and finished steps for the parent.
        after: the id of the last recorder's process, which has ended.
    """
    asked, pulse = Asked(), pulse or Pulse()
    status = 1
    try:
        _reset_signals(asked)
        _let_go_of_parents()
        threading.Thread(target=_end_with, args=(parent, pulse), name="parent", daemon=True).start()
        recorder = Recorder(app.store, cache(partial(_loaded, app)), timings=app.timings, rest=REST)
        if after:
            with suppress(RedisError):  # the lead lapses by itself
                recorder.succeed(after)

        if hasattr(app, "tasks"):
            _forget_broker(app)
            begin_duties(app, recorder, lambda: asked.to_end, pulse.step)

        def is_over() -> bool:
            pulse.step()
            return asked.to_end or os.getppid() != parent

        recorder.run(is_over)
        recorder.finish(LAST_DRAIN if asked.to_end else 0.0)
        status = 0
    except Exception:
        logger.exception("the recorder ended")
    finally:
        os._exit(status)  # skip what the parent has registered for its own end


def _let_go_of_parents() -> None:
    """Give this process a name, and close the parent's pipes and sockets. Otherwise they stay open after the parent closes them."""
    with suppress(OSError):
        Path("/proc/self/comm").write_text(NAME, encoding="ascii")
    with suppress(OSError), Path(os.devnull).open("rb") as nothing:
        for file in [int(path.name) for path in Path("/proc/self/fd").iterdir()]:
            with suppress(OSError):
                if file not in STANDARD and _is_channel(os.fstat(file).st_mode):
                    os.dup2(
                        nothing.fileno(), file
                    )  # replaced, not closed: an object that has this number may close it later


def _loaded(app: Application) -> Any:
    """The database, loaded. The garbage collector skips the loaded libraries from now on: see `TaskLoader.on_worker_init`."""
    database = app.database
    database.engine  # noqa: B018  # loads the dialect and the driver, and connects to nothing
    gc.freeze()
    return database


def _forget_broker(app: Application) -> None:
    """Forget the parent's connections to the broker, which are closed here. The next send makes a new one."""
    forget_connections()
    after_fork(app)


def _is_channel(mode: int) -> bool:
    return stat.S_ISSOCK(mode) or stat.S_ISFIFO(mode)


def _reset_signals(asked: Asked) -> None:
    """Remove the parent's signal handlers. Ctrl-C reaches the whole process group, so ignore it: the parent says when to stop."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)) and number != signal.SIGTERM:
            signal.signal(number, signal.SIG_DFL)
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, asked.note)


def _end_with(parent: int, pulse: Pulse) -> None:
    """End this process soon after its parent, even while it waits for SQL or Redis. Runs in a thread."""
    while os.getppid() == parent:
        pulse.beat()
        time.sleep(PARENT_LOOK)
    time.sleep(PARENT_PATIENCE)
    os._exit(1)
