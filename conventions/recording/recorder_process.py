"""The recorder's process beside a worker, from its fork to its end."""

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

from redis.exceptions import RedisError

from conventions.library_internals.celery import after_fork
from conventions.library_internals.kombu import forget_connections
from conventions.recording.leader_duties import begin_duties, counter_of
from conventions.recording.recorder import LAST_DRAIN, Recorder
from conventions.sending.application import SendingApplication

logger = logging.getLogger(__name__)

NAME = "recorder"  # in the system's list of processes
REST = 4.0  # the recorder works a fifth of the time, unless events wait for long
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


class Asked:
    """Whether this process was asked to end. Takes no lock: a second signal interrupts the handler of the first."""

    def __init__(self) -> None:
        self.to_end = False

    def note(self, *_: object) -> None:
        """Handle the signal."""
        self.to_end = True


def record_for_ever(app: SendingApplication, parent: int, pulse: Pulse | None = None, *, after: int = 0) -> NoReturn:
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
        recorder = Recorder(
            app.store,
            cache(partial(_loaded, app)),
            timings=app.timings,
            rest=REST,
            counter=counter_of(app),
            audit_keys=app.audit_keys,
        )
        if after:
            with suppress(RedisError):  # the lead lapses by itself
                recorder.succeed(after)

        duties = None
        if hasattr(app, "tasks"):
            _forget_broker(app)
            duties = begin_duties(app, recorder, lambda: asked.to_end, pulse.step)

        def is_over() -> bool:
            pulse.step()
            return asked.to_end or os.getppid() != parent

        recorder.run(is_over)
        recorder.finish(LAST_DRAIN if asked.to_end else 0.0)
        if duties is not None and asked.to_end:
            duties.finish()
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


def _loaded(app: SendingApplication) -> Any:
    """The database, loaded. The garbage collector skips the loaded libraries from now on: see `TaskLoader.on_worker_init`."""
    database = app.database
    database.engine  # noqa: B018  # loads the dialect and the driver, and connects to nothing
    gc.freeze()
    return database


def _forget_broker(app: SendingApplication) -> None:
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
