"""What differs in a pool of processes: how soon the end of one is seen, what a hard time limit waits for, and their pages."""

from typing import Any

from billiard.process import current_process
from celery import bootsteps, signals
from celery.concurrency.prefork import TaskPool
from celery.utils.imports import symbol_by_name

from conventions.process_page import Pages

LOOK_EVERY = 0.5  # seconds
PAGES = 64  # at least, since a pool may grow


class PoolStep(bootsteps.StartStopStep):
    """Asks more often than Celery, which looks every five seconds where it has missed the end of a process.

    It is told of the end when the last file of the process is closed, which may be before the system can say that it has ended.
    """

    requires = ("celery.worker.components:Pool",)

    def register_with_event_loop(self, worker: Any, hub: Any) -> None:
        """As above."""
        hub.call_repeatedly(LOOK_EVERY, worker.pool.maintain_pool)


class SettlingFirst:
    """The hard time limit of a job, which waits while its process records how the job has ended: else its effect would happen again."""

    def __init__(self, pages: Pages, pool: Any, hub: Any) -> None:
        self._pages, self._pool, self._hub = pages, pool, hub
        self._kill = pool.on_hard_timeout

    def __call__(self, job: Any) -> None:
        """A job of the pool is beyond its limit."""
        look = self._pages.of(job._worker_pid)  # noqa: SLF001  # billiard has no name for it
        if look is not None and look.settles(since=job._time_accepted or 0.0):  # noqa: SLF001  # the same
            self._hub.call_later(LOOK_EVERY, self._pool._on_hard_timeout, job._job)  # noqa: SLF001  # the same
        else:
            self._kill(job)


class PagesStep(bootsteps.StartStopStep):
    """Gives each process of the pool a page, before the pool forks, and lets the hard time limits look there."""

    requires = ("celery.worker.components:Pool",)

    def create(self, worker: Any) -> None:
        """As above; where processes are spawned, nothing is shared."""
        if not issubclass(symbol_by_name(worker.pool_cls), TaskPool) or worker.pool_start_method != "fork":
            return
        pages = worker.app.pages
        pages.make(max(PAGES, 2 * (worker.max_concurrency or worker.concurrency)))

        def on_process_init(**_: Any) -> None:
            pages.take(getattr(current_process(), "index", -1))

        signals.worker_process_init.connect(on_process_init, weak=False)

    def register_with_event_loop(self, worker: Any, hub: Any) -> None:
        """The loop has a new hub after a lost connection, and the pool its limits."""
        pool: Any = getattr(worker.pool, "_pool", None)
        if worker.app.pages and not isinstance(getattr(pool, "on_hard_timeout", None), SettlingFirst):
            pool.on_hard_timeout = SettlingFirst(worker.app.pages, pool, hub)
