"""How the end of one of the pool's processes is seen: by the pool, soon (`PoolStep`), and by who asks (`has_ended`)."""

import os
from typing import Any

from celery import bootsteps

LOOK_EVERY = 0.5  # seconds


class PoolStep(bootsteps.StartStopStep):
    """Asks more often than Celery, which looks every five seconds where it has missed the end of a process.

    It is told of the end when the last file of the process is closed, which may be before the system can say that it has ended.
    """

    requires = ("celery.worker.components:Pool",)

    def register_with_event_loop(self, worker: Any, hub: Any) -> None:
        """As above."""
        hub.call_repeatedly(LOOK_EVERY, worker.pool.maintain_pool)


def has_ended(child: int | None) -> bool:
    """Whether this child has ended, whether or not somebody has asked for its status; `None`, or this process: it has not."""
    if child is None or child == os.getpid():
        return False
    try:
        return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True
    except OverflowError:  # the number of a green thread
        return False
