"""A package whose worker loses a process of its pool in the moment in which it is ready."""

import os
import signal
from typing import Any

from celery.signals import worker_ready

from conventions import ImmediateTask
from conventions.execution.process_ends import has_ended
from tests.support import wait_until


class Answering(ImmediateTask):
    """Says that it runs."""

    not_idempotent = "nothing happens"

    def run(self) -> None:
        """Do nothing."""


@worker_ready.connect
def kill_one(sender: Any, **_: Any) -> None:
    """Celery looks a moment later whether all have started."""
    pid = sender.pool._pool._pool[0].pid
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: has_ended(pid), 30, "it has ended")
