"""The main process of a pool of processes runs no job: it looks for garbage seldom."""

from typing import Any

from celery import bootsteps

from conventions.core.garbage import look_seldom
from conventions.library_internals.celery import symbol_by_name
from conventions.library_internals.celery_worker import has_processes


class GarbageStep(bootsteps.Step):
    """Where the pool has processes; each of them looks as often as Python does, see `TaskLoader.on_worker_process_init`."""

    def create(self, worker: Any) -> None:
        """Before the pool forks."""
        if has_processes(symbol_by_name(worker.pool_cls)):
            look_seldom()
