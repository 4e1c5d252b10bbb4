"""The recorder beside a worker: a process of its own, which the worker's main process watches and starts again."""

import gc
import logging
import mmap
import os
import signal
import stat
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any, NoReturn

from celery import bootsteps
from celery.signals import worker_shutdown
from redis.exceptions import RedisError

from conventions.core.rounds import Rounds
from conventions.dead_letters.redrive_runner import Redriver
from conventions.execution.application import Application
from conventions.library_internals.celery import after_fork
from conventions.library_internals.kombu import forget_connections
from conventions.recording.lost_messages import LostMessages
from conventions.recording.recorder import LAST_DRAIN, Recorder
from conventions.recording.restored_redis import compare
from conventions.records.journal import LATE_AFTER, Journal

logger = logging.getLogger(__name__)

STOP_WITHIN = 5.0  # seconds that the recorder has for the last events
LOOK_EVERY = 1.0  # seconds between two looks of the keeper
NAME = "recorder"  # in the system's list of processes
NICENESS = 5  # jobs come first,
REST = 4.0  # and so it works a fifth of the time, unless events wait for long
FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0  # seconds from the second end in a row to the next start, twice as long each time
LIVED = 60.0  # seconds after which the end of a recorder is the first one again
STANDS_AFTER = 15  # looks in a row at a recorder that does nothing at all: it is killed
STUCK_AFTER = (
    180  # and at one that records nothing and does not say that it waits, as for a database that does not answer
)
LATE = LATE_AFTER
LAG_EVERY = 10.0  # seconds between two looks at the oldest event that is not recorded
TELL_EVERY = 60.0  # seconds between two lines that say so
STANDARD = (0, 1, 2)  # files of every process: the log goes there
PARENT_LOOK, PARENT_PATIENCE = 0.2, 1.3  # seconds: after both together, a child without its parent is gone


class Pulse:
    """Two counters in memory that a recorder shares with its keeper: it is alive, and it comes forward."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 16)
        self._alive = self._forward = 0

    def beat(self) -> None:
        """The process runs. From a thread of the recorder."""
        self._alive += 1
        self._memory[:8] = self._alive.to_bytes(8, "little")

    def step(self) -> None:
        """It has come to the end of a step. From the thread that records."""
        self._forward += 1
        self._memory[8:] = self._forward.to_bytes(8, "little")

    def read(self) -> tuple[bytes, bytes]:
        """Both, as they are now. From the keeper."""
        return self._memory[:8], self._memory[8:]


class Keeper:
    """Keeps one recorder running beside this process, whatever ends it or makes it stand still.

    Args:
        app: has `store` and `database`; both make connections of their own after a fork.
    """

    def __init__(self, app: Application) -> None:
        self._app = app
        self._ends, self._lock = False, threading.Lock()
        fault = "the recorder is not looked after"
        self._rounds = Rounds("keeper", self._look_after, LOOK_EVERY, fault=fault, logger=logger)
        self._failures = 0  # ends in a row
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
        """Look after it until `stop`, in a thread."""
        self._rounds.start()

    def _look_after(self) -> None:
        with self._lock:
            if not self._ends:
                self.look()
        self._look_at_lag()

    def look(self) -> None:
        """Start one where none runs; end one that stands still, which the next look finds."""
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
        # Counted in looks, not in seconds: where both processes stood still, as on a machine that slept, nothing is wrong.
        now = self._pulse.read()
        for number, (one, before) in enumerate(zip(now, self._seen, strict=True)):
            self._unchanged[number] = self._unchanged[number] + 1 if one == before else 0
        self._seen = now
        if self._unchanged[0] >= STANDS_AFTER:
            return "stands still"
        return "does not come forward" if self._unchanged[1] >= STUCK_AFTER else ""

    def _look_at_lag(self) -> None:
        """Say that what happens is not recorded in time; whose fault it is, the recorder says, if there is one."""
        now = time.monotonic()
        if now < max(self._next_lag, self._next_tell):
            return
        self._next_lag = now + LAG_EVERY
        with suppress(RedisError):  # then nothing happens that could be recorded
            if fault := Journal(self._app.store).fault(LATE):
                self._next_tell = now + TELL_EVERY
                logger.warning("%s", fault)

    def stop(self) -> None:
        """End it, after it has recorded what is there."""
        self._rounds.stop()
        with self._lock:
            self._ends = True
            if not self.pid:
                return
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)
            deadline = time.monotonic() + STOP_WITHIN
            while (
                not _ended(self.pid) and time.monotonic() < deadline
            ):  # later, it ends by itself soon after this process
                time.sleep(0.01)


class RecorderProcess(bootsteps.StartStopStep):
    """Forks the recorder before the worker has threads and connections; in a worker that is a thread itself, starts a thread."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        self._ended = threading.Event()
        self._keeper: Keeper | None = None

    def create(self, worker: Any) -> None:
        """Start it. It ends with the worker, however that ends."""
        worker_shutdown.connect(self._stop, sender=worker)
        if threading.current_thread() is threading.main_thread():
            self._keeper = Keeper(worker.app)
            return
        recorder = Recorder(worker.app.store, lambda: worker.app.database, timings=worker.app.timings)
        self._lost = _begin_beside(worker.app, recorder, self._ended.is_set)
        self._thread = threading.Thread(target=recorder.run, args=(self._ended.is_set,), name="recorder", daemon=True)
        self._thread.start()

    def start(self, worker: Any) -> None:  # noqa: ARG002  # Celery's signature
        """Look after it, from a thread that begins after the pool was forked."""
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
    """How a child has ended; empty: it has not. None is left as a zombie."""
    try:
        found, status = os.waitpid(child, os.WNOHANG)
    except ChildProcessError:
        return "somebody else was told how"
    if not found:
        return ""
    code = os.waitstatus_to_exitcode(status)
    return f"status {code}" if code >= 0 else f"signal {-code}"


def record_for_ever(app: Application, parent: int, pulse: Pulse | None = None, *, after: int = 0) -> NoReturn:
    """Be the recorder of an application, in a child that was just forked; ends this process, and never returns.

    SIGTERM: finish the batch, record what is left, end. The process is gone within 2 s of `parent`'s end, since a
    worker that starts anew has a recorder of its own.

    Args:
        app: has `store` and `database`; both make connections of their own after a fork.
        parent: process id of the one that forked.
        pulse: tells the parent that this process lives and comes forward.
        after: process id of the one in whose place this one is, which has ended.
    """
    asked, pulse = threading.Event(), pulse or Pulse()
    status = 1
    try:
        _reset_signals(asked)
        _let_go_of_parents()
        os.nice(NICENESS)
        threading.Thread(target=_end_with, args=(parent, pulse), name="parent", daemon=True).start()
        recorder = Recorder(app.store, cache(partial(_loaded, app)), timings=app.timings, rest=REST)
        if after:
            with suppress(RedisError):  # then the lead lapses by itself
                recorder.succeed(after)

        if hasattr(app, "tasks"):
            _forget_broker(app)
            _begin_beside(app, recorder, asked.is_set, pulse.step)

        def is_over() -> bool:
            pulse.step()
            return asked.is_set() or os.getppid() != parent

        recorder.run(is_over)
        recorder.finish(LAST_DRAIN if asked.is_set() else 0.0)
        status = 0
    except Exception:
        logger.exception("the recorder ended")
    finally:
        os._exit(status)  # what the parent would do at its end is not this process's business


def _let_go_of_parents() -> None:
    """Give this process a name, and close the parent's pipes and sockets, which it believes to be closed once it closes them."""
    with suppress(OSError):
        Path("/proc/self/comm").write_text(NAME, encoding="ascii")
    with suppress(OSError), Path(os.devnull).open("rb") as nothing:
        for file in [int(path.name) for path in Path("/proc/self/fd").iterdir()]:
            with suppress(OSError):
                if file not in STANDARD and _is_channel(os.fstat(file).st_mode):
                    os.dup2(nothing.fileno(), file)  # not closed: what holds the number may close it later


def _loaded(app: Application) -> Any:
    """The database. The collector need not look at the libraries that it has loaded: see `TaskLoader.on_worker_init`."""
    database = app.database
    database.engine  # noqa: B018  # loads the dialect and the driver, and connects to nothing
    gc.freeze()
    return database


def _begin_beside(
    app: Application, recorder: Recorder, stop: Callable[[], bool], on_step: Callable[[], object] = bool
) -> LostMessages:
    """What the recorder that leads does beside recording, each in a thread of its own; `on_step`: it comes forward.

    Returns what must be stopped where the process goes on after the recorder.
    """
    # To compare many messages may take longer than anything else that a recorder does: its keeper must see it.
    recorder.compare = lambda: compare(app, on_step) if app.one_server else None
    lost = LostMessages(app, lambda: recorder.leads)
    lost.start()
    Redriver(app, recorder.name, lambda: recorder.leads).start(stop)
    return lost


def _forget_broker(app: Application) -> None:
    """Make new connections to the broker when there is something to send: those of the parent are closed here."""
    forget_connections()
    after_fork(app)


def _is_channel(mode: int) -> bool:
    return stat.S_ISSOCK(mode) or stat.S_ISFIFO(mode)


def _reset_signals(asked: threading.Event) -> None:
    """Forget the parent's handlers. Ctrl-C reaches the whole process group: the parent says when to stop."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)) and number != signal.SIGTERM:
            signal.signal(number, signal.SIG_DFL)
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: asked.set())


def _end_with(parent: int, pulse: Pulse) -> None:
    """A thread: end this process soon after its parent, even while it waits for SQL or Redis."""
    while os.getppid() == parent:
        pulse.beat()
        time.sleep(PARENT_LOOK)
    time.sleep(PARENT_PATIENCE)
    os._exit(1)
