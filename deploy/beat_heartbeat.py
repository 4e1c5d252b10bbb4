# ruff: noqa: INP001 - a folder for operators; in the container, the working folder makes it importable
"""Beat's sign of life for its health check: `celery -A tasks beat --scheduler deploy.beat_heartbeat:Scheduler`.

It touches a file after each look at the schedule, every 5 s at the least: whether it leads or stands by, and also while
Redis is away, which Valkey's own check tells. So a file that is not fresh says that beat is stuck.
"""

import tempfile
from pathlib import Path
from typing import Any

from conventions.schedules import scheduler

FILE = Path(tempfile.gettempdir(), "beat-heartbeat")


class Scheduler(scheduler.Scheduler):
    """The platform's scheduler with a sign of life. Raises: OSError when the file cannot be written."""

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Send what is due; return the seconds until the next look."""
        wait = super().tick(*args, **kwargs)
        FILE.touch()
        return wait
