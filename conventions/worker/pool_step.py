"""What Celery's pools lack. Pools of processes: to see the end of a process soon, limits that wait for settling, pages. Pools of threads: to tell of errors."""

from collections.abc import Callable
from typing import Any

from celery import bootsteps, signals

from conventions.idempotency.shared_memory import Pages
from conventions.library_internals.billiard import (
    ExceptionInfo,
    HardLimits,
    began_at,
    own_index,
    pid_of,
    tolerate_kills,
)
from conventions.library_internals.celery import symbol_by_name
from conventions.library_internals.celery_worker import control_commands, has_processes, refusal

LOOK_EVERY = 0.5  # seconds
NO_RESTART = "pool_restart is not done: what keeps jobs from being repeated is set up when a worker starts. Restart the worker: at SIGTERM it gives back what has not begun"
PAGES = 64  # at least, since a pool may grow


class PoolStep(bootsteps.StartStopStep):
    """Asks more often than Celery, which looks every five seconds where it has missed the end of a process.

    It is told of the end when the last file of the process is closed, which may be before the system can say that it has ended.
    And a process that somebody kills while the worker starts is replaced like any other: Celery would end the worker.
    """

    requires = ("celery.worker.components:Pool",)

    def register_with_event_loop(self, worker: Any, hub: Any) -> None:
        """Look for ended processes every `LOOK_EVERY` seconds, and let a killed one be replaced."""
        hub.call_repeatedly(LOOK_EVERY, worker.pool.maintain_pool)
        tolerate_kills(worker.pool)


class SettlingFirst:
    """The hard time limit of a job, which waits while its process records how the job has ended: else its effect would happen again."""

    def __init__(self, pages: Pages, limits: HardLimits, hub: Any) -> None:
        self._pages, self._limits, self._hub = pages, limits, hub
        self._kill = limits.handler

    def __call__(self, job: Any) -> None:
        """A job of the pool is beyond its limit."""
        look = self._pages.of(pid_of(job))
        if look is not None and look.settles(since=began_at(job)):
            self._hub.call_later(LOOK_EVERY, self._limits.look_again, job)
        else:
            self._kill(job)


class PagesStep(bootsteps.StartStopStep):
    """Gives each process of the pool a page, before the pool forks, and lets the hard time limits look there."""

    requires = ("celery.worker.components:Pool",)

    def create(self, worker: Any) -> None:
        """Make the pages, where the pool forks. Spawned processes share nothing with their parent."""
        _refuse_restarts()
        if not has_processes(symbol_by_name(worker.pool_cls)) or worker.pool_start_method != "fork":
            return
        pages = worker.app.pages
        pages.make(max(PAGES, 2 * (worker.max_concurrency or worker.concurrency)))

        def on_process_init(**_: Any) -> None:
            pages.take(own_index())

        signals.worker_process_init.connect(on_process_init, weak=False)

    def register_with_event_loop(self, worker: Any, hub: Any) -> None:
        """The loop has a new hub after a lost connection, and the pool its limits."""
        if worker.app.pages and not isinstance((limits := HardLimits(worker.pool)).handler, SettlingFirst):
            limits.replace(SettlingFirst(worker.app.pages, limits, hub))


def _refuse_restarts() -> None:
    """Let no remote control exchange the processes of a pool that runs, as `worker_pool_restarts` would allow it."""
    found = control_commands["pool_restart"]
    original = getattr(found, "of_celery", found)

    def pool_restart(state: Any, **options: Any) -> Any:
        # Another program's worker may be in this process.
        return refusal(NO_RESTART) if hasattr(state.app, "in_flight") else original(state, **options)

    pool_restart.of_celery = original  # type: ignore[attr-defined]  # for a worker that is made after this one
    control_commands["pool_restart"] = pool_restart


class HearingStep(bootsteps.StartStopStep):
    """Lets a pool without processes tell of errors that Celery's tracer lets through, as a pool of processes does."""

    requires = ("celery.worker.components:Pool",)

    def create(self, worker: Any) -> None:
        """Let the pool tell the loop of errors. Pools of processes do so already."""
        if not has_processes(symbol_by_name(worker.pool_cls)):
            worker.pool.on_apply = Hearing(worker.pool.on_apply, worker.app.loop_calls.in_loop)


class Hearing:
    """Gives a job to a pool of threads, or solo. An error around it goes to its request, which lets the message come again.

    A thread would keep it to itself, and the message would stay with the worker, and keep the place of another one.
    """

    def __init__(self, apply: Callable[..., Any], in_loop: Callable[[Callable[[], None]], None]) -> None:
        self._apply, self._in_loop = apply, in_loop

    def __call__(
        self,
        target: Callable[..., Any],
        args: Any = None,
        kwargs: Any = None,
        callback: Any = None,
        error_callback: Any = None,
        **options: Any,
    ) -> Any:
        """As `on_apply` of a pool."""

        def run(*args: Any, **kwargs: Any) -> Any:
            try:
                return target(*args, **kwargs)
            except Exception:
                if error_callback is None:
                    raise
                return _Failed(ExceptionInfo())

        def hear(found: Any) -> None:
            if isinstance(found, _Failed):
                self._in_loop(lambda: error_callback(found.info))
            elif callback is not None:
                callback(found)

        return self._apply(run, args, kwargs, callback=hear, **options)


class _Failed:
    """What ended a call."""

    def __init__(self, info: ExceptionInfo) -> None:
        self.info = info
